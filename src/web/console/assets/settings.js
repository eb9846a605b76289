// Every daemon's settings, who runs which version of the live ones, and how they came to be.

import { tryAsk } from "./api.js";
import { badge, errorBox, h, show, table } from "./dom.js";
import { moment } from "./format.js";

export async function settings(main, { isHere }) {
  const list = h("div", {}, h("p", { class: "empty" }, "Asking all daemons…"));
  const applied = h("div", {});
  const past = h("div", {});
  const input = h("input", { type: "search", placeholder: "part of a name or value", oninput: () => paint() });
  const changed = h("input", { type: "checkbox", onchange: () => paint() });
  main.append(h("div", { class: "head" }, h("h1", {}, "Settings")),
    h("section", { class: "sheet" }, h("h2", {}, "Who runs which version"), applied),
    h("section", { class: "sheet" }, h("div", { class: "head" }, h("h2", {}, "All settings"), h("span", { class: "grow" }),
      h("label", { class: "inline" }, "Find", input), h("label", { class: "inline" }, changed, "only what is not the default")), list),
    h("section", { class: "sheet" }, h("h2", {}, "Changes of live settings"), past));
  let rows = [];
  const paint = () => {
    const text = input.value.toLowerCase();
    const fits = (row) => (!changed.checked || row.value !== row.default) && (!text || `${row.key} ${row.value} ${row.origin}`.toLowerCase().includes(text));
    show(list, table([
      { title: "Setting", cell: (row) => [h("span", { class: "mono" }, row.key), row.live && [" ", badge("live")]] },
      { title: "Value", cell: (row) => [h("span", { class: "mono" }, row.value === "" ? "\"\"" : row.value), row.error && h("div", { class: "small bad" }, row.error)] },
      { title: "Default", cell: (row) => (row.value === row.default ? h("span", { class: "faint" }, "the same") : h("span", { class: "mono" }, row.default || "\"\"")) },
      { title: "From", cell: (row) => row.origin },
      { title: "Daemons", cell: (row) => row.daemons },
    ], rows.filter(fits), { caption: "Settings of all daemons", empty: "No setting fits." }));
  };
  const [all, versions, changes] = await Promise.all([
    tryAsk("SELECT key, value, \"default\", origin, live, error, daemon FROM system.settings ORDER BY key, daemon"),
    tryAsk("SELECT * FROM system.settings_applied ORDER BY daemon"),
    tryAsk("SELECT * FROM system.settings_history ORDER BY version DESC LIMIT 100"),
  ]);
  if (!isHere()) return;
  if (all instanceof Error) show(list, errorBox(all));
  else {
    rows = grouped(all);
    paint();
  }
  show(applied, versions instanceof Error ? errorBox(versions) : table([
    { title: "Daemon", cell: (row) => row.daemon },
    { title: "Version", number: true, cell: (row) => row.version },
    { title: "Present one", cell: (row) => (row.current === "t" ? badge("yes", "good") : badge("no", "warn")) },
    { title: "Since", cell: (row) => moment(row.applied) },
    { title: "Error", cell: (row) => row.error && h("span", { class: "bad" }, row.error) },
  ], versions, { caption: "Versions that daemons run" }));
  show(past, changes instanceof Error ? errorBox(changes) : table([
    { title: "Version", number: true, cell: (row) => row.version },
    { title: "When", cell: (row) => moment(row.changed) },
    { title: "By", cell: (row) => row.by },
    { title: "Setting", cell: (row) => h("span", { class: "mono" }, row.name) },
    { title: "Before", cell: (row) => row.before },
    { title: "Since then", cell: (row) => row.value },
  ], changes, { caption: "Changes", empty: "Nothing was changed while daemons run." }));
}

// One row for all daemons that have the same value from the same place.
function grouped(all) {
  const daemons = new Set(all.map((row) => row.daemon)).size;
  const groups = Map.groupBy(all, (row) => JSON.stringify([row.key, row.value, row.origin, row.error]));
  return [...groups.values()].map((rows) => ({
    ...rows[0], live: rows[0].live === "t",
    daemons: rows.length === daemons ? "all" : rows.map((row) => row.daemon).join(", "),
  }));
}

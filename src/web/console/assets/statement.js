// One statement: its text, its phases, its plan with what each step took.

import { ask, literal, tryAsk } from "./api.js";
import { errorBox, facts, h, put, show, stateBadge } from "./dom.js";
import { bytes, count, millis, moment } from "./format.js";
import { plan } from "./plan.js";

export async function statement(main, { path, isHere }) {
  // By its own id, or as the last attempt at a submitted query.
  const query = path[0] === "submitted" ? path[1] : undefined;
  const which = query ? `application_name IN (${literal(`submitted ${query}`)}, left(${literal(`submitted ${query}`)}, 63)) ORDER BY id DESC LIMIT 1` : `id = ${literal(path[0] ?? "")}`;
  main.append(h("p", { class: "empty" }, "Reading…"));
  const [row] = await ask(`SELECT *, array_to_string(workers, ', ') AS worker_list, array_to_string(silent_workers, ', ') AS silent_list, array_to_string(settings, chr(31)) AS setting_list FROM system.query_history WHERE ${which}`);
  if (!isHere()) return;
  if (!row) {
    show(main, h("div", { class: "head" }, h("h1", {}, "Statement")),
      h("p", { class: "empty" }, "It is not in the history that you may see: it runs still, or it is forgotten by now. ", h("a", { href: "#/queries" }, "Running statements")));
    return;
  }
  const { id } = row;
  const again = () => { sessionStorage.setItem("oribi.sql", row.sql); location.hash = "#/sql"; };
  show(main,
    h("div", { class: "head" }, h("h1", {}, "Statement"), stateBadge(row.state), h("span", { class: "mono faint small" }, row.id), query && h("span", { class: "small faint" }, `the last attempt at ${query}`), h("span", { class: "grow" }),
      h("button", { type: "button", onclick: again }, "Open in the SQL box")),
    row.error && errorBox({ code: row.sqlstate, message: row.error }),
    h("section", { class: "sheet" }, h("h2", {}, "Text"), h("pre", {}, row.sql)),
    phases(row),
    h("section", { class: "sheet" }, h("h2", {}, "Figures"), facts([
      ["User", row.user], ["Database", row.database], ["Started", moment(row.started)], ["Ended", moment(row.ended)], ["Tag", row.tag],
      ["Rows", count(row.rows)], ["Rows scanned", count(row.rows_scanned)], ["Scanned", bytes(row.bytes_scanned)], ["Spilled", bytes(row.bytes_spilled)],
      ["Peak memory", bytes(row.peak_memory)], ["Daemon", row.daemon], ["Workers", row.worker_list], ["Did not tell", row.silent_list],
      ["Retries", row.retries === "0" ? undefined : row.retries], ["Pool", row.pool], ["Client", row.client], ["Application", row.application_name], ["Process", row.pid],
    ])),
    h("section", { class: "sheet" }, h("h2", {}, "Settings that were not as by default"), settings(row)));
  const shown = h("section", { class: "sheet" }, h("h2", {}, "Plan"), h("p", { class: "empty" }, "Reading…"));
  main.append(shown);
  const profile = row.profile === "t" ? await tryAsk(`SELECT oribi.profile(${literal(id)}) AS profile`) : [];
  if (!isHere()) return;
  show(shown, h("h2", {}, "Plan"));
  if (profile instanceof Error) put(shown, errorBox(profile));
  else if (profile[0]?.profile) put(shown, plan(profile[0].profile));
  else put(shown, h("p", { class: "empty" }, noProfile(row)), await guess(row));
}

// Why there is none.
function noProfile(row) {
  if (row.state === "lost") return "Its daemon has ended under it, so there is no profile.";
  if (row.state !== "finished" && !Number(row.rows_scanned ?? 0)) return "It ended before there was anything to measure.";
  return "No profile is kept of it: the setting history.profile says how long a statement runs of which one is.";
}

// Each is name=value.
function settings(row) {
  if (!row.setting_list) return h("p", { class: "empty" }, "None.");
  const split = (setting) => [setting.slice(0, setting.indexOf("=")), setting.slice(setting.indexOf("=") + 1) || "(empty)"];
  return facts(row.setting_list.split("\x1f").map(split));
}

// The plan as it would be now, for a statement that reads.
async function guess(row) {
  if (!/^\s*(select|with|values|table)\b/i.test(row.sql) || row.sql === "<insufficient privilege>") return undefined;
  const button = h("button", { type: "button" }, "Show the plan as it would be now");
  const place = h("div", {}, button);
  button.addEventListener("click", async () => {
    const lines = await tryAsk(`EXPLAIN ${row.sql}`, { database: row.database });
    show(place, lines instanceof Error ? errorBox(lines) : plan(lines.map((line) => line["QUERY PLAN"]).join("\n")));
  });
  return place;
}

function phases(row) {
  const parts = [["Queued", row.queued_ms], ["Planning", row.planning_ms], ["Execution, to the last row taken", row.execution_ms]]
    .map(([title, value], at) => ({ title, at, value: Number(value ?? 0) }));
  const all = parts.reduce((sum, part) => sum + part.value, 0);
  if (!all) return undefined;
  const told = parts.map((part) => `${part.title} ${millis(part.value)}`).join(", ");
  return h("section", { class: "sheet" }, h("h2", {}, `Phases: ${millis(row.duration_ms)}`),
    h("div", { class: "timeline", role: "img", "aria-label": told },
      parts.filter((part) => part.value > 0).map((part) => h("span", { class: `k${part.at + 1}`, "width%": (part.value / all) * 100, title: part.title }))),
    h("div", { class: "legend" }, parts.map((part) => h("span", {}, h("i", { class: `k${part.at + 1}` }), `${part.title} `, h("b", {}, millis(part.value))))));
}

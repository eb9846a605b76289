// Statements that have ended: found by text, a page at a time.

import { ask, literal } from "./api.js";
import { errorBox, h, show, stateBadge, table } from "./dom.js";
import { bytes, count, millis, moment, oneLine, when } from "./format.js";

const PAGE = 50;
// Nobody goes farther, and the statement stays one.
const LAST = 1e9;

export async function history(main, { query, isHere }) {
  const chosen = {
    text: query.get("text") ?? "", state: query.get("state") ?? "", order: query.get("order") ?? "newest",
    own: query.get("console") === "1", page: Math.min(LAST, Math.max(0, Math.trunc(Number(query.get("page"))) || 0)),
  };
  const go = (changes) => {
    const next = { ...chosen, page: 0, ...changes };
    const search = new URLSearchParams();
    if (next.text) search.set("text", next.text);
    if (next.state) search.set("state", next.state);
    if (next.order !== "newest") search.set("order", next.order);
    if (next.own) search.set("console", "1");
    if (next.page) search.set("page", next.page);
    location.hash = `#/history?${search}`;
  };
  const search = h("input", { type: "search", name: "text", value: chosen.text, placeholder: "text, error, user or id" });
  const option = (value, title, present) => h("option", { value, selected: value === present }, title);
  const state = h("select", { name: "state", onchange: () => go({ state: state.value, text: search.value }) },
    ["", "finished", "failed", "cancelled", "lost"].map((value) => option(value, value || "any", chosen.state)));
  const order = h("select", { name: "order", onchange: () => go({ order: order.value, text: search.value }) },
    [["newest", "newest first"], ["slowest", "slowest first"], ["memory", "most memory first"], ["scanned", "most bytes first"]]
      .map(([value, title]) => option(value, title, chosen.order)));
  const own = h("input", { type: "checkbox", checked: chosen.own, onchange: () => go({ own: own.checked, text: search.value }) });
  const result = h("div", { "aria-live": "polite" }, h("p", { class: "empty" }, "Reading…"));
  main.append(
    h("div", { class: "head" }, h("h1", {}, "History")),
    h("form", { class: "row sheet", role: "search", onsubmit: (event) => { event.preventDefault(); go({ text: search.value }); } },
      h("label", { class: "field" }, "Find", search), h("label", { class: "field" }, "State", state), h("label", { class: "field" }, "Order", order),
      h("label", { class: "inline" }, own, "the console's own"), h("button", { type: "submit" }, "Find")),
    result);

  const conditions = [];
  if (!chosen.own) conditions.push("coalesce(application_name, '') <> 'oribi console'");
  if (chosen.state) conditions.push(`state = ${literal(chosen.state)}`);
  if (chosen.text) {
    const text = literal(chosen.text.toLowerCase());
    conditions.push(`(strpos(lower(sql), ${text}) > 0 OR strpos(lower(coalesce(error, '')), ${text}) > 0 OR lower("user") = ${text} OR id = ${text} OR sqlstate = upper(${text}))`);
  }
  const where = conditions.length ? `WHERE ${conditions.join(" AND ")}` : "";
  const by = { newest: "id DESC", slowest: "duration_ms DESC NULLS LAST, id DESC", memory: "peak_memory DESC, id DESC", scanned: "bytes_scanned DESC, id DESC" }[chosen.order] ?? "id DESC";
  try {
    const rows = await ask(`SELECT id, state, "user", started, duration_ms, rows, bytes_scanned, peak_memory, left(sql, 300) AS sql, sqlstate, error ` +
      `FROM system.query_history ${where} ORDER BY ${by} LIMIT ${PAGE + 1} OFFSET ${chosen.page * PAGE}`);
    if (!isHere()) return;
    const more = rows.length > PAGE;
    const shown = rows.slice(0, PAGE);
    show(result, h("div", { class: "sheet" }, table([
      { title: "State", cell: (row) => stateBadge(row.state) },
      { title: "Statement", cut: true, wide: true, cell: (row) => [h("a", { href: `#/statement/${row.id}`, class: "mono" }, oneLine(row.sql) || "(empty)"), row.error && h("div", { class: "small bad" }, `${row.sqlstate ?? ""} ${row.error}`)] },
      { title: "User", cell: (row) => row.user },
      { title: "Started", number: true, cell: (row) => h("span", { title: moment(row.started) }, when(row.started)) },
      { title: "Took", number: true, cell: (row) => millis(row.duration_ms) },
      { title: "Rows", number: true, cell: (row) => count(row.rows) },
      { title: "Scanned", number: true, cell: (row) => bytes(row.bytes_scanned) },
      { title: "Memory", number: true, cell: (row) => bytes(row.peak_memory) },
    ], shown, { caption: "Statements that have ended", link: (row) => `#/statement/${row.id}`, empty: chosen.page ? `No statement is as far back as page ${chosen.page + 1}.` : "No statement fits." }),
      !shown.length && chosen.page > 0 && h("p", {}, h("button", { type: "button", onclick: () => go({ page: 0 }) }, "The newest"))),
    h("nav", { class: "row middle", "aria-label": "Pages of the history" },
      h("button", { type: "button", disabled: chosen.page === 0, onclick: () => go({ page: chosen.page - 1 }) }, "Newer"),
      h("span", { class: "small faint" }, shown.length ? `${chosen.page * PAGE + 1} to ${chosen.page * PAGE + shown.length}` : ""),
      h("button", { type: "button", disabled: !more, onclick: () => go({ page: chosen.page + 1 }) }, "Older")));
  } catch (error) {
    show(result, errorBox(error));
  }
}

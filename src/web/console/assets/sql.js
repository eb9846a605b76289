// The SQL box: runs what is typed, and shows its rows as a table, a chart, a file.

import { download, literal, ask, Fault, run, session } from "./api.js";
import { errorBox, h, show, tabs, toast, whereabouts } from "./dom.js";
import { chart } from "./chart.js";
import { count, counted, millis } from "./format.js";
import { plan } from "./plan.js";

const NUMBERS = ["int2", "int4", "int8", "float4", "float8", "numeric", "oid"];
// Rows in the page; the rest is there and shown when it is asked for.
const SHOWN = 500;

export function isNumber(column) {
  return NUMBERS.includes(column.type);
}

// Whether a text may have more than one statement: what EXPLAIN stands before is explained, the rest would run.
// Where literals are not easily told from the rest, any semicolon counts but those at the end.
function mayBeSeveral(sql) {
  const text = sql.replace(/[;\s]+$/, "");
  const plain = /[\\$]|--|\/\*/.test(text) ? text : text.replace(/'[^']*'|"[^"]*"/g, "");
  return plain.includes(";");
}

export function dataTable({ columns, rows }, caption) {
  if (!columns.length) return undefined;
  const body = h("tbody", {});
  const cell = (value, at) => (value === null
    ? h("td", { class: isNumber(columns[at]) ? "null number" : "null" }, "NULL")
    : h("td", { class: isNumber(columns[at]) && "number", title: value.length > 60 && value.slice(0, 2000) }, value.length > 1000 ? `${value.slice(0, 1000)}…` : value));
  const more = h("button", { type: "button" });
  let shown = 0;
  const add = () => {
    body.append(...rows.slice(shown, shown + SHOWN).map((row) => h("tr", {}, row.map(cell))));
    shown = Math.min(rows.length, shown + SHOWN);
    more.textContent = `Show more (${count(shown)} of ${count(rows.length)})`;
    more.hidden = shown >= rows.length;
  };
  more.addEventListener("click", add);
  add();
  return [h("div", { class: "grid", tabindex: 0, role: "region", "aria-label": caption }, h("table", { class: "data" }, h("caption", { class: "visually-hidden" }, caption),
    h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: isNumber(column) && "number", title: column.type }, column.name)))), body)), more];
}

export function sql(main, { onLeave, isHere }) {
  const text = h("textarea", { class: "sql", id: "sql-text", spellcheck: "false", autocapitalize: "none", "aria-describedby": "sql-help" });
  text.value = sessionStorage.getItem("oribi.sql") ?? "";
  text.addEventListener("input", () => sessionStorage.setItem("oribi.sql", text.value));
  const limit = h("select", {}, [100, 1000, 10000].map((rows) => h("option", { value: rows, selected: rows === 1000 }, count(rows))));
  const button = h("button", { type: "submit", class: "main" }, "Run");
  const cancel = h("button", { type: "button", class: "danger", disabled: true, onclick: () => running?.abort() }, "Cancel");
  const explain = h("button", { type: "button", onclick: () => start("EXPLAIN ") }, "Explain");
  const analyze = h("button", { type: "button", onclick: () => start("EXPLAIN ANALYZE ") }, "Explain and run");
  const submit = h("button", { type: "button", onclick: () => leave() }, "Submit for later");
  const status = h("p", { class: "small faint", role: "status" });
  const results = h("div", {});
  let running;
  main.append(h("div", { class: "head" }, h("h1", {}, "SQL"), h("span", { class: "faint small" }, `as ${session.user} in ${session.database}`)),
    h("form", { class: "sheet", onsubmit: (event) => { event.preventDefault(); start(""); } },
      h("label", { for: "sql-text", class: "visually-hidden" }, "SQL"), text, h("p", {}),
      h("div", { class: "row middle" }, button, cancel, explain, analyze, session.mode !== "read_only" && submit, h("label", { class: "inline" }, "at most", limit, "rows"),
        h("span", { class: "small faint", id: "sql-help" }, "Ctrl+Enter runs"))),
    status, results);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); start(""); }
  });
  onLeave(() => running?.abort());

  // What is selected, else all of it, and where in the text that begins.
  const part = () => {
    const selected = text.value.slice(text.selectionStart, text.selectionEnd);
    const [whole, from] = selected.trim() ? [selected, text.selectionStart] : [text.value, 0];
    return { sql: whole.trim(), begin: from + whole.length - whole.trimStart().length };
  };
  const chosen = () => part().sql;

  // A failure with the place that it is about, to which the cursor goes.
  const failed = (error, { sql, begin }, prefix = "") => {
    const position = error.position - prefix.length;
    const before = position > 0 ? [...sql].slice(0, position - 1).join("") : undefined;
    if (before === undefined || before.length >= sql.length + 1) return errorBox(error);
    if (text.value.slice(begin, begin + sql.length) === sql) text.setSelectionRange(begin + before.length, begin + before.length);
    return errorBox(error, whereabouts(sql, position));
  };

  const leave = async () => {
    try {
      const [{ id }] = await ask(`SELECT oribi.submit(${literal(chosen())}) AS id`);
      toast(`Submitted as ${id}.`);
      location.hash = "#/submitted";
    } catch (error) { show(results, errorBox(error)); }
  };

  async function start(prefix) {
    const { sql, begin: at } = part();
    if (!sql || running) return;
    if (prefix && mayBeSeveral(sql)) {
      return void show(results, errorBox(new Fault({ code: "42601", message: "Only one statement can be explained at a time.", hint: "Select the one that is meant." })));
    }
    const own = new AbortController();
    running = own;
    button.disabled = explain.disabled = analyze.disabled = true;
    cancel.disabled = false;
    show(results);
    const began = performance.now();
    let set;
    const tick = setInterval(() => { status.textContent = `Running for ${millis(performance.now() - began)}${set?.rows.length ? `, ${counted(set.rows.length, "row")} so far` : ""}`; }, 200);
    const sets = [];
    const begin = () => { if (!set) { set = { columns: [], rows: [], notices: [], copied: "", place: h("section", { class: "sheet" }) }; sets.push(set); results.append(set.place); } return set; };
    try {
      await run(prefix + sql, {
        columns: (columns) => { begin().columns = columns; },
        rows: (rows) => { for (const row of rows) begin().rows.push(row); },
        notice: (notice) => begin().notices.push(notice),
        copy: (part) => { begin().copied += part; },
        complete: (end) => {
          begin().end = end;
          resultSet(set, sets.length === 1 && !prefix ? sql : undefined);
          set = undefined;
        },
      }, { limit: Number(limit.value), typed: true, signal: own.signal });
      status.textContent = `Done in ${millis(performance.now() - began)}.`;
      if (set) resultSet(set);
    } catch (error) {
      if (set) resultSet(set);
      const stopped = error.name === "AbortError";
      status.textContent = stopped ? `Cancelled after ${millis(performance.now() - began)}.` : `Failed after ${millis(performance.now() - began)}.`;
      if (!stopped) results.prepend(failed(error, { sql, begin: at }, prefix));
    } finally {
      clearInterval(tick);
      running = undefined;
      if (isHere()) { button.disabled = explain.disabled = analyze.disabled = false; cancel.disabled = true; }
    }
  }
}

function resultSet(set, sql) {
  const { columns, rows, end, notices, copied, place } = set;
  const told = notices.map((notice) => h("p", { class: "small warn" }, `${notice.severity}: ${notice.message}`));
  if (!columns.length) {
    show(place, told, copied && h("pre", {}, copied), end && h("p", { class: "empty" }, end.tag, end.truncated && " (cut)"));
    return;
  }
  if (columns.length === 1 && columns[0].name === "QUERY PLAN") {
    show(place, told, plan(rows.map(([line]) => line).join("\n")));
    return;
  }
  const save = async (format) => {
    try {
      const link = h("a", { href: await download(sql, format), download: "" });
      document.body.append(link);
      link.click();
      link.remove();
    } catch (error) { toast(error.message); }
  };
  const head = h("p", { class: "small faint" }, end ? `${counted(rows.length, "row")}${end.truncated ? ", the first of more: a download has all of them" : ""}` : `${counted(rows.length, "row")} up to there`);
  const strip = h("div", { class: "strip" });
  const body = h("div", {});
  let kind = "table";
  const choose = (key) => {
    const focused = strip.contains(document.activeElement);
    kind = key;
    show(strip, h("div", { class: "row middle" }, tabs("How rows are shown", [["table", "Table"], ["bar", "Bars"], ["line", "Lines"], ["scatter", "Points"]], kind, choose),
      sql && h("button", { type: "button", onclick: () => save("csv") }, "Download csv"), sql && h("button", { type: "button", onclick: () => save("parquet") }, "Download Parquet")));
    if (focused) strip.querySelector("[aria-selected=true]").focus();
    show(body, kind === "table" ? dataTable(set, "Result") : chart(kind, set, isNumber));
  };
  show(place, told, head, strip, body);
  choose("table");
}

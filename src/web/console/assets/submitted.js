// Queries that were submitted to be fetched later, and schedules that submit them.

import { ask, literal, session, tryAsk } from "./api.js";
import { bar, errorBox, h, put, show, stateBadge, table, toast } from "./dom.js";
import { moment, oneLine, percent, when } from "./format.js";

const EVERY = 3000;

export async function submitted(main, { onLeave, isHere }) {
  const writes = session.mode !== "read_only";
  const list = h("div", {}, h("p", { class: "empty" }, "Asking…"));
  const schedules = h("div", {}, h("p", { class: "empty" }, "Asking…"));
  put(main, h("div", { class: "head" }, h("h1", {}, "Submitted queries")),
    writes && submitForm(() => paint()),
    h("section", { class: "sheet", "aria-labelledby": "s-list" }, h("h2", { id: "s-list" }, "Queries"), list),
    h("section", { class: "sheet", "aria-labelledby": "s-schedules" }, h("h2", { id: "s-schedules" }, "Schedules"), schedules),
    writes && scheduleForm(() => paint()));

  const act = async (sql, done) => {
    try { await ask(sql); toast(done); } catch (error) { toast(error.message); }
    paint();
  };
  let timer;
  let seen = "";
  const paint = async () => {
    clearTimeout(timer);
    const [queries, planned] = await Promise.all([
      tryAsk(`SELECT id, state, daemon, attempt, "user", database, sql, progress, submitted, started, sqlstate, error FROM system.queries WHERE kind = 'submitted' ORDER BY submitted DESC LIMIT 200`),
      tryAsk("SELECT * FROM system.schedules ORDER BY name"),
    ]).catch(() => [[], []]);
    if (!isHere()) return;
    const now = JSON.stringify([queries, planned, queries.message, planned.message]);
    // What has not changed stays, and with it the keyboard's focus.
    if (now !== seen) {
      seen = now;
      show(list, queries instanceof Error ? errorBox(queries) : table([
        { title: "State", cell: (row) => stateBadge(row.state) },
        { title: "Query", wide: true, cut: true, cell: (row) => [h("div", { class: "mono" }, oneLine(row.sql)), h("div", { class: "small faint", title: row.id }, Number(row.attempt) && row.state !== "running" ? h("a", { href: `#/statement/submitted/${encodeURIComponent(row.id)}` }, row.id) : row.id), row.error && h("div", { class: "small bad whole" }, row.sqlstate && h("b", {}, `${row.sqlstate} `), row.error)] },
        { title: "Progress", cell: (row) => (row.state === "running" ? [bar(row.progress === null ? undefined : Number(row.progress), `Progress of ${row.id}`), percent(row.progress)] : percent(row.progress)) },
        { title: "User", cell: (row) => row.user },
        { title: "Submitted", number: true, cell: (row) => h("span", { title: moment(row.submitted) }, when(row.submitted)) },
        { title: "Daemon", cell: (row) => row.daemon || undefined },
        { title: "Attempt", number: true, cell: (row) => row.attempt },
        { title: "What to do", cell: (row) => actions(row, writes, act) },
      ], queries, { caption: "Submitted queries", empty: "No query is submitted." }));
      show(schedules, planned instanceof Error ? errorBox(planned) : table([
        { title: "Name", cell: (row) => row.name },
        { title: "When", cell: (row) => [h("code", {}, row.cron), h("span", { class: "faint small" }, ` ${row.time_zone}`)] },
        { title: "Query", wide: true, cut: true, cell: (row) => [h("div", { class: "mono" }, oneLine(row.sql)), row.error && h("div", { class: "small bad" }, row.error)] },
        { title: "Enabled", cell: (row) => (row.enabled === "t" ? "yes" : "no") },
        { title: "Next", number: true, cell: (row) => when(row.next_run) },
        { title: "Last", cell: (row) => row.last_run && [when(row.last_run), " ", row.last_state && stateBadge(row.last_state)] },
        { title: "User", cell: (row) => row.user },
        { title: "What to do", cell: (row) => writes && h("button", { type: "button", class: "danger", "aria-label": `Remove the schedule ${row.name}`,
          onclick: () => act(`SELECT oribi.unschedule(${literal(row.name)})`, "The schedule is removed.") }, "Remove") },
      ], planned, { caption: "Schedules", empty: "There is no schedule of yours." }));
    }
    timer = setTimeout(paint, document.hidden ? EVERY * 10 : EVERY);
  };
  onLeave(() => clearTimeout(timer));
  await paint();
}

// Whether a statement has nothing but rows that it changed: it begins so, behind comments, and returns none.
function changes(sql) {
  return /^(insert|update|delete|merge|copy)\b(?![\s\S]*\breturning\b)/i.test(sql.replace(/^(\s|--[^\n]*(\n|$)|\/\*[\s\S]*?\*\/)+/, ""));
}

function actions(row, writes, act) {
  const open = row.state === "queued" || row.state === "running";
  const result = () => { sessionStorage.setItem("oribi.sql", `SELECT * FROM oribi.result(${literal(row.id)})`); location.hash = "#/sql"; };
  if (row.state === "succeeded" && changes(row.sql ?? "")) return h("span", { class: "small faint" }, "has changed rows");
  if (row.state === "succeeded") return h("button", { type: "button", onclick: result, "aria-label": `Rows of ${row.id}` }, "Rows");
  if (!open && Number(row.attempt)) return h("a", { class: "button", href: `#/statement/submitted/${encodeURIComponent(row.id)}`, "aria-label": `Statement of ${row.id}` }, "Statement");
  return open && writes && h("button", { type: "button", class: "danger", "aria-label": `Cancel ${row.id}`,
    onclick: () => act(`SELECT oribi.cancel(${literal(row.id)})`, "The query is cancelled.") }, "Cancel");
}

// A form in a fold: fields are [name, label, placeholder].
function form(title, fields, button, send) {
  const told = h("div", {});
  const submit = async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(event.target));
    try {
      show(told);
      await send(values);
      event.target.reset();
    } catch (error) {
      show(told, errorBox(error));
    }
  };
  return h("details", { class: "sheet" }, h("summary", {}, title), h("form", { onsubmit: submit }, told,
    h("p", {}), h("label", { class: "field" }, "SQL", h("textarea", { class: "sql", name: "sql", required: true, rows: 4, spellcheck: "false" })), h("p", {}),
    h("div", { class: "row" }, fields.map(([name, label, placeholder, required]) =>
      h("label", { class: "field" }, label, h("input", { type: "text", name, placeholder, required }))), h("button", { type: "submit", class: "main" }, button))));
}

function options(pairs) {
  const given = Object.fromEntries(Object.entries(pairs).filter(([, value]) => value));
  return Object.keys(given).length ? `, ${literal(JSON.stringify(given))}` : "";
}

function submitForm(done) {
  return form("Submit a query", [["key", "Key (runs once)", "optional"]], "Submit", async ({ sql, key }) => {
    const [{ id }] = await ask(`SELECT oribi.submit(${literal(sql)}${options({ key })}) AS id`);
    toast(`Submitted as ${id}.`);
    done();
  });
}

function scheduleForm(done) {
  return form("Make or change a schedule", [["name", "Name", "nightly", true], ["cron", "When (cron)", "30 2 * * *", true], ["time_zone", "Time zone", "UTC"]], "Schedule",
    async ({ sql, name, cron, time_zone }) => {
      const [{ next }] = await ask(`SELECT oribi.schedule(${literal(name)}, ${literal(cron)}, ${literal(sql)}${options({ time_zone })}) AS next`);
      toast(`It comes next at ${moment(next) ?? "no time"}.`);
      done();
    });
}

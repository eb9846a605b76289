// Databases, schemas, tables: columns, sample rows, files, snapshots.

import { ask, literal, name, session, tryAsk } from "./api.js";
import { badge, errorBox, facts, h, show, table, tabs } from "./dom.js";
import { bytes, count, counted, moment } from "./format.js";
import { dataTable } from "./sql.js";

const OWN = ["pg_catalog", "information_schema", "system", "zk", "oribi"];

export async function catalog(main, { path, isHere, onLeave }) {
  const [database, schema, relation] = path;
  const tree = h("ul", { class: "tree" }, h("li", { class: "empty" }, "Reading…"));
  const detail = h("div", {});
  // On a phone what was chosen comes first, and the way to the rest is folded.
  const fold = h("details", {}, h("summary", {}, "Databases and tables"), tree);
  const small = matchMedia("(max-width: 820px)");
  const settle = () => { fold.open = !relation || !small.matches; };
  small.addEventListener("change", settle);
  onLeave(() => small.removeEventListener("change", settle));
  settle();
  main.append(h("div", { class: "head" }, h("h1", {}, "Catalog")),
    h("div", { class: "split" }, h("nav", { class: "sheet", "aria-label": "Databases and tables" }, fold), detail));
  const databases = await ask("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname");
  if (!isHere()) return;
  show(tree, databases.map(({ datname }) => branch(datname, (database ?? session.database) === datname, { schema, relation, database })));
  if (relation) await relationPage(detail, database, schema, relation, isHere);
  else show(detail, h("p", { class: "empty" }, "Choose a table."));
}

function branch(database, open, chosen) {
  const inside = h("ul", {}, h("li", { class: "empty small" }, "Reading…"));
  const fold = h("details", { open }, h("summary", {}, database), inside);
  let read = false;
  const fill = async () => {
    if (read || !fold.open) return;
    read = true;
    const found = await tryAsk("SELECT table_schema, table_name, table_type FROM information_schema.tables ORDER BY table_schema, table_name", { database });
    if (found instanceof Error) return show(inside, h("li", { class: "small bad" }, found.message));
    const schemas = Map.groupBy(found, (row) => row.table_schema);
    const names = [...schemas.keys()].sort((a, b) => OWN.includes(a) - OWN.includes(b) || a.localeCompare(b));
    if (!names.length) return show(inside, h("li", { class: "empty small" }, "No tables that you may see."));
    show(inside, names.map((schema) => h("li", {}, h("details", { open: !OWN.includes(schema) || (chosen.database === database && chosen.schema === schema) }, h("summary", {}, schema),
      h("ul", {}, schemas.get(schema).map((row) => {
        const current = chosen.database === database && chosen.schema === schema && chosen.relation === row.table_name;
        return h("li", {}, h("a", { href: `#/catalog/${[database, schema, row.table_name].map(encodeURIComponent).join("/")}`, "aria-current": current && "true" },
          row.table_name, row.table_type === "VIEW" && h("span", { class: "faint small" }, " view")));
      }))))));
  };
  fold.addEventListener("toggle", fill);
  fill();
  return h("li", {}, fold);
}

async function relationPage(detail, database, schema, relation, isHere) {
  const full = name(schema, relation);
  const here = `database = ${literal(database)} AND schema = ${literal(schema)}`;
  const [about, columns] = await Promise.all([
    tryAsk(`SELECT * FROM system.tables WHERE ${here} AND name = ${literal(relation)}`, { database }),
    tryAsk(`SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns WHERE table_schema = ${literal(schema)} AND table_name = ${literal(relation)} ORDER BY ordinal_position`, { database }),
  ]);
  if (!isHere()) return;
  const row = about instanceof Error ? undefined : about[0];
  if (columns instanceof Error || !columns.length) {
    const nothing = `There is no table or view ${schema}.${relation} in database ${database}, or you may not see it.`;
    return void show(detail, columns instanceof Error ? errorBox(columns) : h("p", { class: "empty" }, nothing));
  }
  const managed = Boolean(row?.metadata_location);
  const body = h("div", {});
  const names = [["columns", "Columns"], ["rows", "Rows"]];
  if (row && row.kind !== "view") names.push(["files", "Files"]);
  if (managed) names.push(["snapshots", "Snapshots"]);
  const strip = h("div", {});
  let chosen;
  const choose = async (key) => {
    chosen = key;
    const focused = strip.contains(document.activeElement);
    show(strip, tabs(`Of ${relation}`, names, key, choose));
    if (focused) strip.querySelector("[aria-selected=true]").focus();
    show(body, h("p", { class: "empty" }, "Reading…"));
    const part = await PARTS[key]({ database, schema, relation, full, here, columns, managed });
    if (isHere() && chosen === key) show(body, part);
  };
  const box = () => { sessionStorage.setItem("oribi.sql", `SELECT * FROM ${database === session.database ? full : name(database, schema, relation)} LIMIT 100`); location.hash = "#/sql"; };
  show(detail,
    h("div", { class: "sheet" },
      h("div", { class: "head" }, h("h2", { class: "mono" }, `${schema}.${relation}`), row && badge(row.kind), row?.format && badge(row.format), h("span", { class: "grow" }),
        h("button", { type: "button", onclick: box }, "Open in the SQL box")),
      row && facts([["Owner", row.owner], ["Rows", count(row.rows)], ["Size", bytes(row.bytes)], ["Files", count(row.files)], ["Snapshot", row.snapshot_id], ["Committed", moment(row.committed_at)], ["Location", row.location], ["Metadata", row.metadata_location], ["Error", row.error]]),
      about instanceof Error && errorBox(about)),
    h("div", { class: "sheet" }, strip, body));
  await choose("columns");
}

const KINDS = ["rows", "deleted places", "deleted values"];

/// The files of a managed table's newest snapshot, the largest first.
async function filesOf(database, full) {
  const found = await tryAsk(`SELECT file_path, content, record_count, file_size_in_bytes FROM ${full} ORDER BY file_size_in_bytes DESC, file_path LIMIT 500`, { database });
  return found instanceof Error ? errorBox(found) : table([
    { title: "File", cell: (row) => h("span", { class: "mono", title: row.file_path }, row.file_path.split("/").pop()) },
    { title: "Holds", cell: (row) => KINDS[row.content] ?? row.content },
    { title: "Rows", number: true, cell: (row) => count(row.record_count) },
    { title: "Size", number: true, cell: (row) => bytes(row.file_size_in_bytes) },
  ], found, { caption: "The largest 500 files", empty: "It has no files." });
}

const PARTS = {
  columns: async ({ columns }) => (columns instanceof Error ? errorBox(columns) : table([
    { title: "Column", cell: (row) => h("span", { class: "mono" }, row.column_name) },
    { title: "Type", cell: (row) => row.data_type },
    { title: "NULL", cell: (row) => (row.is_nullable === "YES" ? "may be" : "never") },
    { title: "Default", cell: (row) => row.column_default },
  ], columns, { caption: "Columns", stack: false })),
  rows: async ({ full, database }) => {
    const found = { columns: [], rows: [] };
    const { run } = await import("./api.js");
    try {
      await run(`SELECT * FROM ${full} LIMIT 100`, { columns: (list) => { found.columns = list; }, rows: (rows) => found.rows.push(...rows) }, { database, limit: 100 });
    } catch (error) { return errorBox(error); }
    return [h("p", { class: "small faint" }, `${counted(found.rows.length, "row")}, as they come.`), dataTable(found, "Sample rows")];
  },
  files: async ({ here, schema, relation, database, managed }) => {
    const each = managed && await filesOf(database, name(schema, `${relation}$files`));
    const found = await tryAsk(`SELECT partition, rows, files, bytes FROM system.partitions WHERE ${here} AND "table" = ${literal(relation)} ORDER BY partition LIMIT 2000`, { database });
    return [found instanceof Error ? errorBox(found) : table([
      { title: "Partition", cell: (row) => h("span", { class: "mono" }, row.partition || "(all of it)") },
      { title: "Files", number: true, cell: (row) => count(row.files) },
      { title: "Rows", number: true, cell: (row) => count(row.rows) },
      { title: "Size", number: true, cell: (row) => bytes(row.bytes) },
    ], found, { caption: "Partitions with their files", empty: "It has no files." }), each];
  },
  snapshots: async ({ here, relation, database, full }) => {
    const found = await tryAsk(`SELECT * FROM system.snapshots WHERE ${here} AND "table" = ${literal(relation)} ORDER BY sequence DESC LIMIT 500`, { database });
    const look = (row) => { sessionStorage.setItem("oribi.sql", `SELECT * FROM ${full} FOR SYSTEM_VERSION AS OF ${row.snapshot_id} LIMIT 100`); location.hash = "#/sql"; };
    return found instanceof Error ? errorBox(found) : table([
      { title: "Snapshot", cell: (row) => [h("span", { class: "mono" }, row.snapshot_id), row.current === "t" && [" ", badge("current", "good")]] },
      { title: "Committed", cell: (row) => h("span", { class: "date" }, moment(row.committed_at)) },
      { title: "By", cell: (row) => row.operation },
      { title: "Rows", number: true, cell: (row) => count(row.rows) },
      { title: "Files", number: true, cell: (row) => count(row.files) },
      { title: "Size", number: true, cell: (row) => bytes(row.bytes) },
      { title: "See", cell: (row) => h("button", { type: "button", class: "plain", onclick: () => look(row), "aria-label": `Rows of snapshot ${row.snapshot_id}` }, "Rows") },
    ], found, { caption: "Snapshots", empty: "Nothing was written yet." });
  },
};

// All of ZooKeeper's znodes, to look at.

import { literal, tryAsk } from "./api.js";
import { errorBox, facts, h, show, table } from "./dom.js";
import { bytes, count, moment } from "./format.js";

const MOST = 500;

export async function zookeeper(main, { path, query, isHere }) {
  const at = `/${path.join("/")}`;
  const filter = query.get("filter") ?? "";
  const to = (parts) => `#/zookeeper/${parts.map(encodeURIComponent).join("/")}`;
  const body = h("div", {}, h("p", { class: "empty" }, "Reading…"));
  const input = h("input", { type: "search", value: filter, placeholder: "begins with" });
  const find = (event) => { event.preventDefault(); location.hash = `${to(path)}?filter=${encodeURIComponent(input.value)}`; };
  main.append(
    h("div", { class: "head" }, h("h1", {}, "ZooKeeper"), h("nav", { "aria-label": "Path" }, h("ol", { class: "crumbs" },
      h("li", {}, h("a", { href: "#/zookeeper" }, "/")), path.map((part, index) => h("li", {}, h("a", { href: to(path.slice(0, index + 1)) }, part), index < path.length - 1 && " /"))))),
    body);
  const [node, children] = await Promise.all([
    tryAsk(`SELECT * FROM zk.nodes WHERE path = ${literal(at)}`),
    tryAsk(`SELECT name, num_children, data_length, mtime, ephemeral_owner, version FROM zk.nodes WHERE parent = ${literal(at)}${filter ? ` AND starts_with(name, ${literal(filter)})` : ""} ORDER BY name LIMIT ${MOST + 1}`),
  ]);
  if (!isHere()) return;
  if (node instanceof Error) return void show(body, errorBox(node));
  const [stat] = node;
  if (!stat) return void show(body, h("p", { class: "empty" }, `There is no znode ${at}.`));
  const refresh = () => dispatchEvent(new HashChangeEvent("hashchange"));
  show(body,
    h("section", { class: "sheet" }, h("div", { class: "head" }, h("h2", {}, "Value"), h("span", { class: "grow" }), h("button", { type: "button", onclick: refresh }, "Read again")),
      value(stat), facts([
        ["Version", stat.version], ["Bytes", bytes(stat.data_length)], ["Made", time(stat.ctime)], ["Changed", time(stat.mtime)],
        ["Children", count(stat.num_children)], ["Children's version", stat.cversion], ["Lifetime", stat.ephemeral_owner === "0" ? "persistent" : `ephemeral, session 0x${BigInt(stat.ephemeral_owner).toString(16)}`],
        ["czxid", stat.czxid], ["mzxid", stat.mzxid], ["pzxid", stat.pzxid], ["ACL version", stat.aversion], ["Note", stat.note],
      ])),
    h("section", { class: "sheet" }, h("div", { class: "head" }, h("h2", {}, "Children"), h("span", { class: "grow" }),
      h("form", { class: "row", role: "search", onsubmit: find }, h("label", { class: "inline" }, h("span", {}, "Name"), input), h("button", { type: "submit" }, "Find"))),
    children instanceof Error ? errorBox(children) : [table([
      { title: "Name", cell: (row) => h("a", { class: "mono", href: to([...path, row.name]) }, row.name) },
      { title: "Children", number: true, cell: (row) => count(row.num_children) },
      { title: "Bytes", number: true, cell: (row) => count(row.data_length) },
      { title: "Version", number: true, cell: (row) => row.version },
      { title: "Changed", cell: (row) => time(row.mtime) },
      { title: "Lifetime", cell: (row) => (row.ephemeral_owner === "0" ? "persistent" : "ephemeral") },
    ], children.slice(0, MOST), { caption: `Children of ${at}`, empty: filter ? "No name begins so." : "It has no children." }),
    children.length > MOST && h("p", { class: "small faint" }, `The first ${MOST}. Find by the beginning of a name.`)]));
}

// The root and what ZooKeeper makes by itself are there from the beginning: their times are zero.
function time(text) {
  return /^1970-01-01 |^1969-12-31 /.test(text ?? "") ? "with ZooKeeper itself" : moment(text);
}

// JSON with its lines; other text as it is; the rest as PostgreSQL writes bytes.
function value(stat) {
  if (stat.value !== null) {
    let text = stat.value;
    try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* as it is */ }
    return h("pre", {}, text);
  }
  if (stat.data === null) return h("p", { class: "empty" }, stat.note ?? "It has no value.");
  const raw = Uint8Array.from(stat.data.slice(2).match(/../g) ?? [], (pair) => parseInt(pair, 16));
  if (!raw.length) return h("p", { class: "empty" }, "Its value is empty.");
  try { return h("pre", {}, new TextDecoder("utf-8", { fatal: true }).decode(raw)); } catch { return h("pre", {}, stat.data); }
}

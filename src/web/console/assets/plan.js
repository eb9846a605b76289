// A plan's text as a tree: each step with its rows, time and memory, for each worker where there are several.

import { facts, h, table } from "./dom.js";
import { bytes, count } from "./format.js";

// "a=1, b={0:1, 1:2}, c=[x, y]" split at the commas outside of brackets.
function split(text) {
  const parts = [];
  let depth = 0;
  let begin = 0;
  for (let at = 0; at < text.length; at++) {
    if ("([{".includes(text[at])) depth++;
    else if (")]}".includes(text[at])) depth--;
    else if (text[at] === "," && depth === 0) { parts.push(text.slice(begin, at).trim()); begin = at + 1; }
  }
  parts.push(text.slice(begin).trim());
  return parts.filter(Boolean);
}

function metrics(text) {
  const found = new Map();
  for (const part of split(text)) {
    const at = part.indexOf("=");
    if (at < 0) continue;
    const value = part.slice(at + 1);
    const workers = value.startsWith("{") ? split(value.slice(1, -1)).map((one) => { const colon = one.indexOf(":"); return [one.slice(0, colon), one.slice(colon + 1).trim()]; }) : undefined;
    found.set(part.slice(0, at), workers ? { workers } : { value });
  }
  return found;
}

function step(line) {
  const at = line.lastIndexOf("metrics=[");
  const head = (at < 0 ? line : line.slice(0, at)).replace(/[,:]\s*$/, "");
  const measured = at < 0 ? new Map() : metrics(line.slice(at + 9).replace(/\]\s*$/, ""));
  const [, name, detail] = head.match(/^\s*((?:t\d+: )?(?:\[Stage \d+\] => )?[^\s:]+):?\s*(.*)$/s) ?? [, head.trim(), ""];
  return { name, detail, measured, children: [] };
}

// Lines, indented by what is below what.
function tree(lines) {
  const roots = [];
  const open = [];
  for (const line of lines) {
    const indent = line.search(/\S/);
    if (indent < 0) continue;
    const node = step(line);
    while (open.length && open.at(-1).indent >= indent) open.pop();
    (open.at(-1)?.node.children ?? roots).push(node);
    open.push({ indent, node });
  }
  return roots;
}

export function parse(text) {
  const before = [];
  const stages = [];
  let plain = [];
  let stage;
  for (const line of text.split("\n")) {
    const bare = line.trimStart();
    if (bare.startsWith("┌")) { stage = { title: bare.replace(/[┌─]+/g, " ").trim(), lines: [] }; stages.push(stage); }
    else if (bare.startsWith("└")) stage = undefined;
    else if (bare.startsWith("│")) stage?.lines.push(bare.slice(1));
    else if (/^(Daemon|Workers:) ?/.test(line) && !plain.length && !stages.length) before.push(line);
    else plain.push(line);
  }
  return { before, plain: tree(plain), stages: stages.map(({ title, lines }) => ({ title, roots: tree(lines) })) };
}

// "1.5ms", "2m 3s" and the like, in milliseconds.
export function duration(text) {
  const units = { ns: 1e-6, "µs": 1e-3, "μs": 1e-3, us: 1e-3, ms: 1, s: 1000, m: 60000, h: 3600000 };
  let sum = 0;
  for (const [, number, unit] of text.matchAll(/([\d.]+)\s*(ns|µs|μs|us|ms|s|m|h)/g)) sum += Number(number) * units[unit];
  return sum;
}

function timeOf(node) {
  const time = node.measured.get("elapsed_compute");
  return time ? (time.workers ?? [["", time.value]]).reduce((sum, [, value]) => sum + duration(value), 0) : 0;
}

const SHOWN = [["output_rows", "rows"], ["elapsed_compute", "time"], ["peak_mem_used", "memory"], ["build_mem_used", "memory"], ["max_mem_used", "memory"], ["bytes_scanned", "scanned"], ["spilled_bytes", "spilled"]];

function value(text) {
  return /^\d+$/.test(text) ? count(text) : text;
}

function element(node, most) {
  const numbers = SHOWN.filter(([key]) => node.measured.has(key)).map(([key, title]) => {
    const metric = node.measured.get(key);
    const told = metric.value !== undefined ? value(metric.value) : metric.workers.map(([, one]) => value(one)).join(" · ");
    return h("span", {}, `${title} `, h("b", {}, told));
  });
  const time = timeOf(node);
  const rest = [...node.measured].filter(([key]) => !SHOWN.some(([shown]) => shown === key));
  const workers = [...node.measured.values()].find((metric) => metric.workers)?.workers.map(([task]) => task);
  return h("li", {}, h("div", { class: "step" },
    h("div", { class: "name" }, node.name),
    numbers.length > 0 && h("div", { class: "numbers" }, numbers),
    most > 0 && time > 0 && h("div", { class: "bar heat", "aria-hidden": "true" }, h("i", { "width%": Math.max(1, (time / most) * 100) })),
    node.detail && h("div", { class: "detail", title: node.detail }, node.detail),
    (rest.length > 0 || node.detail.length > 120) && h("details", {}, h("summary", {}, workers ? "For each worker, and more" : "More"),
      node.detail.length > 120 && h("pre", {}, node.detail),
      workers && h("div", { class: "scroll" }, h("table", {},
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Measured"), workers.map((task) => h("th", { scope: "col", class: "number" }, `task ${task}`)))),
        h("tbody", {}, [...node.measured].map(([key, metric]) => h("tr", {}, h("th", { scope: "row" }, key),
          workers.map((task) => h("td", { class: "number" }, value(metric.workers?.find(([one]) => one === task)?.[1] ?? metric.value ?? "–")))))))),
      !workers && facts(rest.map(([key, metric]) => [key, value(metric.value ?? "")])))),
    node.children.length > 0 && h("ul", {}, node.children.map((child) => element(child, most))));
}

function all(nodes) {
  return nodes.flatMap((node) => [node, ...all(node.children)]);
}

// "Daemon a: bytes_scanned=1, rows_scanned=2, ..." as a table; other lines as they are.
function workers(lines) {
  const told = lines.filter((line) => line.startsWith("Daemon ")).map((line) => {
    const at = line.indexOf(": ");
    const found = metrics(line.slice(at + 2));
    return { name: line.slice(7, at), silent: !found.size, of: (key) => found.get(key)?.value };
  });
  return [
    lines.filter((line) => !line.startsWith("Daemon ")).map((line) => h("p", { class: "small faint" }, line)),
    told.length > 0 && table([
      { title: "Worker", cell: (row) => [row.name, row.silent && h("span", { class: "faint" }, " (did not tell)")] },
      { title: "Rows scanned", number: true, cell: (row) => count(row.of("rows_scanned")) },
      { title: "Scanned", number: true, cell: (row) => bytes(row.of("bytes_scanned")) },
      { title: "Spilled", number: true, cell: (row) => bytes(row.of("bytes_spilled")) },
      { title: "Peak memory", number: true, cell: (row) => bytes(row.of("peak_memory")) },
    ], told, { caption: "What each worker did" }),
  ];
}

export function plan(text) {
  const { before, plain, stages } = parse(text);
  const nodes = [...all(plain), ...stages.flatMap((stage) => all(stage.roots))];
  const most = Math.max(0, ...nodes.map(timeOf));
  return h("div", {},
    workers(before),
    plain.length > 0 && h("ul", { class: "plan", "aria-label": "Steps of the plan" }, plain.map((node) => element(node, most))),
    stages.map((stage) => h("section", { class: "stage" }, h("h3", {}, stage.title.split(/\s{2,}|(?= output_rows|\w+=)/)[0] || "Stage"),
      h("p", { class: "small faint" }, stage.title),
      h("ul", { class: "plan", "aria-label": `Steps of ${stage.title.slice(0, 40)}` }, stage.roots.map((node) => element(node, most))))),
    h("details", {}, h("summary", {}, "As text"), h("pre", {}, text)));
}

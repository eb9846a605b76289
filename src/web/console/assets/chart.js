// Simple charts of a result: one column along the bottom, columns of numbers upward.

import { h, show, svg } from "./dom.js";
import { count } from "./format.js";

const [LEFT, BOTTOM, TOP, RIGHT] = [64, 46, 12, 12];
// In pixels: a chart is drawn as wide as its place, so that its letters keep their size.
const [WIDEST, NARROWEST] = [760, 260];
const LABEL = 85;
const MOST = 400;

export function chart(kind, { columns, rows }, isNumber) {
  const numbers = columns.map((column, at) => ({ ...column, at })).filter(isNumber);
  if (!numbers.length) return h("p", { class: "empty" }, "A chart needs a column of numbers.");
  if (!rows.length) return h("p", { class: "empty" }, "There are no rows.");
  const text = columns.findIndex((column) => !isNumber(column));
  let x = kind === "scatter" ? numbers[0].at : Math.max(0, text);
  // What comes before the labels tends to be a part of them.
  let chosen = new Set(numbers.filter(({ at }) => (kind === "scatter" ? at !== x : at > x)).slice(0, 4).map(({ at }) => at));
  if (!chosen.size) chosen = new Set([numbers[0].at]);
  const place = h("div", {});
  let width = WIDEST;
  const paint = () => show(place, draw(kind, columns, rows.slice(0, MOST), x, [...chosen], isNumber, width));
  new ResizeObserver(() => {
    const now = Math.round(Math.min(WIDEST, Math.max(NARROWEST, place.clientWidth)));
    if (!place.clientWidth || now === width) return;
    width = now;
    paint();
  }).observe(place);
  const along = h("select", { onchange: () => { x = Number(along.value); paint(); } }, columns.map((column, at) => h("option", { value: at, selected: at === x }, column.name)));
  const boxes = numbers.map(({ name, at }) => h("label", { class: "inline" }, h("input", { type: "checkbox", checked: chosen.has(at),
    onchange: (event) => { if (event.target.checked) chosen.add(at); else chosen.delete(at); paint(); } }), name));
  paint();
  return h("div", {}, h("div", { class: "row middle" }, h("label", { class: "inline" }, "Along the bottom", along), boxes), place,
    rows.length > MOST && h("p", { class: "small faint" }, `The first ${count(MOST)} rows.`));
}

function draw(kind, columns, rows, x, ys, isNumber, WIDTH) {
  const HEIGHT = Math.round(Math.max(220, WIDTH * 0.45));
  const labels = Math.max(2, Math.floor((WIDTH - LEFT - RIGHT) / LABEL));
  const values = ys.map((y) => rows.map((row) => (row[y] === null ? undefined : Number(row[y]))));
  const all = values.flat().filter(Number.isFinite);
  if (!all.length) return h("p", { class: "empty" }, "Choose a column that has numbers.");
  let [low, high] = [Math.min(...all), Math.max(...all)];
  if (kind !== "scatter" || low > 0) low = Math.min(0, low);
  if (high < 0) high = 0;
  if (high === low) high = low + 1;
  const up = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - BOTTOM - TOP);
  const numeric = kind === "scatter" && isNumber(columns[x]);
  const places = numeric ? rows.map((row) => Number(row[x])) : rows.map((_, at) => at);
  const finite = places.filter(Number.isFinite);
  const [first, last] = numeric ? [Math.min(...finite), Math.max(...finite)] : [-0.5, rows.length - 0.5];
  const along = (place) => LEFT + ((place - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
  const label = (row) => String(row[x] ?? "NULL");
  const tip = (row, at, series) => svg("title", {}, `${label(row)}: ${columns[ys[series]].name} ${values[series][at]}`);
  const marks = [];
  const step = (WIDTH - LEFT - RIGHT) / rows.length;
  values.forEach((series, index) => {
    if (kind === "bar") {
      const width = Math.max(1, (step * 0.8) / ys.length);
      series.forEach((value, at) => {
        if (!Number.isFinite(value)) return;
        const [top, bottom] = [up(Math.max(0, value)), up(Math.min(0, value))];
        marks.push(svg("rect", { class: `k${index % 6}`, x: along(at) - step * 0.4 + width * index, y: top, width, height: Math.max(1, bottom - top), "stroke-width": 0 }, tip(rows[at], at, index)));
      });
      return;
    }
    const points = series.map((value, at) => [along(places[at]), up(value), at]).filter(([a, b]) => Number.isFinite(a) && Number.isFinite(b));
    if (kind === "line") marks.push(svg("polyline", { class: `k${index % 6} line`, fill: "none", points: points.map(([a, b]) => `${a},${b}`).join(" ") }));
    if (kind === "scatter" || points.length <= 60) marks.push(points.map(([a, b, at]) => svg("circle", { class: `k${index % 6}`, cx: a, cy: b, r: kind === "scatter" ? 4 : 3 }, tip(rows[at], at, index))));
  });
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => low + (high - low) * part);
  const axes = ticks.map((value) => [svg("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: up(value), y2: up(value) }),
    svg("text", { x: LEFT - 6, y: up(value) + 4, "text-anchor": "end" }, short(value))]);
  const every = Math.ceil(rows.length / labels);
  const below = numeric
    ? (labels > 4 ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.5, 1]).map((part) => first + (last - first) * part).map((value) => svg("text", { x: along(value), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, short(value)))
    : rows.map((row, at) => {
      if (at % every) return undefined;
      const text = label(row).slice(0, Math.max(5, Math.floor((step * every) / 6.5)));
      // A long one at the left end begins there.
      const fits = along(at) - text.length * 3.3 > LEFT / 2;
      return svg("text", { x: fits ? along(at) : LEFT / 2, y: HEIGHT - BOTTOM + 16, "text-anchor": fits ? "middle" : "start" }, text);
    });
  const told = `${columns[x].name} against ${ys.map((y) => columns[y].name).join(", ")}`;
  return h("figure", { class: "figure" }, svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told }, axes, marks, below,
    svg("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, columns[x].name)),
  h("figcaption", { class: "legend" }, ys.map((y, index) => h("span", {}, h("i", { class: `k${index % 6}` }), columns[y].name))));
}

function short(value) {
  const size = Math.abs(value);
  for (const [unit, scale] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (size >= scale) return `${+(value / scale).toPrecision(3)}${unit}`;
  }
  return String(+value.toPrecision(3));
}

// Elements. Data becomes text only: nothing here makes HTML of strings.

export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "width%") element.style.width = `${value}%`;
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  put(element, children);
  return element;
}

export function put(element, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

export function show(element, ...children) {
  element.replaceChildren();
  return put(element, ...children);
}

export function toast(text) {
  const line = h("p", {}, text);
  document.getElementById("toasts").append(line);
  setTimeout(() => line.remove(), 6000);
}

export function errorBox(error, ...more) {
  return h("div", { class: "error", role: "alert" },
    h("b", {}, error.code ? `${error.code} ` : "Error "), error.message, more,
    error.detail && h("div", { class: "small" }, error.detail),
    error.hint && h("div", { class: "small faint" }, error.hint),
    error.context && h("div", { class: "small faint" }, error.context));
}

export function badge(text, kind) {
  return h("span", { class: `badge ${kind ?? ""}` }, text);
}

export function stateBadge(state) {
  const kinds = {
    ready: "good", finished: "good", succeeded: "good", connected: "good", running: "warn", queued: "warn",
    degraded: "warn", draining: "warn", joining: "warn", unreachable: "bad", failed: "bad", cancelled: "bad", lost: "bad", disconnected: "bad",
  };
  return badge(state, kinds[state]);
}

// Where in a text something is, as psql shows it: `position` counts characters from 1 on.
export function whereabouts(text, position) {
  const before = [...text].slice(0, position - 1).join("");
  const start = before.lastIndexOf("\n") + 1;
  const line = text.slice(start).split("\n")[0];
  const column = [...before.slice(start)].length;
  const label = `LINE ${before.split("\n").length}: `;
  // Tabs stay as wide as they are above.
  const gap = " ".repeat(label.length) + [...line].slice(0, column).map((one) => (one === "\t" ? one : " ")).join("");
  return h("pre", {}, `${label}${line}\n${gap}^`);
}

// A table: columns are { title, number, wide, cut, cell(row) }. On a phone `stack` makes each row a card.
export function table(columns, rows, { caption, stack = true, link, empty = "Nothing here." } = {}) {
  if (rows.length === 0) return h("p", { class: "empty" }, empty);
  const kind = (column) => [column.number && "number", column.wide && "wide", column.cut && "cut"].filter(Boolean).join(" ") || undefined;
  const head = columns.map((column) => h("th", { scope: "col", class: column.number && "number" }, column.title));
  const line = (row) => {
    const cells = columns.map((column) => h("td", { class: kind(column), "data-label": column.title }, h("div", { class: "cell" }, column.cell(row) ?? "–")));
    const go = link && ((event) => {
      if (!event.target.closest("a, button") && !getSelection().toString()) location.hash = link(row);
    });
    return h("tr", { class: link && "link", onclick: go }, cells);
  };
  return h("div", { class: "scroll" }, h("table", { class: stack && "stack" },
    caption && h("caption", { class: "visually-hidden" }, caption),
    h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows.map(line))));
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return h("dl", { class: "facts" }, shown.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

// part: 0 to 1, or undefined where nobody knows.
export function bar(part, label) {
  const known = part !== undefined && part !== null && !Number.isNaN(part);
  const percent = known ? Math.round(Math.min(1, Math.max(0, part)) * 100) : undefined;
  return h("div", { class: known ? "bar" : "bar unknown", role: "progressbar", "aria-label": label,
    "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": percent }, h("i", known ? { "width%": percent } : {}));
}

export function tabs(label, names, chosen, choose) {
  const buttons = names.map(([key, title]) => h("button", { type: "button", role: "tab", "aria-selected": String(key === chosen),
    tabindex: key === chosen ? 0 : -1, "data-key": key, onclick: () => choose(key) }, title));
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = buttons.indexOf(document.activeElement);
    const next = buttons[(at + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
  };
  return h("div", { class: "tabs", role: "tablist", "aria-label": label, onkeydown: move }, buttons);
}

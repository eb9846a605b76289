// Running statements, with their progress and a button to stop them.

import { ask, listen, literal, session } from "./api.js";
import { bar, errorBox, h, show, stateBadge, toast } from "./dom.js";
import { bytes, count, oneLine, percent, seconds } from "./format.js";

export function queries(main, { onLeave }) {
  const list = runningList();
  main.append(h("div", { class: "head" }, h("h1", {}, "Running statements"), h("span", { class: "grow" }),
    h("span", { class: "faint small" }, "Live. What others run is listed; their texts need pg_read_all_stats.")), list.element);
  onLeave(listen("running", list.paint));
}

// Cards that stay while their statement runs, so that a button keeps the keyboard's focus.
export function runningList(limit = Infinity) {
  const element = h("div", {}, h("p", { class: "empty" }, "Asking…"));
  const cards = new Map();
  let none;
  const paint = (told) => {
    if (told instanceof Error) {
      cards.clear();
      none = undefined;
      show(element, errorBox(told));
      return;
    }
    const shown = told.slice(0, limit);
    if (shown.length === 0) {
      if (!none || cards.size) {
        cards.clear();
        none = h("p", { class: "empty" }, "Nothing runs at the moment.");
        show(element, none);
      }
      return;
    }
    if (cards.size === 0) show(element);
    none = undefined;
    const alive = new Set(shown.map((row) => row.id));
    for (const [id, card] of cards) if (!alive.has(id)) { card.element.remove(); cards.delete(id); }
    for (const row of shown) {
      if (!cards.has(row.id)) {
        const made = card(row);
        cards.set(row.id, made);
        element.append(made.element);
      }
      cards.get(row.id).update(row);
    }
  };
  return { element, paint };
}

function card(first) {
  const state = h("span", {});
  const facts = h("dl", { class: "facts" });
  const progress = h("div", { class: "progress" });
  let latest = first;
  const stop = async () => {
    button.disabled = true;
    try {
      const call = latest.kind === "submitted" ? `oribi.cancel(${literal(latest.id)})` : `pg_cancel_backend(${Number(latest.pid)})`;
      const [{ stopped }] = await ask(`SELECT ${call} AS stopped`);
      toast(stopped === "t" ? "The statement is told to stop." : "The statement had ended already.");
    } catch (error) {
      toast(`Not stopped: ${error.message}`);
      button.disabled = false;
    }
  };
  const about = oneLine(first.sql).slice(0, 60);
  const button = h("button", { type: "button", class: "danger", onclick: stop, "aria-label": `Cancel ${about}` }, "Cancel");
  const hidden = first.sql === "<insufficient privilege>";
  const element = h("article", { class: "query", "aria-label": `Statement ${about}`, "data-id": first.id },
    h("header", {}, state, h("strong", {}, first.user), h("span", { class: "faint" }, `in ${first.database}`), h("span", { class: "grow" }),
      session.mode !== "read_only" && (first.pid || first.kind === "submitted") && button),
    hidden ? h("p", { class: "empty" }, "Its text is not yours to see.") : h("pre", {}, first.sql), progress, facts);
  const update = (row) => {
    latest = row;
    const part = row.progress === null ? undefined : Number(row.progress);
    show(state, stateBadge(row.state));
    show(progress, bar(row.state === "queued" ? 0 : part, "Share of bytes scanned"),
      h("span", {}, row.state === "queued" ? "waits for its turn" : part === undefined ? "no files read yet" : percent(part)));
    const pairs = [
      ["Elapsed", seconds(Math.max(0, Number(row.elapsed)))], ["Phase", row.state === "queued" ? "queued" : row.phase], ["Rows", count(row.rows)],
      ["Scanned", row.bytes_scanned === "0" ? undefined : bytes(row.bytes_scanned)], ["Daemon", row.daemon], ["Workers", row.workers || undefined], ["Pool", row.pool],
      ["Kind", row.kind === "interactive" ? undefined : row.kind], ["Process", row.pid],
    ].filter(([, value]) => value);
    show(facts, pairs.map(([title, value]) => h("div", {}, h("dt", {}, title), h("dd", {}, value))));
  };
  return { element, update };
}

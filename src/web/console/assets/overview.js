// The cluster at a glance.

import { listen } from "./api.js";
import { bar, errorBox, h, show, stateBadge, svg, table } from "./dom.js";
import { bytes, count, counted, moment, seconds } from "./format.js";
import { runningList } from "./queries.js";

const KEPT = 120;

export function overview(main, { onLeave }) {
  const known = {};
  const past = { running: [], memory: [] };
  const tiles = h("div", { class: "tiles" });
  const daemons = h("div", {}, h("p", { class: "empty" }, "Asking…"));
  const coordination = h("div", {}, h("p", { class: "empty" }, "Asking…"));
  const running = runningList(5);
  main.append(
    h("div", { class: "head" }, h("h1", {}, "Cluster")),
    tiles,
    h("section", { class: "sheet", "aria-labelledby": "o-daemons" }, h("h2", { id: "o-daemons" }, "Daemons"), daemons),
    h("section", { "aria-labelledby": "o-running" }, h("div", { class: "head" }, h("h2", { id: "o-running" }, "Running statements"),
      h("span", { class: "grow" }), h("a", { href: "#/queries" }, "All")), running.element),
    h("section", { class: "sheet", "aria-labelledby": "o-zk" }, h("h2", { id: "o-zk" }, "Coordination"), coordination));
  const figure = (daemon, name) => {
    const found = Array.isArray(known.metrics) && known.metrics.find((row) => row.daemon === daemon && row.name === name);
    return found ? Number(found.value) : undefined;
  };
  const total = (name) => (Array.isArray(known.metrics)
    ? known.metrics.filter((row) => row.name === name).reduce((sum, row) => sum + Number(row.value), 0) : undefined);

  const paint = () => {
    const members = Array.isArray(known.daemons) ? known.daemons : [];
    const ready = members.filter((daemon) => daemon.state === "ready").length;
    const leader = members.find((daemon) => daemon.leader === "t");
    const cores = members.reduce((sum, daemon) => sum + Number(daemon.cores), 0);
    const list = Array.isArray(known.running) ? known.running : [];
    const queued = list.filter((row) => row.state === "queued").length;
    const used = total("memory_reserved_bytes");
    const limit = total("memory_limit_bytes");
    const ensemble = Array.isArray(known.ensemble) ? known.ensemble : undefined;
    const well = ensemble?.filter((server) => !server.error).length;
    const out = Array.isArray(known.coordination) ? known.coordination.filter((row) => row.state !== "connected") : [];
    const asked = known.metrics !== undefined;
    const [nothing, untold] = asked ? ["–", "needs pg_read_all_stats"] : ["…", "asking"];
    show(tiles,
      tile("Daemons ready", `${ready} of ${members.length}`, counted(cores, "core")),
      tile("Keeps house", leader?.id ?? "nobody", leader ? "compaction, clean-up, schedules" : "no leader is elected"),
      tile("Running", count(list.length - queued), queued ? `${count(queued)} queued` : "none queued", spark(past.running, "Running statements in the last minutes")),
      tile("Memory", used === undefined ? nothing : bytes(used), limit ? `of ${bytes(limit)}` : untold, spark(past.memory, "Memory in the last minutes")),
      tile("Sessions", count(total("sessions")) ?? nothing, total("sessions") === undefined ? untold : `${count(total("sessions_active"))} at work`),
      tile(ensemble?.[0]?.role === "embedded" ? "Coordination" : "ZooKeeper", ensemble ? (ensemble[0]?.role === "embedded" ? "embedded" : `${well} of ${ensemble.length} up`) : known.ensemble === undefined ? "…" : "–",
        out.length ? h("span", { class: "bad" }, `${counted(out.length, "daemon")} out of touch`) : Array.isArray(known.coordination) ? "all daemons connected" : ""));
    const columns = [
      { title: "Daemon", cell: (row) => [row.id, row.local === "t" ? h("span", { class: "faint" }, " (this one)") : ""] },
      { title: "State", cell: (row) => [stateBadge(row.state), row.leader === "t" ? " " : "", row.leader === "t" && h("span", { class: "badge" }, "leader"), row.error && h("div", { class: "small bad" }, row.error)] },
      // What only some may see is left out for others.
      ...(Array.isArray(known.metrics) ? [
        { title: "Sessions", number: true, cell: (row) => { const [all, active] = ["sessions", "sessions_active"].map((name) => figure(row.id, name)); return all === undefined ? undefined : `${all}, ${active ?? 0} at work`; } },
        { title: "Memory", cell: (row) => memory(figure(row.id, "memory_reserved_bytes"), figure(row.id, "memory_limit_bytes"), row) },
        { title: "Spilled", number: true, cell: (row) => bytes(figure(row.id, "spilled_bytes")) },
      ] : [{ title: "Memory", cell: (row) => bytes(row.memory) }]),
      { title: "Cores", number: true, cell: (row) => row.cores },
      { title: "Up", number: true, cell: (row) => seconds(figure(row.id, "uptime_seconds")) ?? moment(row.since) },
      { title: "Version", cell: (row) => row.version },
      { title: "Addresses", cell: (row) => [h("div", {}, row.postgres), row.web && row.local !== "t" && h("a", { href: `${location.protocol}//${row.web}/` }, "its console")] },
    ];
    if (known.daemons) show(daemons, known.daemons instanceof Error ? errorBox(known.daemons) : table(columns, members, { caption: "Daemons of the cluster" }));
    paintCoordination(coordination, known);
  };

  const keep = (series, value) => { series.push(value); if (series.length > KEPT) series.shift(); };
  for (const topic of ["daemons", "running", "metrics", "coordination", "ensemble"]) {
    onLeave(listen(topic, (told) => {
      known[topic] = told;
      if (topic === "metrics" && Array.isArray(told)) {
        keep(past.memory, total("memory_reserved_bytes"));
        keep(past.running, Array.isArray(known.running) ? known.running.length : 0);
      }
      if (topic === "running") running.paint(told);
      paint();
    }));
  }
  paint();
}

function paintCoordination(element, known) {
  const denied = [known.coordination, known.ensemble].find((told) => told instanceof Error);
  const parts = [];
  if (denied) parts.push(h("p", { class: "empty" }, `${denied.message}. ${denied.hint ?? ""}`));
  if (Array.isArray(known.ensemble)) {
    parts.push(table([
      { title: "Server", cell: (row) => row.address },
      { title: "Role", cell: (row) => (row.error ? h("span", { class: "bad" }, row.error) : row.role) },
      { title: "Version", cell: (row) => row.version },
      // The embedded store is asked by nobody else, and has none of these.
      ...(known.ensemble[0]?.role === "embedded" ? [] : [
        { title: "Latency", number: true, cell: (row) => row.avg_latency && `${Number(row.avg_latency).toFixed(1)} ms` },
        { title: "Waiting", number: true, cell: (row) => row.outstanding },
        { title: "Connections", number: true, cell: (row) => row.connections },
        { title: "Watches", number: true, cell: (row) => count(row.watches) },
        { title: "Znodes", number: true, cell: (row) => count(row.znodes) },
        { title: "Data", number: true, cell: (row) => bytes(row.data_size) },
      ]),
    ], known.ensemble, { caption: "Servers of the coordination store" }));
  }
  if (Array.isArray(known.coordination)) {
    parts.push(h("h3", {}, "As the daemons see it"), table([
      { title: "Daemon", cell: (row) => row.daemon },
      { title: "Connection", cell: (row) => stateBadge(row.state) },
      { title: "Server", cell: (row) => row.server ?? row.backend },
      { title: "Session", cell: (row) => row.session_timeout },
      { title: "Slowest of 100", number: true, cell: (row) => row.p99_latency && `${row.p99_latency} ms` },
      { title: "Reads/s", number: true, cell: (row) => row.reads_per_second },
      { title: "Writes/s", number: true, cell: (row) => row.writes_per_second },
      { title: "Failed", number: true, cell: (row) => count(row.failed) },
    ], known.coordination, { caption: "Sessions of the daemons with the coordination store" }));
  }
  if (parts.length) show(element, parts);
}

function tile(label, value, note, more) {
  return h("div", { class: "tile" }, h("div", { class: "label" }, label), h("div", { class: "value" }, value),
    note && h("div", { class: "note" }, note), more);
}

function memory(used, limit, row) {
  if (used === undefined) return bytes(row.memory);
  const part = limit ? used / limit : undefined;
  return [h("div", {}, bytes(used), limit ? h("span", { class: "faint" }, ` of ${bytes(limit)}`) : ""), part !== undefined && bar(part, `Memory of ${row.id}`)];
}

function spark(values, label) {
  // A few points are no line to look at.
  if (values.length < 5) return undefined;
  const most = Math.max(...values, 1);
  const step = 100 / Math.max(values.length - 1, 20);
  const points = values.map((value, at) => `${at * step},${22 - (value / most) * 20}`).join(" ");
  return svg("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("line", { class: "axis", x1: 0, x2: 100, y1: 23, y2: 23, "vector-effect": "non-scaling-stroke" }),
    svg("polyline", { points, fill: "none", stroke: "currentColor", "stroke-width": "1.5", "vector-effect": "non-scaling-stroke" }));
}

"""Many small daemons on one ZooKeeper: what they cost it at rest, what one that comes, goes or is killed
costs, and how that grows with their number."""

import signal
import statistics
import time

from servers import Trouble, ZooKeeper

# Seconds; long enough for several heartbeats and whatever else a daemon does now and then.
REST = 20

# Seconds after a change until whatever it set off is over.
AFTER = 3

# Changes of each kind, at each size.
CHANGES = 2

# Which part of the last figure must come from the square of the number for that to count.
CURVED = 0.07

# ZooKeeper's own counters. A ping counts as a read; bytes are without the four that frame a message.
# Writes are counted by its zxid, so that the ends of sessions are among them.
COUNTERS = {"reads": "cnt_readlatency", "bytes received": "bytes_received_count", "bytes sent": "response_bytes"}
FIRED = ("node_created", "node_deleted", "node_changed", "node_children")
GAUGES = {"watches": "watch_count", "znodes": "znode_count", "bytes of znodes": "approximate_data_size"}


def counters(zookeeper):
    figures = zookeeper.mntr()
    sums = {name: float(figures[f"zk_{key}"]) for name, key in COUNTERS.items()}
    sums["writes"] = zookeeper.zxid()
    sums["watches fired"] = sum(float(figures[f"zk_sum_{kind}_watch_count"]) for kind in FIRED)
    return sums


def gauges(zookeeper):
    figures = zookeeper.mntr()
    return {name: int(figures[f"zk_{key}"]) for name, key in GAUGES.items()}


def settled(expected, servers):
    """Waits until each daemon sees as many ready ones as there should be."""
    deadline = time.monotonic() + 120
    for server in servers:
        with server.connect() as connection:
            while True:
                ready, = connection.execute(
                    "SELECT count(*) FROM system.daemons WHERE state = 'ready'").fetchone()
                if ready == expected:
                    break
                if time.monotonic() > deadline:
                    raise Trouble(f"{ready} daemons are ready instead of {expected}")
                time.sleep(0.05)


def cost(zookeeper, work):
    """What ZooKeeper did meanwhile, and for how many seconds."""
    before, begin = counters(zookeeper), time.monotonic()
    work()
    after, seconds = counters(zookeeper), time.monotonic() - begin
    return {name: after[name] - before[name] for name in before}, seconds


class Samples:
    """Figures by case, then by the number of daemons."""

    def __init__(self):
        self.cases = {}

    def add(self, case, name, count, value):
        self.cases.setdefault(f"{case}: {name}", {}).setdefault(count, []).append(value)


def measure(zookeeper, servers, samples):
    """At rest, then with one that is killed, started, and ended as it should be."""
    count, victim = len(servers), servers[-1]
    settled(count, servers)
    time.sleep(5)
    spent, seconds = cost(zookeeper, lambda: time.sleep(REST))
    rest = {name: value / seconds for name, value in spent.items()}
    for name, value in rest.items():
        samples.add("at rest, a second", name, count, value)
    for name, value in gauges(zookeeper).items():
        samples.add("at rest", name, count, value)

    def ended(how):
        victim.stop(how)
        settled(count - 1, servers[:-1])

    def started():
        victim.start()
        settled(count, servers)

    # What the others would have asked for in that time is not the change's.
    changes = (("killed", lambda: ended(signal.SIGKILL), count - 1), ("started", started, count),
               ("ended", lambda: ended(signal.SIGTERM), count - 1), ("started", started, count))
    for _ in range(CHANGES):
        for what, work, there in changes:
            spent, seconds = cost(zookeeper, lambda: (work(), time.sleep(AFTER)))
            for name, value in spent.items():
                at_rest = rest[name] * seconds * there / count
                samples.add(f"one {what}", name, count, value - at_rest)


def fitted(sizes, values, powers):
    """The coefficients of these powers of the size, by least squares."""
    rows = [[sum(n ** (a + b) for n in sizes) for b in powers]
            + [sum(v * n ** a for n, v in zip(sizes, values))] for a in powers]
    for at, row in enumerate(rows):
        rows[at] = row = [value / row[at] for value in row]
        for other, line in enumerate(rows):
            if other != at:
                rows[other] = [x - line[at] * y for x, y in zip(line, row)]
    return [row[-1] for row in rows]


def grown(by_count, wanted):
    """How a figure grows: (formula, what it gives for as many as wanted)."""
    sizes = list(by_count)
    values = [statistics.median(samples) for samples in by_count.values()]
    coefficients = fitted(sizes, values, range(3))
    # Nothing grows ever more slowly, and a little is noise, of which a thousand squared makes much.
    if coefficients[2] * sizes[-1] ** 2 < CURVED * abs(values[-1]):
        coefficients = fitted(sizes, values, range(2))
    terms = [f"{value:+.3g}{unit}" for value, unit in zip(coefficients, ("", " n", " n²"))
             if abs(value) > 1e-9]
    return " ".join(terms) or "0", sum(c * wanted ** at for at, c in enumerate(coefficients))


def show(samples, sizes):
    print("\nscale, by the number of daemons: medians; what that gives for 1,000")
    lines = [("case", *(str(size) for size in sizes), "as", "1,000")]
    for case, by_count in samples.cases.items():
        formula, thousand = grown(by_count, 1000)
        medians = (statistics.median(by_count[size]) for size in sizes)
        lines.append((case, *(f"{value:,.1f}" for value in medians), formula, f"{thousand:,.0f}"))
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def run(bench):
    zookeeper = ZooKeeper(bench.scratch / "zookeeper-scale")
    bench.stack.callback(zookeeper.stop)
    zookeeper.start()
    bench.report.version("zookeeper", zookeeper.version())
    most = bench.options.daemons
    sizes = sorted({max(2, most * share // 6) for share in (1, 2, 4, 6)})
    samples, servers = Samples(), []
    for size in sizes:
        while len(servers) < size:
            name = f"d{len(servers):02}"
            servers.append(bench.new_oribi(
                f"scale-{name}", identity=name, maintenance="none",
                zookeeper=f"127.0.0.1:{zookeeper.port}/oribi"))
        measure(zookeeper, servers, samples)
        print(f"{size} daemons measured", flush=True)
    bench.report.version("oribi", servers[0].version())
    bench.report.table("scale", "number", [(f"{size} daemons, {case}", by_count[size], [])
                                           for case, by_count in samples.cases.items()
                                           for size in sizes], "less")
    show(samples, sizes)
    for server in servers:
        server.stop()
    zookeeper.stop()

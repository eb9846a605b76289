"""Thirty small daemons on one ZooKeeper: what they cost it at rest, and what one that comes, goes or
changes its state costs."""

import signal
import time

from servers import Trouble, ZooKeeper

# Long enough for several heartbeats and reads of the own record.
REST = 20


def counters(zookeeper):
    figures = zookeeper.mntr()
    return {name: int(figures[f"zk_{name}"])
            for name in ("packets_received", "packets_sent", "watch_count", "znode_count",
                         "approximate_data_size")} | {"zxid": zookeeper.zxid()}


def settled(zookeeper, expected, servers):
    """Waits until each daemon sees as many ready ones as there should be."""
    deadline = time.monotonic() + 120
    for server in servers:
        while True:
            with server.connect() as connection:
                ready, = connection.execute(
                    "SELECT count(*) FROM system.daemons WHERE state = 'ready'").fetchone()
            if ready == expected:
                break
            if time.monotonic() > deadline:
                raise Trouble(f"{ready} daemons are ready instead of {expected}")
            time.sleep(0.05)


def change(zookeeper, rest, work):
    """What a change costs beyond what rest would have cost in the same time."""
    before, begin = counters(zookeeper), time.monotonic()
    work()
    time.sleep(2)
    after, seconds = counters(zookeeper), time.monotonic() - begin
    requests = after["packets_received"] - before["packets_received"] - rest * seconds
    return requests, after["zxid"] - before["zxid"]


def run(bench):
    zookeeper = ZooKeeper(bench.scratch / "zookeeper-scale")
    bench.stack.callback(zookeeper.stop)
    zookeeper.start()
    bench.report.version("zookeeper", zookeeper.version())
    samples, shown = {}, {}
    servers = []
    most = bench.options.daemons
    for count in (most // 3, most):
        while len(servers) < count:
            name = f"d{len(servers):02}"
            servers.append(bench.new_oribi(
                f"scale-{name}", identity=name, maintenance="none",
                zookeeper=f"127.0.0.1:{zookeeper.port}/oribi"))
        settled(zookeeper, count, servers)
        time.sleep(5)
        before = counters(zookeeper)
        time.sleep(REST)
        after = counters(zookeeper)
        rest = (after["packets_received"] - before["packets_received"]) / REST
        samples[f"{count} daemons at rest: requests/s"] = [rest]
        samples[f"{count} daemons at rest: writes/s"] = [(after["zxid"] - before["zxid"]) / REST]
        shown[count] = {name: after[name] for name in ("watch_count", "znode_count",
                                                       "approximate_data_size")}
        victim = servers[-1]

        def killed():
            victim.stop(signal.SIGKILL)
            settled(zookeeper, count - 1, servers[:-1])

        def started():
            victim.start()
            settled(zookeeper, count, servers)

        for what, work in (("killed", killed), ("started", started)):
            requests, writes = change(zookeeper, rest, work)
            samples[f"{count} daemons, one {what}: requests"] = [requests]
            samples[f"{count} daemons, one {what}: writes"] = [writes]
    bench.report.version("oribi", servers[0].version())
    bench.report.table("scale", "number", [(name, value, []) for name, value in samples.items()],
                       "less")
    for count, figures in shown.items():
        print(f"{count} daemons: {figures['watch_count']} watches, {figures['znode_count']} znodes, "
              f"{figures['approximate_data_size']} bytes")
    for server in servers:
        server.stop()
    zookeeper.stop()

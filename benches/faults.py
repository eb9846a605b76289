"""Daemons that die, hang or are cut off under queries, a worker and the housekeeper: how long until they
are left alone and another keeps house, how long a query waits, and whether one fails.

Each of the three daemons has a network of its own (a namespace and a pair of veth), which only root may
make; without, nothing is cut.
"""

import os
import signal
import time

from cluster import JOINED, Asking, Cluster
from servers import Namespace, Trouble, ZooKeeper

# Seconds between two queries once the fault is noticed, so that what is measured then is no lack of
# cores.
PAUSE = 0.5

LEADER = "SELECT id FROM system.daemons WHERE leader"


class Fault:
    """One way to fail, and its end."""

    def __init__(self, daemon):
        self.daemon = daemon


class Kill(Fault):
    name = "kill -9"

    def begin(self):
        os.kill(self.daemon.process.pid, signal.SIGKILL)

    def end(self):
        self.daemon.process.wait()
        self.daemon.start()


class Stop(Fault):
    name = "SIGSTOP"

    def begin(self):
        os.kill(self.daemon.process.pid, signal.SIGSTOP)

    def end(self):
        os.kill(self.daemon.process.pid, signal.SIGCONT)


class Cut(Fault):
    name = "network cut"

    def begin(self):
        self.daemon.namespace.cut(True)

    def end(self):
        self.daemon.namespace.cut(False)


def networks(bench, names):
    """A namespace for each name, and the address at which all reach this process."""
    try:
        address = Namespace.plug_in(bench.stack)
        made = {}
        for number, name in enumerate(names):
            made[name] = Namespace(number)
            bench.stack.callback(made[name].remove)
        return made, address
    except Trouble as trouble:
        print(f"no network is cut: {trouble}")
        return dict.fromkeys(names), "127.0.0.1"


def leader(cluster):
    """Who leads, once all agree: one that comes back learns it a moment later."""
    while True:
        seen = set()
        for name in cluster.daemons:
            with cluster.connect(name, "off") as connection:
                seen.add(connection.execute(LEADER).fetchone())
        if len(seen) == 1 and None not in seen:
            return seen.pop()[0]
        time.sleep(0.1)


class Trial:
    """One fault of one daemon, seen by a client of another."""

    def __init__(self, cluster, fault, role):
        led_by = leader(cluster)
        others = sorted(set(cluster.daemons) - {led_by})
        victim = led_by if role == "housekeeper" else others[-1]
        witness = others[0]
        fault = fault(cluster.daemons[victim])
        with cluster.connect(witness, "always") as connection:
            self.run(cluster, fault, witness, victim, connection, victim == led_by)
        cluster.wait_for(set(cluster.daemons))

    def run(self, cluster, fault, witness, victim, connection, led):
        expected = connection.execute(JOINED).fetchone()
        asking = Asking(lambda: cluster.connect(witness, "always"), expected)
        asking.start()
        while not asking.count:
            time.sleep(0.01)
        begin = time.monotonic()
        fault.begin()
        while victim in cluster.workers(connection):
            time.sleep(0.002)
        self.noticed = (time.monotonic() - begin) * 1000
        self.succeeded, asking.pause = None, PAUSE
        if led:
            while connection.execute(LEADER).fetchone() in (None, (victim,)):
                time.sleep(0.005)
            self.succeeded = (time.monotonic() - begin) * 1000
        after = asking.count
        while asking.count < after + 2:
            time.sleep(0.01)
        asking.ended.set()
        asking.join()
        self.waited = asking.longest_since(begin) * 1000
        self.asked, self.failures = asking.count, asking.failures
        fault.end()


def run(bench):
    spaces, address = networks(bench, "abc")
    zookeeper = ZooKeeper(bench.scratch / "zookeeper-faults", address)
    bench.stack.callback(zookeeper.stop)
    zookeeper.start()
    bench.report.version("zookeeper", zookeeper.version())
    cluster = Cluster(bench, zookeeper, dict.fromkeys("abc"), spaces)
    bench.report.version("oribi", cluster.daemons["a"].version())
    faults = [Kill, Stop, *([Cut] if spaces["a"] else [])]
    titles = {"noticed": "until it is left alone", "succeeded": "until another keeps house",
              "waited": "longest wait of a query"}
    rows = {title: [] for title in titles.values()}
    for role in ("worker", "housekeeper"):
        for fault in faults:
            case = f"{role}, {fault.name}"
            if bench.options.only not in case:
                continue
            trials = [Trial(cluster, fault, role) for _ in range(bench.options.trials)]
            for figure, title in titles.items():
                samples = [getattr(trial, figure) for trial in trials]
                if None not in samples:
                    rows[title].append((case, samples, []))
            failures = [failure for trial in trials for failure in trial.failures]
            for failure in failures:
                bench.report.fail(f"faults, {case}", failure)
            print(f"{case}: {len(failures)} of {sum(t.asked for t in trials)} queries failed",
                  flush=True)
    for title, lines in rows.items():
        bench.report.table(f"faults: {title}", "ms", lines, "less")
    cluster.stop()
    zookeeper.stop()

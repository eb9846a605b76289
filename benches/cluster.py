"""Three daemons on one ZooKeeper and the same files: the 22 queries on all against one, what they send
each other, and clients while the daemons are restarted."""

import os
import re
import subprocess
import threading
import time

import psycopg

import compare
import data
import tpch
from servers import Trouble, ZooKeeper

# All daemons have a part in it.
JOINED = """SELECT count(*), sum(l_quantity) FROM lineitem, orders
WHERE l_orderkey = o_orderkey AND o_orderdate < DATE '1996-01-01'"""

# Queries during a rolling restart, at least.
RESTART_QUERIES = 10_000


class Cluster:
    """Daemons by name, each with some cores of its own or all with all of them."""

    made = 0

    def __init__(self, bench, zookeeper, cores, namespaces={}, compression=None):
        Cluster.made += 1
        self.daemons = {
            name: bench.new_oribi(f"cluster-{self.made}-{name}", identity=name, maintenance="none",
                                  zookeeper=f"{zookeeper.host}:{zookeeper.port}/oribi-{self.made}",
                                  cores=own, namespace=namespaces.get(name), compression=compression)
            for name, own in cores.items()}
        for table in data.TABLES:
            self.daemons["a"].define(table, bench.files / f"{table}.parquet")
        self.wait_for(set(cores))

    def stop(self):
        for daemon in self.daemons.values():
            daemon.stop()

    def connect(self, name, distribution):
        connection = self.daemons[name].connect()
        connection.execute(f"SET oribi.distribution = '{distribution}'")
        return connection

    def workers(self, connection):
        """Who would take part, as the daemon sees it now."""
        first = connection.execute(f"EXPLAIN {JOINED}").fetchone()[0]
        if not first.startswith("Workers: "):
            return {"a"}
        return set(first.removeprefix("Workers: ").split(" (")[0].split(", "))

    def wait_for(self, names, patience=120):
        """Until all of them would take part, whoever is asked."""
        deadline = time.monotonic() + patience
        for name in names:
            with self.connect(name, "always") as connection:
                while self.workers(connection) != names:
                    if time.monotonic() > deadline:
                        raise Trouble(f"{name} sees not {names} but {self.workers(connection)}")
                    time.sleep(0.01)


def measure_queries(bench, cluster, title):
    queries = tpch.queries()
    times = {way: {label: [] for label in queries} for way in ("always", "off")}
    with cluster.connect("a", "always") as spread, cluster.connect("a", "off") as alone:
        connections = {"always": spread, "off": alone}
        for turn in range(bench.options.rounds + 1):
            for label, sql in queries.items():
                rows = {}
                for way, connection in connections.items():
                    begin = time.perf_counter()
                    rows[way] = connection.execute(sql).fetchall()
                    if turn:  # the first round is for warming up
                        times[way][label].append((time.perf_counter() - begin) * 1000)
                if not turn and not compare.same(rows["always"], rows["off"]):
                    bench.report.fail(label, "other rows on several daemons")
    compare.table(bench, f"cluster: {title}", times["always"], times["off"], "one daemon")


def sent_between(daemons):
    """Bytes that went over the connections between daemons so far, both ways, TLS and all."""
    with daemons["a"].connect() as connection:
        rows = connection.execute("SELECT peer FROM system.daemons").fetchall()
    ports = " or ".join(f"sport = :{peer.rsplit(':', 1)[1]}" for peer, in rows)
    shown = subprocess.check_output(["ss", "-tinH", f"( {ports} )"], text=True)
    return sum(map(int, re.findall(r"bytes_(?:acked|received):(\d+)", shown)))


def measure_bytes(bench, cluster, title):
    """What the daemons send each other for each query, by the kernel's count: rows, plans, all."""
    samples = []
    with cluster.connect("a", "always") as connection:
        for label, sql in tpch.queries().items():
            connection.execute(sql).fetchall()
            before = sent_between(cluster.daemons)
            connection.execute(sql).fetchall()
            sent = sent_between(cluster.daemons) - before
            samples.append((label, [sent / 1e6], []))
    samples.append(("sum of 22", [sum(mine[0] for _, mine, _ in samples)], []))
    bench.report.table(f"cluster: bytes between daemons, {title}", "MB", samples, "less")


class Asking(threading.Thread):
    """A client that asks the same all the time; what it got, and how long it waited at most."""

    pause = 0  # seconds between two queries

    def __init__(self, connect, expected, sql=JOINED):
        super().__init__(daemon=True)
        self.make, self.expected, self.sql = connect, expected, sql
        self.ended, self.count, self.failures, self.waits = threading.Event(), 0, [], []

    def run(self):
        connection = self.make()
        while not self.ended.is_set():
            begin = time.monotonic()
            try:
                if connection.execute(self.sql).fetchone() != self.expected:
                    self.failures.append("another answer")
            except psycopg.Error as error:
                self.failures.append(str(error))
                connection = self.make()
            self.waits.append((begin, time.monotonic()))
            self.count += 1
            time.sleep(self.pause)

    def longest_since(self, moment):
        return max((end - max(begin, moment) for begin, end in self.waits if end > moment),
                   default=0)


def measure_restart(bench, cluster, title):
    """All daemons restarted one after another, with SIGTERM, under clients that know all hosts."""
    with cluster.connect("a", "off") as connection:
        expected = connection.execute("SELECT count(*) FROM nation").fetchone()
    hosts = ",".join("127.0.0.1" for _ in cluster.daemons)
    ports = ",".join(str(daemon.port) for daemon in cluster.daemons.values())

    def connect():
        deadline = time.monotonic() + 60
        while True:
            try:
                return psycopg.connect(
                    f"host={hosts} port={ports} user=oribi dbname=oribi "
                    "load_balance_hosts=random connect_timeout=5",
                    autocommit=True, prepare_threshold=None)
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise

    class Restarted(Asking):
        def run(self):
            connection = self.make()
            while not self.ended.is_set():
                try:
                    if connection.execute(self.sql).fetchone() != self.expected:
                        self.failures.append("another answer")
                    self.count += 1
                except psycopg.errors.AdminShutdown:
                    # Said between statements: nothing was asked that was not answered.
                    connection = self.make()
                except psycopg.Error as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                    connection = self.make()

    clients = [Restarted(connect, expected, "SELECT count(*) FROM nation") for _ in range(8)]
    for client in clients:
        client.start()
    restarts = 0
    while sum(client.count for client in clients) < RESTART_QUERIES or restarts < 6:
        for daemon in cluster.daemons.values():
            daemon.stop()
            daemon.start()
            restarts += 1
        cluster.wait_for({"a", "b", "c"})
    for client in clients:
        client.ended.set()
    for client in clients:
        client.join()
    asked = sum(client.count for client in clients)
    failures = [failure for client in clients for failure in client.failures]
    print(f"{title}: {restarts} restarts, {asked} queries, {len(failures)} failed")
    for failure in failures[:5]:
        bench.report.fail(f"cluster, {title}", failure)


def run(bench):
    zookeeper = ZooKeeper(bench.scratch / "zookeeper-cluster")
    bench.stack.callback(zookeeper.stop)
    zookeeper.start()
    bench.report.version("zookeeper", zookeeper.version())
    cores = sorted(os.sched_getaffinity(0))
    pinned = {name: {core} for name, core in zip("abcdefgh", cores)}
    def on(cores, measure, title, **more):
        if bench.options.only not in title:
            return
        cluster = Cluster(bench, zookeeper, cores, **more)
        bench.report.version("oribi", cluster.daemons["a"].version())
        measure(bench, cluster, title)
        cluster.stop()

    if len(cores) > 1:
        on(pinned, measure_queries, f"{len(pinned)} daemons with a core each")
    three = dict.fromkeys("abc")
    on(three, measure_queries, "three daemons on the same cores")
    for compression in ("none", "lz4", "zstd"):
        on(three, measure_bytes, f"compression {compression}", compression=compression)
    on(three, measure_restart, "rolling restart")
    zookeeper.stop()

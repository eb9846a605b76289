"""What ZooKeeper costs on the query path: the same daemon with it and with the embedded store."""

import time
from concurrent.futures import ThreadPoolExecutor

import small
from pgbench import pgbench, rounds, tables
from servers import Trouble, ZooKeeper

# Longer than a tick of the registration of running queries, so that each one is registered.
LONG_QUERY = """SELECT count(*) FROM points a JOIN points b ON a.customer = b.customer
WHERE a.comment LIKE '%special%';
"""


def writes_a_second(zookeeper, seconds):
    before, begin = zookeeper.zxid(), time.monotonic()
    time.sleep(seconds)
    return (zookeeper.zxid() - before) / (time.monotonic() - begin)


def writes_under(zookeeper, server, script, clients, seconds):
    """Writes a second in the middle of a pgbench run, whose own start and end are left out."""
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(pgbench, server, script, clients, "simple", seconds + 3)
        time.sleep(1.5)
        writes = writes_a_second(zookeeper, seconds)
        return writes, load.result()


def measure_writes(bench, zookeeper, server, scripts):
    """Samples of ZooKeeper's writes a second for each kind of load, interleaved."""
    loads = {"idle": None, "look-ups, 8 clients": (scripts["look-up"], 8),
             "long queries, 1 client": (LONG_QUERY, 1),
             "long queries, 8 clients": (LONG_QUERY, 8)}
    samples, served = {load: [] for load in loads}, {load: [] for load in loads}
    for _ in range(bench.options.rounds):
        for load, work in loads.items():
            try:
                if work is None:
                    samples[load].append(writes_a_second(zookeeper, 5))
                    continue
                writes, figures = writes_under(zookeeper, server, *work, 5)
                samples[load].append(writes)
                served[load].append(figures.tps)
            except Trouble as trouble:
                bench.report.fail(load, trouble)
    bench.report.table("coordination", "ZooKeeper writes/s",
                       [(load, samples[load], []) for load in loads], "less")
    bench.report.table("coordination", "queries/s meanwhile",
                       [(load, served[load], []) for load in loads if loads[load]], "more")


def run(bench):
    zookeeper = ZooKeeper(bench.scratch / "zookeeper")
    bench.stack.callback(zookeeper.stop)
    zookeeper.start()
    embedded = bench.new_oribi("embedded", identity="embedded")
    try:
        ensemble = bench.new_oribi("ensemble", identity="ensemble",
                                   zookeeper=f"127.0.0.1:{zookeeper.port}/oribi")
        bench.report.version("oribi", embedded.version())
        bench.report.version("zookeeper", zookeeper.version())
        count = small.define_points(bench, [embedded, ensemble])
        scripts = small.scripts(count)
        cases = {f"{name}, {clients} clients": (scripts[name], clients, "prepared")
                 for name in ("select 1", "look-up") for clients in bench.options.clients}
        results = rounds(bench, {"on ZooKeeper": ensemble, "embedded": embedded}, cases)
        tables(bench, "coordination", results, cases, "on ZooKeeper", "embedded")
        measure_writes(bench, zookeeper, ensemble, scripts)
        ensemble.stop()
    finally:
        embedded.stop()
        zookeeper.stop()

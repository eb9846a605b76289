"""Small INSERTs from many clients into one managed table: commits and rows a second, on a real
ZooKeeper and on the embedded store."""

from pgbench import rounds, tables
from servers import ZooKeeper

TABLE = "CREATE OR REPLACE TABLE commits (id bigint, name text, amount numeric(12, 2))"


def script(rows):
    values = ", ".join(f"(:id, 'name {n}', {n}.5)" for n in range(rows))
    return f"\\set id random(1, 1000000000)\nINSERT INTO commits VALUES {values};\n"


def empty(server):
    """Each run begins with a table without a history: a commit writes all of it anew."""
    with server.connect() as connection:
        connection.execute(TABLE)


def run(bench):
    zookeeper = ZooKeeper(bench.scratch / "commits-zookeeper")
    bench.stack.callback(zookeeper.stop)
    zookeeper.start()
    warehouse = bench.scratch / "commits-warehouse"
    warehouse.mkdir()
    embedded = bench.new_oribi("commits-embedded", identity="embedded")
    ensemble = bench.new_oribi("commits-ensemble", identity="ensemble", warehouse=warehouse,
                               zookeeper=f"127.0.0.1:{zookeeper.port}/oribi")
    try:
        bench.report.version("oribi", embedded.version())
        bench.report.version("zookeeper", zookeeper.version())
        sizes = {"1 row": 1, "100 rows": 100}
        cases = {f"{name}, {clients} clients": (script(rows), clients, "simple")
                 for name, rows in sizes.items() for clients in bench.options.clients}
        servers = {"on ZooKeeper": ensemble, "embedded": embedded}
        results = rounds(bench, servers, cases, prepare=empty)
        tables(bench, "commits", results, cases, "on ZooKeeper", "embedded")
        table = []
        for case in cases:
            rows = sizes[case.split(",")[0]]
            table.append((case, *([figures.tps * rows for figures in results[case, server]]
                                  for server in servers)))
        bench.report.table("commits", "rows/s", table, "more", "embedded", "on ZooKeeper")
    finally:
        ensemble.stop()
        embedded.stop()
        zookeeper.stop()

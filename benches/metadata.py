"""Planning on a managed table of many files and snapshots: EXPLAIN, by a daemon that has just started and
by one that knows the table, beside pyiceberg's plan of the same scan."""

import time

from pyiceberg.expressions import AlwaysTrue, EqualTo
from pyiceberg.table import StaticTable

# Files of one INSERT: one a bucket, and not more than a writer has open at once.
BUCKETS = 100

TABLE = f"CREATE TABLE many (id bigint, s text) PARTITIONED BY (bucket({BUCKETS}, id))"

# Enough rows that no bucket stays empty.
ROWS = 1000


def make(bench, server):
    """A table of --files files, by as many INSERTs as that takes; returns the number of rows."""
    with server.connect() as connection:
        connection.execute(TABLE)
        statements = max(1, bench.options.files // BUCKETS)
        print(f"making a table of {statements * BUCKETS} files", flush=True)
        for n in range(statements):
            connection.execute(f"INSERT INTO many SELECT {n * ROWS} + i, 'row ' || i "
                               f"FROM generate_series(0, {ROWS - 1}) g(i)")
        options = connection.execute("SELECT unnest(reloptions) FROM pg_class "
                                     "WHERE oid = 'many'::regclass").fetchall()
    (location,) = [o.removeprefix("metadata=") for (o,) in options if o.startswith("metadata=")]
    return location, statements


def explain(connection, query):
    begin = time.perf_counter()
    connection.execute(f"EXPLAIN {query}").fetchall()
    return (time.perf_counter() - begin) * 1000


def pyiceberg(location, row_filter):
    begin = time.perf_counter()
    list(StaticTable.from_metadata(location).scan(row_filter=row_filter).plan_files())
    return (time.perf_counter() - begin) * 1000


def run(bench):
    server = bench.new_oribi("metadata", maintenance="none")
    bench.report.version("oribi", server.version())
    location, statements = make(bench, server)
    wanted = statements * ROWS // 2
    scans = {"all files": ("SELECT count(s) FROM many", AlwaysTrue()),
             "one row": (f"SELECT * FROM many WHERE id = {wanted}", EqualTo("id", wanted))}
    times = {(scan, when): [] for scan in scans for when in ("cold", "warm", "pyiceberg")}
    for _ in range(bench.options.rounds):
        for scan, (query, row_filter) in scans.items():
            server.stop()
            server.start()
            with server.connect() as connection:
                # What any first statement costs is no matter of this table's.
                explain(connection, "SELECT * FROM pg_class")
                times[scan, "cold"].append(explain(connection, query))
                warm = [explain(connection, query) for _ in range(3)]
                times[scan, "warm"].append(min(warm))
            times[scan, "pyiceberg"].append(pyiceberg(location, row_filter))
    rows = [(f"{scan}, {when}", times[scan, when], times[scan, "pyiceberg"])
            for scan in scans for when in ("cold", "warm")]
    files = statements * BUCKETS
    bench.report.table(f"metadata, {files} files", "ms", rows, "less", "pyiceberg")
    server.stop()

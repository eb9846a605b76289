"""Planning on tables of many files: EXPLAIN, by a daemon that has just started and by one that knows the
table. A managed one of many snapshots, beside pyiceberg's plan of the same scan; an external one, a
folder, beside DuckDB's EXPLAIN."""

import time

import duckdb
import pyarrow
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue, EqualTo
from pyiceberg.table import StaticTable

# Files of one INSERT: one a bucket, and not more than a writer has open at once.
BUCKETS = 100

TABLE = f"CREATE TABLE many (id bigint, s text) PARTITIONED BY (bucket({BUCKETS}, id))"

# Enough rows that no bucket stays empty.
ROWS = 1000

# Of the external table, at most.
EXTERNAL_FILES = 10_000


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


def make_folder(bench):
    """Parquet files of 100 rows each, in the order of id; (folder, their number)."""
    folder, count = bench.scratch / "many", min(bench.options.files, EXTERNAL_FILES)
    folder.mkdir()
    for n in range(count):
        ids = range(n * 100, n * 100 + 100)
        rows = pyarrow.table({"id": pyarrow.array(ids, pyarrow.int64()),
                              "s": [f"row {i}" for i in ids]})
        pq.write_table(rows, folder / f"{n:06}.parquet")
    return folder, count


def measure(bench, server, scans, peer):
    """{(scan, "cold", "warm" or "peer"): ms}; scans: {name: query}, peer: function from a name to ms."""
    times = {(scan, when): [] for scan in scans for when in ("cold", "warm", "peer")}
    for _ in range(bench.options.rounds):
        for scan, query in scans.items():
            server.stop()
            server.start()
            with server.connect() as connection:
                # What any first statement costs is no matter of this table's.
                explain(connection, "SELECT * FROM pg_class")
                times[scan, "cold"].append(explain(connection, query))
                warm = [explain(connection, query) for _ in range(3)]
                times[scan, "warm"].append(min(warm))
            times[scan, "peer"].append(peer(scan))
    return times


def rows_of(times, scans):
    return [(f"{scan}, {when}", times[scan, when], times[scan, "peer"])
            for scan in scans for when in ("cold", "warm")]


def managed(bench, server):
    location, statements = make(bench, server)
    wanted = statements * ROWS // 2
    scans = {"all files": "SELECT count(s) FROM many",
             "one row": f"SELECT * FROM many WHERE id = {wanted}"}
    filters = {"all files": AlwaysTrue(), "one row": EqualTo("id", wanted)}
    times = measure(bench, server, scans, lambda scan: pyiceberg(location, filters[scan]))
    bench.report.table(f"metadata, {statements * BUCKETS} files", "ms", rows_of(times, scans), "less",
                       "pyiceberg")


def external(bench, server):
    folder, count = make_folder(bench)
    server.define("folder", folder)
    peer = duckdb.connect()
    peer.execute(f"CREATE VIEW folder AS SELECT * FROM read_parquet('{folder}/*.parquet')")
    scans = {"all files": "SELECT count(s) FROM folder",
             "one row": f"SELECT * FROM folder WHERE id = {count * 50}"}
    times = measure(bench, server, scans, lambda scan: explain(peer, scans[scan]))
    bench.report.table(f"metadata, folder of {count} files", "ms", rows_of(times, scans), "less", "duckdb")


def run(bench):
    server = bench.new_oribi("metadata", maintenance="none")
    bench.report.version("oribi", server.version())
    bench.report.version("duckdb", duckdb.__version__)
    external(bench, server)
    managed(bench, server)
    server.stop()

"""The data of the suites: TPC-H files from the daemon's own generator, and copies of them."""

import subprocess

import duckdb
import pyarrow.parquet as pq

from servers import Trouble

TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]

# One row for each order under a dense key: what look-ups and small aggregates read.
POINTS = """SELECT row_number() OVER (ORDER BY o_orderkey) AS id, o_custkey AS customer,
    o_orderstatus AS status, o_totalprice AS price, o_orderdate AS day, o_comment AS comment
    FROM read_parquet('{files}/orders.parquet') ORDER BY id"""


def tpch_files(bench):
    """The folder of <table>.parquet; generated files stay in the cache for the next run."""
    if bench.options.data:
        folder = bench.options.data.resolve()
    else:
        folder = bench.cache / "data" / "tpch" / f"sf{bench.options.scale}"
        if not all((folder / f"{table}.parquet").exists() for table in TABLES):
            print(f"generating TPC-H at scale {bench.options.scale}", flush=True)
            subprocess.check_call([bench.options.binary, "demo", "--scale", bench.options.scale,
                                   "--data-dir", bench.cache / "data", "--generate-only"],
                                  stdout=subprocess.DEVNULL)
    absent = [table for table in TABLES if not (folder / f"{table}.parquet").exists()]
    if absent:
        raise Trouble(f"no {', '.join(absent)} in {folder}")
    return folder


def points_file(bench):
    """points.parquet, sorted by its key, with a page index, and its number of rows."""
    path = bench.scratch / "points.parquet"
    if not path.exists():
        table = duckdb.sql(POINTS.format(files=bench.files)).to_arrow_table()
        pq.write_table(table, path, compression="zstd", row_group_size=100_000,
                       write_page_index=True, data_page_size=64 << 10, max_rows_per_page=5_000)
    return path, pq.read_metadata(path).num_rows


def load_postgres(bench, table, path, key=None):
    """The Parquet file as a PostgreSQL table, vacuumed and all-visible; loaded once a run."""
    with bench.postgres.connect() as connection:
        if connection.execute("SELECT to_regclass(%s)", [table]).fetchone()[0]:
            return
        print(f"loading {table} into PostgreSQL", flush=True)
        described = duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet('{path}')").fetchall()
        columns = ", ".join(f"{column[0]} {column[1]}" for column in described)
        connection.execute(f"CREATE UNLOGGED TABLE {table} ({columns})")
        csv = bench.scratch / f"{table}.csv"
        duckdb.sql(f"COPY (SELECT * FROM read_parquet('{path}')) TO '{csv}' (FORMAT csv, HEADER false)")
        try:
            with open(csv, "rb") as source, connection.cursor() as cursor, \
                    cursor.copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copy:
                while block := source.read(1 << 20):
                    copy.write(block)
        finally:
            csv.unlink()
        if key:
            connection.execute(f"CREATE UNIQUE INDEX ON {table} ({key})")
        connection.execute(f"VACUUM (FREEZE, ANALYZE) {table}")

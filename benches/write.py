"""Writing managed tables: lineitem from Parquet into a table, beside DuckDB's COPY of the same rows to a
Parquet file."""

import time

import duckdb
import pyarrow.parquet as pq

MB = 1e6


def source(bench):
    """lineitem.parquet, and its megabytes before compression."""
    path = bench.files / "lineitem.parquet"
    metadata = pq.read_metadata(path)
    groups = range(metadata.num_row_groups)
    return path, sum(metadata.row_group(at).total_byte_size for at in groups) / MB


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*.parquet")) / MB


def timed(act):
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


class Ours:
    def __init__(self, bench):
        bench.oribi.define("lineitem", bench.files / "lineitem.parquet")
        self.connection = bench.stack.enter_context(bench.oribi.connect())
        self.warehouse = bench.oribi.folder / "warehouse"

    def __call__(self, codec, how):
        execute = self.connection.execute
        options = f"WITH (\"write.parquet.compression-codec\" = '{codec}')"
        if how == "CREATE TABLE AS":
            seconds = timed(lambda: execute(f"CREATE TABLE written {options} AS SELECT * FROM lineitem"))
        else:
            execute(f"CREATE TABLE written (LIKE lineitem) {options}")
            seconds = timed(lambda: execute("INSERT INTO written SELECT * FROM lineitem"))
        written = size(self.warehouse)
        execute("DROP TABLE written PURGE")
        return seconds, written


class DuckDb:
    def __init__(self, bench, path):
        self.folder = bench.scratch / "duckdb-written"
        self.connection = duckdb.connect()
        self.query = f"SELECT * FROM read_parquet('{path}')"

    def __call__(self, codec, _):
        self.folder.mkdir()
        file = self.folder / "written.parquet"
        copy = f"COPY ({self.query}) TO '{file}' (FORMAT parquet, COMPRESSION {codec})"
        seconds = timed(lambda: self.connection.execute(copy))
        written = size(self.folder)
        file.unlink()
        self.folder.rmdir()
        return seconds, written


def run(bench):
    path, megabytes = source(bench)
    engines = {"oribi": Ours(bench), "duckdb": DuckDb(bench, path)}
    bench.report.version("oribi", bench.oribi.version())
    bench.report.version("duckdb", duckdb.__version__)
    cases = [(how, codec) for codec in ("zstd", "snappy")
             for how in ("CREATE TABLE AS", "INSERT SELECT")]
    speeds = {(case, name): [] for case in cases for name in engines}
    sizes = {(case, name): [] for case in cases for name in engines}
    for turn in range(bench.options.rounds + 1):
        names = list(engines) if turn % 2 else list(engines)[::-1]
        for how, codec in cases:
            for name in names:
                seconds, written = engines[name](codec, how)
                if turn:
                    speeds[(how, codec), name].append(megabytes / seconds)
                    sizes[(how, codec), name].append(written)
    for results, unit, better in ((speeds, "MB/s", "more"), (sizes, "MB of files", "less")):
        rows = [(f"{how}, {codec}", *(results[(how, codec), name] for name in engines))
                for how, codec in cases]
        bench.report.table("write", unit, rows, better, "duckdb")

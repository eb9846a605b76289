"""Writing managed tables: lineitem from Parquet and from a client's COPY, beside DuckDB, which writes the
same rows to a Parquet file, and beside PostgreSQL."""

import time

import duckdb
import psycopg
import pyarrow.parquet as pq

import data

MB = 1e6

# How rows come in from a client.
FORMATS = ("text", "csv", "binary")


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


def from_parquet(bench, path, megabytes):
    """Oribi and DuckDB, with the same codec."""
    engines = {"oribi": Ours(bench), "duckdb": DuckDb(bench, path)}
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


def client_files(bench):
    """{format: path} of lineitem as PostgreSQL's COPY gives it."""
    paths = {form: bench.scratch / f"lineitem.{form}" for form in FORMATS}
    with bench.postgres.connect() as connection, connection.cursor() as cursor:
        for form, path in paths.items():
            with open(path, "wb") as file, \
                    cursor.copy(f"COPY lineitem TO STDOUT (FORMAT {form})") as copy:
                for block in copy:
                    file.write(block)
    return paths


def copy_in(connection, form, path):
    with open(path, "rb") as file, connection.cursor() as cursor, \
            cursor.copy(f"COPY written FROM STDIN (FORMAT {form})") as copy:
        while block := file.read(1 << 20):
            copy.write(block)


class Table:
    """A table of the server's that is empty each time, and gone afterwards."""

    def __init__(self, bench, server, create, drop):
        self.connection = bench.stack.enter_context(server.connect())
        self.create, self.drop = create, drop

    def __call__(self, fill, expected):
        self.connection.execute(self.create)
        try:
            seconds = timed(lambda: fill(self.connection))
            (count,) = self.connection.execute("SELECT count(*) FROM written").fetchone()
            if count != expected:
                raise ValueError(f"{count} rows arrived, not {expected}")
            return seconds
        finally:
            self.connection.execute(self.drop)


def ways_in(paths, megabytes):
    """{way: (what fills the table, megabytes of its source)}"""
    ways = {f"COPY {form}": (lambda connection, form=form: copy_in(connection, form, paths[form]),
                             paths[form].stat().st_size / MB) for form in FORMATS}
    ways["INSERT SELECT"] = (
        lambda connection: connection.execute("INSERT INTO written SELECT * FROM lineitem"), megabytes)
    return ways


def csv_by_duckdb(bench, path, csv):
    """A function that has DuckDB write the CSV file to Parquet, without which it has no COPY FROM STDIN."""
    connection = duckdb.connect()
    described = connection.execute(f"DESCRIBE SELECT * FROM read_parquet('{path}')").fetchall()
    columns = ", ".join(f"'{column[0]}': '{column[1]}'" for column in described)
    target = bench.scratch / "duckdb-written.parquet"

    def write():
        connection.execute(f"COPY (SELECT * FROM read_csv('{csv}', header = false, columns = "
                           f"{{{columns}}})) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
        target.unlink()
    return write


def from_clients(bench, path, megabytes):
    """Oribi and PostgreSQL; both have lineitem to INSERT from, and get the same bytes to COPY."""
    data.load_postgres(bench, "lineitem", path)
    rows = pq.read_metadata(path).num_rows
    tables = {"oribi": Table(bench, bench.oribi, "CREATE TABLE written (LIKE lineitem)",
                             "DROP TABLE written PURGE"),
              "postgres": Table(bench, bench.postgres, "CREATE UNLOGGED TABLE written (LIKE lineitem)",
                                "DROP TABLE written")}
    paths = client_files(bench)
    ways = ways_in(paths, megabytes)
    by_duckdb, duck = csv_by_duckdb(bench, path, paths["csv"]), []
    speeds = {(way, name): [] for way in ways for name in tables}
    broken = set()
    for turn in range(bench.options.rounds + 1):
        names = list(tables) if turn % 2 else list(tables)[::-1]
        for way, (fill, size) in ways.items():
            for name in names:
                if (way, name) in broken:
                    continue
                try:
                    seconds = tables[name](fill, rows)
                except (psycopg.Error, ValueError) as error:
                    bench.report.fail(f"{way} on {name}", error)
                    broken.add((way, name))
                    continue
                if turn:
                    speeds[way, name].append(size / seconds)
        seconds = timed(by_duckdb)
        if turn:
            duck.append(ways["COPY csv"][1] / seconds)
    for path in paths.values():
        path.unlink()
    bench.report.table("write from a client", "MB/s", [
        (way, *(speeds[way, name] for name in tables)) for way in ways], "more", "postgres")
    bench.report.table("write from a client", "MB/s", [
        ("COPY csv, beside a CSV file to Parquet", speeds["COPY csv", "oribi"], duck)], "more", "duckdb")


def run(bench):
    path, megabytes = source(bench)
    bench.report.version("oribi", bench.oribi.version())
    bench.report.version("duckdb", duckdb.__version__)
    bench.report.version("postgres", bench.postgres.version())
    from_parquet(bench, path, megabytes)
    from_clients(bench, path, megabytes)

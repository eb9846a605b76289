"""The 22 TPC-H queries: Oribi through its port, DuckDB in process, on the same files."""

import math
import statistics
import time
from datetime import date
from decimal import Decimal
from pathlib import Path

import data
from servers import Trouble

QUERIES = Path(__file__).resolve().parent.parent / "tests" / "tpch" / "queries"


def queries():
    return {int(path.stem[1:]): path.read_text() for path in sorted(QUERIES.glob("q*.sql"))}


def oribi(bench):
    """A function from SQL to rows, on one connection that stays open."""
    for table in data.TABLES:
        bench.oribi.define(table, bench.files / f"{table}.parquet")
    connection = bench.stack.enter_context(bench.oribi.connect())
    for setting in bench.options.set:
        name, value = setting.split("=", 1)
        connection.execute(f"SET {name} = '{value}'")
    bench.report.version("oribi", bench.oribi.version())
    return lambda sql: connection.execute(sql).fetchall()


def duckdb_in_process(bench):
    import duckdb
    connection = duckdb.connect()
    for table in data.TABLES:
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM "
                           f"read_parquet('{bench.files / table}.parquet')")
    bench.report.version("duckdb", duckdb.__version__)
    return lambda sql: connection.execute(sql).fetchall()


def datafusion_in_process(bench):
    import datafusion
    context = datafusion.SessionContext(
        datafusion.SessionConfig().set("datafusion.sql_parser.dialect", "postgres"))
    for table in data.TABLES:
        context.register_parquet(table, str(bench.files / f"{table}.parquet"))
    bench.report.version("datafusion", datafusion.__version__)

    def rows(sql):
        columns = context.sql(sql).to_arrow_table().columns
        return list(zip(*(column.to_pylist() for column in columns)))
    return rows


def close(a, b):
    """Equal, or numbers that differ by rounding only."""
    if isinstance(a, (int, float, Decimal)) and isinstance(b, (int, float, Decimal)):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-5)
    if isinstance(a, date) or isinstance(b, date):
        return str(a) == str(b)
    return a == b


def same(ours, theirs):
    return len(ours) == len(theirs) and all(
        len(a) == len(b) and all(map(close, a, b)) for a, b in zip(ours, theirs))


def warm_up(bench, engines):
    """Runs everything once, and drops a query whose rows differ: a wrong answer has no speed."""
    kept = {}
    for number, sql in queries().items():
        answers = {}
        for name, engine in engines.items():
            try:
                answers[name] = engine(sql)
            except Exception as error:
                bench.report.fail(f"Q{number} on {name}", str(error).splitlines()[0])
        if len(answers) < len(engines):
            continue
        if same(answers["oribi"], answers["duckdb"]):
            kept[number] = sql
        else:
            bench.report.fail(f"Q{number}", "Oribi's rows differ from DuckDB's")
    return kept


def measure(bench, engines, kept):
    """{engine: {query: milliseconds, one for each round}}; the order of engines turns each round."""
    times = {name: {number: [] for number in kept} for name in engines}
    for turn in range(bench.options.rounds):
        names = list(engines)
        names = names[turn % len(names):] + names[:turn % len(names)]
        for number, sql in kept.items():
            for name in names:
                begin = time.perf_counter()
                engines[name](sql)
                times[name][number].append((time.perf_counter() - begin) * 1000)
    return times


def table(bench, title, ours, theirs, peer):
    rows = [(f"Q{number:02}", ours[number], theirs[number]) for number in ours]
    rounds = range(bench.options.rounds)
    rows.append((f"sum of {len(ours)}", *([sum(times[n][i] for n in ours) for i in rounds]
                                          for times in (ours, theirs))))
    bench.report.table(title, "ms", rows, "less", peer)
    ratios = [statistics.median(ours[n]) / statistics.median(theirs[n]) for n in ours]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"  geometric mean of the ratios to {peer}: {mean:.2f}", flush=True)
    bench.report.record(title, "geometric mean", "ratio", [mean], peer, [], mean)


def run(bench):
    engines = {"oribi": oribi(bench), "duckdb": duckdb_in_process(bench)}
    if bench.options.datafusion:
        engines["datafusion"] = datafusion_in_process(bench)
    kept = warm_up(bench, engines)
    if not kept:
        raise Trouble("no query gave the same rows on all engines")
    times = measure(bench, engines, kept)
    title = f"tpch sf{bench.options.scale}" if not bench.options.data else "tpch"
    for peer in list(engines)[1:]:
        table(bench, f"{title} vs {peer}", times["oribi"], times[peer], peer)

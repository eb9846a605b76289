"""ClickBench's 43 queries on an invented `hits`: Oribi through its port, its peers in process, on the
same Parquet file."""

import re
import sys

import duckdb

import compare
import engines
import hits
import memory
from servers import Trouble


def queries(rows):
    """Those of the tests, as any engine reads them: names in lower case. Their HAVING asks for a
    thousandth of the original's rows; here of --rows."""
    for number, sql in enumerate((hits.SUITES / "clickbench.sql").read_text().splitlines(), 1):
        parts = re.split(r"('[^']*')", sql.rstrip(";"))
        sql = "".join(part if part.startswith("'") else part.lower() for part in parts)
        yield f"Q{number:02}", sql.replace("count(*) > 1000", f"count(*) > {rows // 1000}")


def decided(path, asked):
    """The queries with all their columns as the last keys, so that one answer is right."""
    sys.path.append(str(hits.SUITES))
    import suite
    database = duckdb.connect()
    database.execute(f"CREATE VIEW hits AS SELECT * FROM read_parquet('{path}')")
    return {label: suite.ordered(database, sql)[0] for label, sql in asked.items()}


def run(bench):
    path = hits.file(bench)
    asked = dict(queries(bench.options.rows))
    peers = [engines.chdb, engines.polars] + ([engines.datafusion] if bench.options.datafusion else [])
    tables = {"hits": path}
    running = {"oribi": engines.oribi(bench, tables), "duckdb": engines.duckdb(bench, tables)}
    for make in peers:
        if engine := engines.optional(bench, make, tables):
            running[make.__name__] = engine
    title = f"clickbench {bench.options.rows:,} rows{memory.within(bench)}"
    with memory.watched(bench, title) as ran:
        kept = compare.warm_up(bench, running, asked, decided(path, asked))
        if not kept:
            raise Trouble("no query gave the same rows on Oribi and DuckDB")
        times = compare.measure(bench, running, asked, kept)
        ran.update((label, asked[label]) for label in kept)
    for peer in list(running)[1:]:
        if times[peer]:
            compare.table(bench, f"{title} vs {peer}", times["oribi"], times[peer], peer)

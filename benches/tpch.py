"""The 22 TPC-H queries: Oribi through its port, DuckDB in process, on the same files."""

from pathlib import Path

import compare
import data
import engines
import memory
from servers import Trouble

QUERIES = Path(__file__).resolve().parent.parent / "tests" / "tpch" / "queries"


def queries():
    return {f"Q{path.stem[1:]}": path.read_text() for path in sorted(QUERIES.glob("q*.sql"))}


def run(bench):
    tables = {table: bench.files / f"{table}.parquet" for table in data.TABLES}
    peers = [engines.duckdb] + ([engines.datafusion] if bench.options.datafusion else [])
    running = {make.__name__: make(bench, tables) for make in [engines.oribi, *peers]}
    title = f"tpch sf{bench.options.scale}" if not bench.options.data else "tpch"
    title += memory.within(bench)
    with memory.watched(bench, title) as ran:
        kept = compare.warm_up(bench, running, queries())
        if not kept:
            raise Trouble("no query gave the same rows on all engines")
        times = compare.measure(bench, running, queries(), kept)
        ran.update((label, queries()[label]) for label in kept)
    for peer in times:
        if peer != "oribi":
            compare.table(bench, f"{title} vs {peer}", times["oribi"], times[peer], peer)

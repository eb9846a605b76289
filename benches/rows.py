"""Rows out: all of lineitem read by the same bare client from both servers."""

import time

import data
from wire import WireError

SELECT = "SELECT * FROM lineitem"
WAYS = {
    "SELECT text": lambda c: c.simple(SELECT),
    "SELECT binary": lambda c: c.extended(SELECT, binary=True),
    "COPY text": lambda c: c.simple(f"COPY ({SELECT}) TO STDOUT"),
    "COPY csv": lambda c: c.simple(f"COPY ({SELECT}) TO STDOUT (FORMAT csv)"),
    "COPY binary": lambda c: c.simple(f"COPY ({SELECT}) TO STDOUT (FORMAT binary)"),
}


def once(server, way):
    """(bytes, rows, seconds) of one reading on a fresh connection."""
    with server.raw() as connection:
        begin = time.perf_counter()
        size, tag = WAYS[way](connection)
        seconds = time.perf_counter() - begin
    return size, int(tag.split()[-1]), seconds


def measure(bench, servers):
    """{(server, way): [(bytes, rows, seconds), ...]}; ways that fail are reported and left out."""
    results = {(name, way): [] for name in servers for way in WAYS}
    failed = set()
    for turn in range(bench.options.rounds + 1):
        names = list(servers) if turn % 2 else list(servers)[::-1]
        for way in WAYS:
            for name in names:
                if (name, way) in failed:
                    continue
                try:
                    figures = once(servers[name], way)
                except WireError as error:
                    failed.add((name, way))
                    bench.report.fail(f"{way} on {name}", str(error))
                    continue
                if turn:
                    results[name, way].append(figures)
    return results


def check_counts(bench, results):
    counts = {figures[1] for samples in results.values() for figures in samples}
    if len(counts) > 1:
        bench.report.fail("rows", f"the servers sent different numbers of rows: {sorted(counts)}")


def tables(bench, results):
    """Each way against the same way, then Oribi's SELECT against PostgreSQL's fastest COPY."""
    pairs = [(way, way, way) for way in WAYS]
    copies = [way for way in WAYS if way.startswith("COPY") and results["postgres", way]]
    if copies:
        best = max(copies, key=lambda way: sum(n / s for _, n, s in results["postgres", way]))
        pairs += [(f"{way} vs {best}", way, best) for way in ("SELECT text", "SELECT binary")]
    for unit, figure in (("MB/s", lambda f: f[0] / f[2] / 1e6),
                         ("thousand rows/s", lambda f: f[1] / f[2] / 1e3)):
        bench.report.table("rows", unit, [
            (title, [figure(f) for f in results["oribi", ours]],
             [figure(f) for f in results["postgres", theirs]])
            for title, ours, theirs in pairs], "more", "postgres")


def run(bench):
    path = bench.files / "lineitem.parquet"
    bench.oribi.define("lineitem", path)
    data.load_postgres(bench, "lineitem", path)
    bench.report.version("oribi", bench.oribi.version())
    bench.report.version("postgres", bench.postgres.version())
    results = measure(bench, {"oribi": bench.oribi, "postgres": bench.postgres})
    check_counts(bench, results)
    tables(bench, results)

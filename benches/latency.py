"""Small queries of one client, alone and while another scans all of lineitem over and over."""

from contextlib import contextmanager

import data
import small
from cluster import Asking
from pgbench import pgbench
from servers import Trouble

# Reads every row, and takes long beside the small ones.
SCAN = """SELECT l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice * (1 - l_discount)),
    avg(l_discount), count(*) FROM lineitem GROUP BY l_returnflag, l_linestatus
    ORDER BY l_returnflag, l_linestatus"""

LOADS = ("alone", "beside a scan")


@contextmanager
def load(bench, server, name):
    """Yields when the scan runs; afterwards it has ended, and was right each time."""
    if name == "alone":
        yield
        return
    with server.connect() as connection:
        expected = connection.execute(SCAN).fetchone()
    scans = Asking(server.connect, expected, SCAN)
    scans.start()
    try:
        yield
    finally:
        scans.ended.set()
        scans.join()
    if scans.failures:
        bench.report.fail("the scan beside", scans.failures[0])


def measure(bench, servers, scripts):
    """{(script, load, server): [Figures, ...]}, interleaved, after a short round for warming up."""
    results = {(script, name, server): []
               for script in scripts for name in LOADS for server in servers}
    broken = set()
    for turn in range(bench.options.rounds + 1):
        names = list(servers) if turn % 2 else list(servers)[::-1]
        for case in [(script, name) for script in scripts for name in LOADS]:
            for server in names:
                if (*case, server) in broken:
                    continue
                try:
                    with load(bench, servers[server], case[1]):
                        figures = pgbench(servers[server], scripts[case[0]], 1, "prepared",
                                          bench.options.seconds if turn else 1)
                except Trouble as trouble:
                    bench.report.fail(f"{', '.join(case)}, on {server}", trouble)
                    broken.add((*case, server))
                    continue
                if turn:
                    results[*case, server].append(figures)
    return results


def planning(bench, scripts):
    """{script: milliseconds of planning}, of prepared statements, by the daemon's own history."""
    with bench.oribi.connect() as connection:
        begin = connection.execute("SELECT clock_timestamp()").fetchone()[0]
        for script in scripts.values():
            pgbench(bench.oribi, script, 1, "prepared", bench.options.seconds)
        rows = connection.execute("SELECT sql, planning_ms FROM system.query_history "
                                  "WHERE state = 'finished' AND planning_ms IS NOT NULL "
                                  "AND started >= %s", [begin]).fetchall()
    # They differ in their first two words.
    starts = {name: " ".join(script.splitlines()[-1].rstrip(";").split()[:2])
              for name, script in scripts.items()}
    return {name: [ms for sql, ms in rows if sql.startswith(start)] for name, start in starts.items()}


def tables(bench, results, scripts):
    for field in ("p50", "p99"):
        def samples(script, name, server):
            return [getattr(figures, field) for figures in results[script, name, server]]

        rows = [(f"{script}, {name}", samples(script, name, "oribi"), samples(script, name, "postgres"))
                for script in scripts for name in LOADS]
        bench.report.table("latency", f"{field} ms", rows, "less", "postgres")
        rows = [(f"{script}, {server}", samples(script, LOADS[1], server),
                 samples(script, LOADS[0], server))
                for script in scripts for server in ("oribi", "postgres")]
        bench.report.table("latency, beside a scan and alone", f"{field} ms", rows, "less",
                           "alone", "beside")


def run(bench):
    count = small.define_points(bench, [bench.oribi])
    path = bench.files / "lineitem.parquet"
    bench.oribi.define("lineitem", path)
    data.load_postgres(bench, "points", data.points_file(bench)[0], key="id")
    data.load_postgres(bench, "lineitem", path)
    bench.report.version("oribi", bench.oribi.version())
    bench.report.version("postgres", bench.postgres.version())
    scripts = small.scripts(count)
    results = measure(bench, {"oribi": bench.oribi, "postgres": bench.postgres}, scripts)
    tables(bench, results, scripts)
    bench.report.table("latency", "ms of planning", [
        (f"{name}, prepared", times, []) for name, times in planning(bench, scripts).items()], "less")

"""Small queries over the wire: pgbench against Oribi and against PostgreSQL with an index."""

import data
from pgbench import rounds, tables

AGGREGATED = 10_000  # rows of the small aggregate


def scripts(rows):
    key = f"\\set id random(1, {rows - AGGREGATED})\n"
    return {
        "select 1": "SELECT 1;\n",
        "look-up": key + "SELECT * FROM points WHERE id = :id;\n",
        "aggregate": key + "SELECT count(*), sum(price) FROM points "
                           f"WHERE id BETWEEN :id AND :id + {AGGREGATED - 1};\n",
    }


def define_points(bench, servers):
    """points on every daemon given; returns its number of rows."""
    path, count = data.points_file(bench)
    for server in servers:
        server.define("points", path)
    return count


def run(bench):
    count = define_points(bench, [bench.oribi])
    data.load_postgres(bench, "points", data.points_file(bench)[0], key="id")
    bench.report.version("oribi", bench.oribi.version())
    bench.report.version("postgres", bench.postgres.version())
    servers = {"oribi": bench.oribi, "postgres": bench.postgres}
    cases = {f"{name}, {mode}, {clients} clients": (script, clients, mode)
             for name, script in scripts(count).items()
             for mode in ("prepared", "simple") for clients in bench.options.clients}
    results = rounds(bench, servers, cases)
    tables(bench, "small", results, cases, "oribi", "postgres")

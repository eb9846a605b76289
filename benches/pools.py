"""What a pool costs: pgbench as a role that is in one, and as a role that is in none, on one daemon."""

import small
from pgbench import rounds, tables
from servers import ZooKeeper


class As:
    """The same server for another role."""

    def __init__(self, server, role):
        self.port, self.user, self.database = server.port, role, server.database


def run(bench):
    zookeeper = ZooKeeper(bench.scratch / "zookeeper-pools")
    bench.stack.callback(zookeeper.stop)
    zookeeper.start()
    bench.report.version("zookeeper", zookeeper.version())
    server = bench.new_oribi("pools", identity="pools", zookeeper=f"127.0.0.1:{zookeeper.port}/oribi")
    bench.report.version("oribi", server.version())
    count = small.define_points(bench, [server])
    with server.connect() as connection:
        for statement in ("CREATE ROLE governed LOGIN", "CREATE ROLE free LOGIN",
                          "GRANT SELECT ON points TO governed, free",
                          "CREATE POOL bench WITH (concurrency = 1000) TO governed"):
            connection.execute(statement)
    servers = {"in a pool": As(server, "governed"), "in none": As(server, "free")}
    # The first reads no table, and so never waits for a place; the second takes one each time.
    wanted = ("select 1", "look-up")
    cases = {f"{name}, prepared, {clients} clients": (small.scripts(count)[name], clients, "prepared")
             for name in wanted for clients in bench.options.clients}
    results = rounds(bench, servers, cases)
    tables(bench, "pools", results, cases, "in a pool", "in none")
    server.stop()
    zookeeper.stop()

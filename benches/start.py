"""From exec to the first answer, memory at rest, and the size of the binary."""

import time

from servers import Oribi

REST = 3  # seconds before memory is looked at


def timed_start(server):
    """Milliseconds until SELECT 1 is answered on a new connection."""
    begin = time.perf_counter()
    server.start()
    return (time.perf_counter() - begin) * 1000


def run(bench):
    fresh, again, peer, resident = [], [], [], []
    bench.postgres.stop()
    for turn in range(bench.options.rounds + 1):
        first_ms, again_ms, memory = one_daemon(bench, bench.scratch / f"start-{turn}")
        peer_ms = timed_start(bench.postgres)
        bench.postgres.stop()
        if turn:  # the first round brings the binaries into the page cache
            fresh.append(first_ms)
            again.append(again_ms)
            peer.append(peer_ms)
            resident.append(memory)
    bench.postgres.start()
    report(bench, fresh, again, peer, resident)


def one_daemon(bench, folder):
    """(ms on an empty directory, ms with a table there, MiB at rest) of one data directory."""
    server = Oribi(bench.options.binary, folder)
    bench.stack.callback(server.stop)
    first_ms = timed_start(server)
    server.define("lineitem", bench.files / "lineitem.parquet")
    server.stop()
    again_ms = timed_start(server)
    time.sleep(REST)
    memory = server.resident_bytes() / 2**20
    server.stop()
    return first_ms, again_ms, memory


def report(bench, fresh, again, peer, resident):
    bench.report.version("oribi", Oribi(bench.options.binary, bench.scratch / "none").version())
    bench.report.version("postgres", bench.postgres.version())
    bench.report.table("start", "ms to ready", [("empty data directory", fresh, []),
                                                ("with a table defined", again, peer)],
                       "less", "postgres")
    size = bench.options.binary.stat().st_size / 2**20
    bench.report.table("start", "MiB", [("resident at rest", resident, []), ("binary", [size], [])],
                       "less")

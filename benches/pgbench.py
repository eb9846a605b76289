"""One run of pgbench: transactions a second, and latencies out of its log."""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from servers import POSTGRES_BIN, Trouble


class Figures(NamedTuple):
    tps: float
    p50: float  # milliseconds
    p99: float


def percentile(ordered, share):
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def latencies(folder):
    """Milliseconds from one end of a client's transactions to the next, sorted.

    A log line: client, transaction, latency, script, seconds and microseconds of the end. The
    latency is of no use: pgbench asks the clock once for each turn of its loop, so an answer that
    is there at once is logged as 0. A client sends its next transaction without a pause, so the
    distance between two ends says the same and adds up to the time that passed.
    """
    times, last = [], {}
    for path in folder.glob("log*"):
        for line in path.read_text().splitlines():
            client, _, _, _, seconds, micros = line.split(" ")[:6]
            end = int(seconds) * 1000 + int(micros) / 1000
            if client in last:
                times.append(end - last[client])
            last[client] = end
    return sorted(times)


def pgbench(server, script, clients, mode, seconds):
    """Runs the script against a server; any failed transaction makes it no measurement."""
    with tempfile.TemporaryDirectory(prefix="oribi-pgbench-") as folder:
        file = Path(folder) / "script.sql"
        file.write_text(script)
        command = [POSTGRES_BIN / "pgbench", "-n", "-h", "127.0.0.1", "-p", server.port, "-U",
                   server.user, "-f", file, "-c", clients, "-j", min(clients, os.cpu_count()),
                   "-M", mode, "-T", seconds, "-l", "--log-prefix", f"{folder}/log",
                   server.database]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        tps = re.search(r"^tps = ([\d.]+) \(without", done.stdout, re.M)
        failed = re.search(r"failed transactions: (\d+)", done.stdout)
        times = latencies(Path(folder))
    if done.returncode or not tps or not times or (failed and int(failed[1])):
        lines = [line for line in done.stderr.splitlines() if "rror" in line or "FATAL" in line]
        raise Trouble((lines or done.stderr.splitlines() or ["pgbench failed"])[0])
    return Figures(float(tps[1]), percentile(times, 0.5), percentile(times, 0.99))


def rounds(bench, servers, cases, prepare=lambda server: None):
    """{(case, server): [Figures, ...]}, interleaved; cases: {name: (script, clients, mode)}.

    `prepare` is called with a server before each of its runs. The first round is a short warm-up. A case that fails on a server is reported, then left out.
    """
    results = {(case, server): [] for case in cases for server in servers}
    broken = set()
    for turn in range(bench.options.rounds + 1):
        names = list(servers) if turn % 2 else list(servers)[::-1]
        for case, (script, clients, mode) in cases.items():
            for name in names:
                if (case, name) in broken:
                    continue
                seconds = bench.options.seconds if turn else 1
                try:
                    prepare(servers[name])
                    figures = pgbench(servers[name], script, clients, mode, seconds)
                except Trouble as trouble:
                    bench.report.fail(f"{case} on {name}", trouble)
                    broken.add((case, name))
                    results[case, name] = []
                    continue
                if turn:
                    results[case, name].append(figures)
    return results


def tables(bench, title, results, cases, ours, theirs):
    """Throughput and both latencies of two servers, one row for each case."""
    for field, unit, better in (("tps", "tps", "more"), ("p50", "p50 ms", "less"),
                                ("p99", "p99 ms", "less")):
        rows = [(case, [getattr(f, field) for f in results[case, ours]],
                 [getattr(f, field) for f in results[case, theirs]]) for case in cases]
        bench.report.table(title, unit, rows, better, theirs, ours)

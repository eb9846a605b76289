"""What a daemon took while it answered: its peak by the kernel's count, and its statements' spill files."""

from contextlib import contextmanager

MIB = 2**20


def within(bench):
    """What a suite's title ends with: figures under a limit are others."""
    return f" within {limit}" if (limit := bench.options.memory_limit) else ""


def spilled(server, statements):
    """{label: (bytes spilled by each run, the most memory that a run was granted)}, by its own history."""
    with server.connect() as connection:
        rows = connection.execute("SELECT sql, bytes_spilled, peak_memory FROM system.query_history "
                                  "WHERE state = 'finished'").fetchall()
    labels = {plain(sql): label for label, sql in statements.items()}
    found = {label: [] for label in statements}
    for sql, spilled, granted in rows:
        if label := labels.get(plain(sql)):
            found[label].append((spilled, granted))
    return found


def plain(sql):
    """As the history may have it: without what is around and between the words."""
    lines = [line for line in sql.splitlines() if not line.startswith("--")]
    return " ".join(" ".join(lines).split()).rstrip("; ")


@contextmanager
def watched(bench, title):
    """What happens inside counts; it puts {label: SQL} of its statements into the dictionary it gets."""
    statements = {}
    bench.oribi.reset_peak()
    yield statements
    peak = bench.oribi.peak_bytes() / MIB
    found = spilled(bench.oribi, statements)
    granted = [granted for runs in found.values() for _, granted in runs]
    rows = [("resident, peak", [peak], [])]
    if granted:
        rows.append(("granted to one statement, at most", [max(granted) / MIB], []))
    for label, runs in found.items():
        if any(spilled for spilled, _ in runs):
            rows.append((f"{label}, spilled", [spilled / MIB for spilled, _ in runs], []))
    bench.report.table(f"{title}, memory", "MiB", rows, "less")

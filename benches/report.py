"""Medians beside each other: printed as tables, kept as history.tsv."""

import os
import platform
import statistics
import subprocess
from datetime import datetime, timezone
from pathlib import Path

HISTORY = Path(__file__).with_name("history.tsv")
COLUMNS = ["time", "commit", "scale", "suite", "case", "unit", "oribi", "oribi_min", "oribi_max", "peer",
           "peer_median", "peer_min", "peer_max", "ratio", "rounds", "cores", "memory_gib",
           "versions"]


def number(value):
    """Three significant digits, no exponent."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"


def spread(samples):
    """median [min..max]"""
    if not samples:
        return "-"
    middle = number(statistics.median(samples))
    return f"{middle} [{number(min(samples))}..{number(max(samples))}]"


def commit():
    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=HISTORY.parent, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    changed = git("status", "--porcelain", "--", "../src", "../Cargo.toml", "../Cargo.lock")
    return (git("rev-parse", "--short", "HEAD") or "none") + ("+changes" if changed else "")


class Report:
    def __init__(self, bench):
        self.bench = bench
        self.records = []
        self.failures = 0
        self.versions = {}

    def heading(self):
        cores, load = os.cpu_count(), os.getloadavg()[0]
        print(f"{cores} cores, {self.memory_gib()} GiB, {platform.machine()}, commit {commit()}, "
              f"load {load:.1f}")
        if load > 0.3 * cores:
            print("note: the machine is not idle; look at min and max, and trust ratios only")

    def memory_gib(self):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)

    def version(self, name, value):
        self.versions[name] = value

    def fail(self, what, why):
        """Something went wrong that must not look like a measurement."""
        self.failures += 1
        print(f"FAILED {what}: {why}", flush=True)

    def note(self, what, why=None):
        """Something of a peer's that explains what is missing."""
        print(f"left out: {what}" + (f": {why}" if why else ""), flush=True)

    def table(self, suite, unit, rows, better, peer="", ours="Oribi"):
        """rows: (case, Oribi's samples, the peer's samples); ratio: Oribi's median by the peer's."""
        print(f"\n{suite}: {unit}, median [min..max]; {better} is better")
        lines = [("case", ours, peer, "ratio")]
        for case, mine, theirs in rows:
            ratio = (statistics.median(mine) / statistics.median(theirs)
                     if mine and theirs and statistics.median(theirs) else None)
            lines.append((case, spread(mine), spread(theirs),
                          f"{ratio:.2f}" if ratio is not None else "-"))
            if mine:
                self.record(suite, case, unit, mine, peer if theirs else "", theirs, ratio)
        widths = [max(map(len, column)) for column in zip(*lines)]
        for line in lines:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        print(flush=True, end="")

    def record(self, suite, case, unit, ours, peer, theirs, ratio):
        def three(samples):
            return [f"{f(samples):.6g}" if samples else "" for f in (statistics.median, min, max)]

        self.records.append([suite, case, unit, *three(ours), peer, *three(theirs),
                             f"{ratio:.4f}" if ratio is not None else "", str(len(ours))])

    def append_history(self):
        if not self.records:
            return
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
        versions = ", ".join(f"{name} {value}" for name, value in sorted(self.versions.items()))
        head = [now, commit(), "given" if self.bench.options.data else self.bench.options.scale]
        tail = [str(os.cpu_count()), str(self.memory_gib()), versions]
        fresh = not HISTORY.exists()
        with open(HISTORY, "a") as file:
            if fresh:
                file.write("\t".join(COLUMNS) + "\n")
            for record in self.records:
                file.write("\t".join(head + record + tail) + "\n")

"""Options, the order of things, and cleaning up. Started by `run`, which provides the venv."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import chart
import clickbench
import cluster
import commits
import coordination
import data
import faults
import latency
import metadata
import pools
import report
import rows
import scale
import small
import start
import tpch
import write
from servers import Oribi, Postgres, Trouble

SUITES = {"tpch": tpch, "clickbench": clickbench, "small": small, "latency": latency, "rows": rows,
          "write": write, "commits": commits, "metadata": metadata, "coordination": coordination,
          "cluster": cluster, "faults": faults, "pools": pools, "scale": scale, "start": start}
REPOSITORY = Path(__file__).resolve().parent.parent


class Bench:
    """What the suites share: options, folders, and servers that start when first wanted."""

    def __init__(self, options, stack):
        self.options = options
        self.stack = stack
        self.cache = Path(os.environ["ORIBI_BENCH_CACHE"])
        self.scratch = Path(tempfile.mkdtemp(prefix="oribi-bench-"))
        self.scratch.chmod(0o755)  # PostgreSQL's own user has to pass through
        stack.callback(shutil.rmtree, self.scratch, ignore_errors=True)
        self.report = report.Report(self)
        self._oribi = self._postgres = self._files = None

    def new_oribi(self, name, **more):
        server = Oribi(self.options.binary, self.scratch / name, memory=self.options.memory_limit,
                       **more)
        self.stack.callback(server.stop)
        return server.start()

    @property
    def oribi(self):
        """One daemon with embedded coordination, for all suites but those that start their own."""
        if self._oribi is None:
            self._oribi = self.new_oribi("oribi")
        return self._oribi

    @property
    def postgres(self):
        if self._postgres is None:
            self._postgres = Postgres(self.scratch / "postgres")
            self.stack.callback(self._postgres.stop)
            self._postgres.start()
        return self._postgres

    @property
    def files(self):
        """Folder with TPC-H as <table>.parquet, generated once for each scale and kept."""
        if self._files is None:
            self._files = data.tpch_files(self)
        return self._files


def default_binary():
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return target / "release" / "oribi"


def parse(arguments):
    parser = argparse.ArgumentParser(prog="benches/run", description="Oribi beside its peers")
    parser.add_argument("suites", nargs="*", metavar="suite",
                        help=f"of {', '.join(SUITES)}; all by default")
    parser.add_argument("--binary", type=Path, default=default_binary(), help="a release build")
    parser.add_argument("--scale", default="1", help="TPC-H scale factor")
    parser.add_argument("--data", type=Path, help="folder with <table>.parquet to use instead")
    parser.add_argument("--rounds", type=int, default=5, help="after one warm-up round")
    parser.add_argument("--seconds", type=int, default=3, help="of each pgbench run")
    parser.add_argument("--clients", type=lambda s: [int(c) for c in s.split(",")],
                        default=[1, 8, 64], help="of pgbench, e.g. 1,8,64")
    parser.add_argument("--files", type=int, default=100_000, help="metadata: files of the table")
    parser.add_argument("--trials", type=int, default=50, help="faults: of each kind")
    parser.add_argument("--only", default="", metavar="TEXT",
                        help="cluster, faults: cases that have this in their name")
    parser.add_argument("--daemons", type=int, default=30, help="scale: at most")
    parser.add_argument("--rows", type=int, default=10_000_000, help="clickbench: of hits")
    parser.add_argument("--datafusion", action="store_true",
                        help="tpch, clickbench: DataFusion from PyPI, in process, as well")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="tpch, clickbench: a setting of Oribi's session; may be repeated")
    parser.add_argument("--memory-limit", metavar="SIZE",
                        help="engine.memory_limit of the daemons, and DuckDB's, e.g. 2GiB")
    parser.add_argument("--no-history", action="store_true",
                        help="leave history.tsv and the charts alone")
    parser.add_argument("--charts", action="store_true",
                        help="only draw the charts anew, from history.tsv")
    options = parser.parse_args(arguments)
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    options.suites = options.suites or list(SUITES)
    return options


def main(options):
    if options.charts:
        return chart.draw_all()
    if not options.binary.exists():
        sys.exit(f"{options.binary} is not there: cargo build --release, or --binary")
    # Being asked to end means cleaning up as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = []
    with ExitStack() as stack:
        bench = Bench(options, stack)
        bench.report.heading()
        for name in options.suites:
            try:
                SUITES[name].run(bench)
            except Trouble as trouble:
                print(f"\n{name}: not measured: {trouble}", flush=True)
                failed.append(name)
        if not options.no_history:
            bench.report.append_history()
            chart.draw_all()
    return 1 if failed or bench.report.failures else 0


if __name__ == "__main__":
    sys.exit(main(parse(sys.argv[1:])))

"""The same queries on several engines: rows compared first, then times, query by query and interleaved.

Queries are {label: SQL}, engines {name: function from SQL to rows}; `oribi` comes first, and then the
peer whose rows count as right.
"""

import math
import statistics
import time
from datetime import date
from decimal import Decimal


def close(a, b):
    """Equal, or numbers that differ by rounding only."""
    if isinstance(a, (int, float, Decimal)) and isinstance(b, (int, float, Decimal)):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-5)
    if isinstance(a, date) or isinstance(b, date):
        return str(a) == str(b)
    return a == b


def same(ours, theirs):
    return len(ours) == len(theirs) and all(
        len(a) == len(b) and all(map(close, a, b)) for a, b in zip(ours, theirs))


def difference(ours, theirs):
    """The first one, in words."""
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, not {len(theirs)}"
    for number, (a, b) in enumerate(zip(ours, theirs), 1):
        if not same([a], [b]):
            at = [place for place, pair in enumerate(zip(a, b)) if not close(*pair)][:3]
            return (f"row {number} has {[a[place] for place in at]}, not {[b[place] for place in at]}"
                    if len(a) == len(b) else f"{len(a)} columns, not {len(b)}")


def answers(engines, sql):
    """{name: rows, or the exception}"""
    got = {}
    for name, engine in engines.items():
        try:
            got[name] = engine(sql)
        except Exception as error:
            got[name] = error
    return got


def reason(error):
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def warm_up(bench, engines, queries, decided=None):
    """Runs everything once; {label: names of the engines that have a right answer}.

    A wrong answer has no speed. Of the first two engines it is a failure, and the query is dropped; the
    other peers go without the query. `decided` has the queries in a form that leaves no choice of rows;
    where an engine cannot run that, the number of rows is compared.
    """
    _, right = list(engines)[:2]
    kept = {}
    for label, sql in queries.items():
        got = answers(engines, sql)
        checked = answers(engines, decided[label]) if decided else got
        able = []
        for name in engines:
            if wrong := complaint(got, checked, name, right):
                tell = bench.report.fail if name in list(engines)[:2] else bench.report.note
                tell(f"{label} on {name}", wrong)
            else:
                able.append(name)
        if set(list(engines)[:2]) <= set(able):
            kept[label] = able
    return kept


def complaint(got, checked, name, right):
    """Why an engine's answer does not count, or None."""
    if isinstance(got[name], Exception):
        return reason(got[name])
    if isinstance(got[right], Exception) or isinstance(checked[right], Exception):
        return None
    if isinstance(checked[name], Exception):
        if len(got[name]) != len(got[right]):
            return f"{len(got[name])} rows, but {right} has {len(got[right])}"
        return None
    if len(got[name]) != len(got[right]) or not same(checked[name], checked[right]):
        return f"rows differ from {right}'s: {difference(checked[name], checked[right])}"
    return None


def measure(bench, engines, queries, kept):
    """{engine: {label: milliseconds, one for each round}}; the order of engines turns each round."""
    times = {name: {label: [] for label, able in kept.items() if name in able} for name in engines}
    for turn in range(bench.options.rounds):
        names = list(engines)
        names = names[turn % len(names):] + names[:turn % len(names)]
        for label, able in kept.items():
            for name in names:
                if name not in able:
                    continue
                begin = time.perf_counter()
                engines[name](queries[label])
                times[name][label].append((time.perf_counter() - begin) * 1000)
    return times


def table(bench, title, ours, theirs, peer):
    """Those queries that the peer has, their sum, and the geometric mean of the ratios."""
    ours = {label: ours[label] for label in theirs}
    rows = [(label, ours[label], theirs[label]) for label in ours]
    rounds = range(bench.options.rounds)
    rows.append((f"sum of {len(ours)}", *([sum(times[label][i] for label in ours) for i in rounds]
                                          for times in (ours, theirs))))
    bench.report.table(title, "ms", rows, "less", peer)
    ratios = [statistics.median(ours[label]) / statistics.median(theirs[label]) for label in ours]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"  geometric mean of the ratios to {peer}: {mean:.2f}", flush=True)
    bench.report.record(title, "geometric mean", "ratio", [mean], peer, [], mean)

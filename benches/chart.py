"""Bars of the newest ratios in history.tsv, as SVG: charts/<suite>.svg."""

import csv
import re
from html import escape

from report import HISTORY

FOLDER = HISTORY.with_name("charts")
# The suites that are drawn, and what their ratio is to be at most.
TARGETS = {r"(tpch|clickbench) .* vs duckdb": 0.9, r"(tpch|clickbench) .* vs \w+": 1.0}

LEFT, WIDTH, BAR, STEP, TOP = 190, 480, 13, 19, 64
# A longer bar ends here, and its figure tells.
LONGEST = 3

# Colours that hold on white and on black; a viewer that tells which it has gets its own for text.
STYLE = """text { font: 12px sans-serif; fill: #6e7781 }
.title { font-size: 15px; font-weight: bold } .end { text-anchor: end } .middle { text-anchor: middle }
.ahead { fill: #2da44e } .behind { fill: #cf7a3d }
line { stroke: #6e7781 } .target { stroke: #2f81f7; stroke-dasharray: 4 3 } .blue { fill: #2f81f7 }
@media (prefers-color-scheme: light) { text { fill: #24292f } .blue { fill: #0969da } }
@media (prefers-color-scheme: dark) { text { fill: #d0d7de } .blue { fill: #58a6ff } }"""


def newest(history):
    """{suite: its rows of the last run}, in their order."""
    suites = {}
    with open(history, newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            rows = suites.setdefault(row["suite"], [])
            if rows and rows[0]["time"] != row["time"]:
                rows.clear()
            rows.append(row)
    return suites


def target_of(suite):
    return next((target for form, target in TARGETS.items() if re.fullmatch(form, suite)), None)


def text(x, y, words, kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(words)}</text>'


def mark(x, bottom, kind, words, y):
    return (f'<line x1="{x:.1f}" y1="{TOP - 4}" x2="{x:.1f}" y2="{bottom}" class="{kind}"/>'
            + text(x, y, words, f"middle {'blue' if kind else ''}"))


def svg(suite, rows, target):
    """One bar for each row; up to the line at 1.0 Oribi takes no longer than its peer."""
    bars = [(row["case"], float(row["ratio"])) for row in rows if row["ratio"]]
    most = min(LONGEST, max(1.1, *(ratio for _, ratio in bars)))
    scale = WIDTH / most
    bottom = TOP + STEP * len(bars)
    parts = [text(12, 22, f"Oribi's time by its peer's, less is better: {suite}", "title")]
    for place, (case, ratio) in enumerate(bars):
        y = TOP + STEP * place
        parts += [text(LEFT - 54, y + 11, case, "end"), text(LEFT - 8, y + 11, f"{ratio:.2f}", "end"),
                  f'<rect x="{LEFT}" y="{y}" width="{min(ratio, most) * scale:.1f}" height="{BAR}" '
                  f'class="{"ahead" if ratio < 1.005 else "behind"}"/>']
    parts.append(mark(LEFT + scale, bottom, "", "1.0", TOP - 8))
    if target != 1:
        parts.append(mark(LEFT + target * scale, bottom, "target", f"target {target}", TOP - 22))
    row = rows[0]
    parts.append(text(12, bottom + 20, f"{row['time'][:10]}, commit {row['commit']}, {row['cores']} cores, "
                                       f"{row['memory_gib']} GiB; {row['versions']}"))
    size = f'width="{LEFT + WIDTH + 20}" height="{bottom + 32}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{STYLE}</style>",
                      *parts, "</svg>", ""])


def draw_all():
    FOLDER.mkdir(exist_ok=True)
    for suite, rows in newest(HISTORY).items():
        target = target_of(suite)
        if target is None or not any(row["ratio"] for row in rows):
            continue
        path = FOLDER / (re.sub(r"[^\w.]+", "-", suite) + ".svg")
        path.write_text(svg(suite, rows, target))
        print(path)

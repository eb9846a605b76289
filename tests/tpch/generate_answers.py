"""Writes answers/<name>/qNN.tsv: DuckDB's answers to the 22 queries on given Parquet files.

    python generate_answers.py DIR NAME      (DIR holds <table>.parquet; NAME is e.g. sf0.01)

DuckDB shares no code with the daemon, so an agreement means something. The normal form of the
files is described in README.md.
"""

import re
import sys
from pathlib import Path

import duckdb

HERE = Path(__file__).parent
TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]

# Averages and quotients: engines round these differently, so they are compared with a tolerance.
APPROXIMATE = {"avg_qty", "avg_price", "avg_disc", "mkt_share", "promo_revenue", "avg_yearly"}

# The queries whose ORDER BY names no key: whether the order is total depends on the data.
ORDERED_BY_VALUE = {3: ["revenue", "o_orderdate"], 5: ["revenue"], 10: ["revenue"],
                    11: ["value"], 18: ["o_totalprice", "o_orderdate"]}


def kind_of(name, duck_type):
    """The comparison that a column wants: int, decimal, approx, date or text."""
    duck_type = str(duck_type)
    if name in APPROXIMATE:
        return "approx"
    if duck_type.startswith("DECIMAL"):
        return "decimal"
    if re.fullmatch(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?", duck_type):
        return "int"
    return {"DATE": "date", "TIMESTAMP": "text", "VARCHAR": "text", "FLOAT": "approx",
            "DOUBLE": "approx"}[duck_type]


def normal(value, kind):
    """One value as text. Scales differ between engines, so decimals lose trailing zeros."""
    if value is None:
        return r"\N"
    if kind == "decimal":
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if kind == "approx":
        return repr(float(value))
    text = str(value)
    assert not set(text) & set("\t\n\\"), f"{text!r} would need escaping"
    return text


def order_is_total(db, number, sql):
    """True when no two neighbouring rows compare equal, the first one cut off included."""
    keys = ORDERED_BY_VALUE.get(number)
    if keys is None:
        return True
    match = re.search(r"\blimit (\d+)", sql)
    shown = int(match.group(1)) if match else None
    result = db.execute(re.sub(r"\blimit \d+", "", sql))
    at = [[d[0] for d in result.description].index(key) for key in keys]
    rows = [tuple(row[i] for i in at) for row in result.fetchall()]
    if shown is not None and len(rows) > shown:
        assert rows[shown - 1] != rows[shown], f"Q{number}: LIMIT cuts between equal rows"
        rows = rows[:shown]
    return all(a != b for a, b in zip(rows, rows[1:]))


def answer(db, number, sql):
    """The whole text of one answer file."""
    result = db.execute(sql)
    names = [column[0] for column in result.description]
    kinds = [kind_of(column[0], column[1]) for column in result.description]
    lines = ["\t".join(map(normal, row, kinds)) for row in result.fetchall()]
    total = order_is_total(db, number, sql)
    if not total:
        lines.sort()
    header = "\t".join(f"{name}:{kind}" for name, kind in zip(names, kinds))
    return "\n".join([f"# order: {'total' if total else 'none'}", header, *lines]) + "\n"


def main(data, name):
    db = duckdb.connect()
    for table in TABLES:
        path = Path(data) / f"{table}.parquet"
        db.execute(f"create view {table} as select * from read_parquet('{path}')")
    target = HERE / "answers" / name
    target.mkdir(parents=True, exist_ok=True)
    for number in range(1, 23):
        sql = (HERE / "queries" / f"q{number:02}.sql").read_text()
        (target / f"q{number:02}.tsv").write_text(answer(db, number, sql))


if __name__ == "__main__":
    main(*sys.argv[1:])

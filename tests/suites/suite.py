"""What the suites share: an independent engine's answers to queries, in the normal form of
tests/tpch/README.md, with an order that decides every place."""

import pathlib
import re
import sys

import duckdb

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tpch"))
from generate_answers import kind_of, normal


def open_duckdb(*extensions):
    """With the files of these packages; DuckDB downloads nothing. NULL sorts as in PostgreSQL."""
    db = duckdb.connect(config={"autoinstall_known_extensions": False,
                                "autoload_known_extensions": False,
                                "memory_limit": "2GB", "max_temp_directory_size": "0KB"})
    for package in extensions:
        (file,) = pathlib.Path(package.__file__).parent.glob("extensions/*/*.duckdb_extension")
        db.execute(f"LOAD '{file}'")
    db.execute("SET default_null_order = 'nulls_last_on_asc_first_on_desc'")
    return db


def on_top(sql):
    """The text with what stands in parentheses blanked out, at the same places."""
    depth, shown = 0, []
    for character in sql:
        depth += character == "("
        shown.append(character if depth == 0 else " ")
        depth -= character == ")"
    return "".join(shown)


def ordered(db, sql):
    """The query with all its columns as further keys, and whether it has an order then. What has a
    LIMIT alone gets an order: else any rows would be right."""
    sql = sql.strip().removesuffix(";").rstrip()
    top = on_top(sql)
    limit = re.search(r"\blimit\s+\d+(\s+offset\s+\d+)?$", top, re.IGNORECASE)
    if not limit and not re.search(r"\border\s+by\b", top, re.IGNORECASE):
        return sql, False
    cut = limit.start() if limit else len(sql)
    columns = len(db.execute(f"DESCRIBE {sql}").fetchall())
    keys = ", ".join(str(place + 1) for place in range(columns))
    joined = "," if re.search(r"\border\s+by\b", top, re.IGNORECASE) else "ORDER BY"
    return f"{sql[:cut].rstrip()} {joined} {keys} {sql[cut:]}".rstrip(), True


def write_answers(db, queries, target, unordered=()):
    """For each number and query: qNN.sql as it is to be asked, and qNN.tsv with the answer. The rows of
    those that are `unordered` may come in any order."""
    for number, sql in queries:
        sql, total = ordered(db, sql)
        total = total and number not in unordered
        result = db.execute(sql)
        kinds = [kind_of(column[0], column[1]) for column in result.description]
        names = [re.sub(r"\s", " ", column[0]) for column in result.description]
        rows = result.fetchall()
        lines = ["\t".join(map(normal, row, kinds)) for row in rows]
        header = "\t".join(f"{name}:{kind}" for name, kind in zip(names, kinds))
        order = f"# order: {'total' if total else 'none'}"
        (target / f"q{number:02}.sql").write_text(sql)
        (target / f"q{number:02}.tsv").write_text("\n".join([order, header, *lines]) + "\n")

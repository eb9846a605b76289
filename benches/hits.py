"""ClickBench's table `hits`, invented: its 105 columns, lying as the original's do."""

import importlib.util
import re
import sys
from pathlib import Path

import duckdb

SUITES = Path(__file__).resolve().parent.parent / "tests" / "suites"

# What many columns are made of. As in the original, rows lie by counter, then by day, and those of one
# visit (three) beside each other. The counter with the number 62, of which seven queries ask, has 0.6%
# of the rows and one page that a third of its hits go to.
COMMON = """
SELECT i, counter, person, page, day + to_seconds(h(i, 110) % 86400) AS moment,
    'http://site' || counter || '.example/' AS site,
    if(page = 0, '', 'catalogue/section-' || page % 37 || '/item-' || page || '.html?order=price&view='
        || page % 5) AS path,
    h(i, 38) % 100 < 13 AS searched
FROM (SELECT *, 57 + floor(place)::INT AS counter, few(i // 3, 101, {rows} // 3) AS person,
        DATE '2013-07-01' + floor(31 * (place - floor(place)))::INT AS day,
        CASE WHEN floor(place) = 5 AND h(i, 84) % 3 = 0 THEN 0
            WHEN floor(place) = 5 THEN few(i, 104, greatest({rows} // 500, 5000))
            ELSE few(i, 104, greatest({rows} // 20000, 20)) END AS page
    FROM (SELECT i, 6000 * pow((i + 0.5) / {rows}, 3) AS place FROM range({rows}) r(i)))
"""

# Instead of the values that the tests' table has, where they decide what a query costs.
WIDE = {
    "WatchID": "h(1)",
    "Title": "if(page % 50 = 7, '', 'Каталог товаров: раздел ' || page % 37 || ', предмет ' || page "
             "|| ' — ' || if(h(4) % 700 = 0, 'Google', 'новости, цены и отзывы') "
             "|| ' | site' || counter)",
    "EventTime": "moment",
    "EventDate": "moment::DATE",
    "CounterID": "counter",
    "ClientIP": "h(person // 2, 6) % 4200000000 - 2100000000",
    "RegionID": "few(person, 7, 9000)",
    "UserID": "if(person = 7, 435090932899640449, h(person, 8))",
    "URL": "site || path || if(h(105) % 4000 = 0, '&from=www.google.example', '')",
    "Referer": "CASE h(12) % 10 WHEN 0 THEN '' WHEN 1 THEN '' "
               "WHEN 2 THEN 'https://www.search' || few(13, 9) || '.example/search?text=' "
               "|| few(14, {rows} // 20) "
               "WHEN 3 THEN 'http://portal' || few(13, 2000) || '.example/' || few(14, 300) "
               "ELSE site || path END",
    "OriginalURL": "if(h(53) % 3 = 0, site || path, '')",
    "SearchEngineID": "if(searched, 1 + few(37, 60), 0)",
    "SearchPhrase": "if(searched, 'где купить предмет ' || few(39, {rows} // 10) || ' недорого', "
                    "'')",
    "URLHash": "if(counter = 62 AND page = 0, 2868770270353813622, h(counter * 1000000::BIGINT + page, 84))",
    "FUniqID": "h(person, 53)",
}


def tests_table():
    """The module that makes the table of the tests: columns, types, and values that will do here."""
    sys.path.append(str(SUITES))
    spec = importlib.util.spec_from_file_location("tests_clickbench", SUITES / "clickbench.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def columns(rows):
    """The select list: names in lower case, as PostgreSQL has them."""
    module = tests_table()
    for line in module.COLUMNS.strip().splitlines():
        (name, kind), value = line.split(": ", 1)[0].split(), line.split(": ", 1)[1]
        value = WIDE.get(name, value).replace("{rows}", str(rows))
        # h(n) and few(n, k) are of the row, unless they say of what else.
        value = re.sub(r"\bh\((\d+)\)", r"h(i, \1)", value)
        value = re.sub(r"\bfew\((\d+),([^,()]+)\)", r"few(i, \1,\2)", value)
        yield f"({value})::{kind} AS {name.lower()}"


def generate(rows, path):
    """Always the same file, as long as DuckDB's hash stays what it is."""
    database = duckdb.connect()
    database.execute("CREATE MACRO h(i, n) AS (hash(hash(i, n)) >> 1)::BIGINT")
    # Below k, and small ones are frequent.
    database.execute("CREATE MACRO few(i, n, k) AS "
                     "floor(k * pow((hash(hash(i, n, 0)) >> 11) / 9007199254740992.0, 3))::INT")
    database.execute(f"COPY (SELECT {', '.join(columns(rows))} FROM ({COMMON.format(rows=rows)})) "
                     f"TO '{path}' (FORMAT parquet, COMPRESSION zstd)")


def file(bench):
    """hits.parquet of --rows rows; stays in the cache for the next run."""
    rows = bench.options.rows
    path = bench.cache / "data" / "hits" / f"{rows}.parquet"
    if not path.exists():
        print(f"generating hits with {rows:,} rows", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        generate(rows, unfinished)
        unfinished.rename(path)
    return path

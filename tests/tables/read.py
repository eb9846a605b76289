"""Writes tables through a daemon, and reads each state of them with pyiceberg as well.

The third argument, if there is one, are pyiceberg's properties of the store as JSON.
"""

import json
import os
import re
import sys

# Or it warns that a planner of its own is not installed.
os.environ["POLARS_ICEBERG_PLANNER"] = "pyiceberg"

import polars
import psycopg
from pyarrow import parquet
from pyiceberg.expressions import EqualTo
from pyiceberg.table import StaticTable

host, port = sys.argv[1:3]
properties = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
oribi = psycopg.connect(f"host={host} port={port} user=oribi dbname=oribi", autocommit=True)
states = 0


def metadata(table):
    options = oribi.execute(
        "SELECT reloptions FROM pg_class WHERE oid = %s::regclass", [table]
    ).fetchone()[0]
    return next(o.removeprefix("metadata=") for o in options if o.startswith("metadata="))


def plain(row):
    # Time zones of the same moment are written in two ways.
    return re.sub(r"tzinfo=[^)]*\)?\)", "tz)", repr(row))


def agree(table):
    global states
    ours = sorted(plain(row) for row in oribi.execute(f"SELECT * FROM {table}").fetchall())
    other = StaticTable.from_metadata(metadata(table), properties)
    theirs = sorted(plain(tuple(row.values())) for row in other.scan().to_arrow().to_pylist())
    assert ours == theirs, f"{table}:\n{ours}\n{theirs}"
    if not properties:
        # Polars reads the files by itself; moments and UUIDs it writes in another way.
        names = [f.name for f in other.schema().fields if f.name not in ("at", "u", "a", "a.element")]
        frame = polars.scan_iceberg(other, reader_override="native").select(names).collect()
        theirs = [tuple(row[n] for n in names) for row in other.scan().to_arrow().to_pylist()]
        assert sorted(map(repr, frame.rows())) == sorted(map(repr, theirs)), f"{table}: {frame}"
    states += 1
    return other


oribi.execute(
    """CREATE TABLE p (id bigint NOT NULL, d date, at timestamptz, t timestamp, n numeric(20, 4),
        s text, b bytea, u uuid, f float8, r real, x boolean, i int, tm time, a text[])
    PARTITIONED BY (day(at), bucket(4, id), s)
    WITH ("write.parquet.compression-codec" = 'snappy')"""
)
agree("p")
oribi.execute(
    """INSERT INTO p SELECT i, date '2020-01-01', to_timestamp(1704067200 + i * 25200),
        to_timestamp(-3600 + i * 3600)::timestamp, i * 1.5, 's/ %ö' || i % 3, ('b' || i)::bytea,
        ('00000000-0000-0000-0000-0000000000' || lpad((i % 100)::text, 2, '0'))::uuid, i / 3.0,
        i * 0.5, i % 2 = 0, i, time '10:00', ARRAY['a', NULL]
    FROM generate_series(0, 20) AS g (i)"""
)
agree("p")
oribi.execute("INSERT INTO p (id) VALUES (1000)")
agree("p")
oribi.execute("DELETE FROM p WHERE id % 5 = 0")
agree("p")
oribi.execute("UPDATE p SET s = 'moved', n = n + 1 WHERE id BETWEEN 3 AND 9")
agree("p")
oribi.execute("ALTER TABLE p RENAME COLUMN s TO s2")
oribi.execute("ALTER TABLE p ADD COLUMN later int")
oribi.execute("ALTER TABLE p DROP COLUMN b")
oribi.execute("ALTER TABLE p ALTER COLUMN i TYPE bigint")
agree("p")
oribi.execute("UPDATE p SET later = id WHERE id < 4")
other = agree("p")
# Their pruning finds what ours wrote.
assert other.scan(row_filter=EqualTo("id", 3)).to_arrow().num_rows == 1
assert other.scan(row_filter=EqualTo("s2", "moved")).to_arrow().num_rows == 6
with psycopg.connect(f"host={host} port={port} user=oribi dbname=oribi") as block:
    cursor = block.cursor()
    cursor.executemany("INSERT INTO p (id, s2) VALUES (%s, %s)", [(i, f"n{i}") for i in range(50, 60)])
    cursor.execute("DELETE FROM p WHERE id = 55")
agree("p")
oribi.execute("CREATE TABLE copied AS SELECT * FROM p")
agree("copied")
oribi.execute("TRUNCATE p")
agree("p")
oribi.execute(
    "CREATE TABLE ordered (id bigint, s text) PARTITIONED BY (bucket(2, s)) SORTED BY (id DESC)"
)
oribi.execute(
    "INSERT INTO ordered SELECT i * 7919 % 1000, 's' || i % 5 FROM generate_series(1, 1000) AS g (i)"
)
oribi.execute("UPDATE ordered SET id = id + 1 WHERE id % 10 = 0")


def is_ordered():
    """How many files there are, each ordered, and how many partitions."""
    ordered = agree("ordered")
    tasks = list(ordered.scan().plan_files())
    for task in tasks:
        assert task.file.sort_order_id == 1, task.file
        with ordered.io.new_input(task.file.file_path).open() as file:
            ids = parquet.read_table(file)["id"].to_pylist()
        assert ids == sorted(ids, reverse=True), task.file.file_path
    return len(tasks), len({repr(task.file.partition) for task in tasks})


is_ordered()
# Compaction keeps the order, the rows and what others can read.
for n in range(6):
    oribi.execute(
        f"INSERT INTO ordered SELECT i * 7919 % 1000 + {n}, 's' || i % 5"
        " FROM generate_series(1, 100) AS g (i)"
    )
before = oribi.execute("SELECT count(*), sum(id) FROM ordered").fetchone()
files, partitions = is_ordered()
assert files > 6 * partitions > 6, (files, partitions)
oribi.execute("OPTIMIZE ordered")
assert is_ordered() == (partitions, partitions)
oribi.execute("VACUUM ordered RETAIN '0s'")
assert is_ordered() == (partitions, partitions)
assert oribi.execute("SELECT count(*), sum(id) FROM ordered").fetchone() == before
print(f"{states} states agree")

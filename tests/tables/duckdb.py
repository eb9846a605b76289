"""Writes tables through a daemon with psql, and reads each state of them with DuckDB's iceberg extension
as well: duckdb.py HOST PORT"""

import pathlib
import subprocess
import sys

# The names of other scripts here are those of packages.
sys.path.pop(0)

import duckdb
import duckdb_extension_avro as avro
import duckdb_extension_iceberg as iceberg

HOST, PORT = sys.argv[1:]
states = 0

# The files that the packages ship: DuckDB downloads nothing.
reader = duckdb.connect(config={"autoinstall_known_extensions": False,
                                "autoload_known_extensions": False})
for package in (avro, iceberg):
    (file,) = pathlib.Path(package.__file__).parent.glob("extensions/*/*.duckdb_extension")
    reader.execute(f"LOAD '{file}'")
reader.execute("SET TimeZone = 'UTC'")


def oribi(*statements):
    commands = [part for statement in statements for part in ("-c", statement)]
    done = subprocess.run(
        ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", HOST, "-p", PORT, "-U", "oribi", *commands],
        capture_output=True, text=True, env={"PGTZ": "UTC", "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, f"{statements}: {done.stderr}"
    return done.stdout.strip()


def metadata(table):
    options = oribi(f"SELECT unnest(reloptions) FROM pg_class WHERE oid = '{table}'::regclass")
    return next(o.removeprefix("metadata=") for o in options.splitlines() if o.startswith("metadata="))


def agree(table, columns, where="true"):
    """Both give the same rows, columns being expressions that both write in the same way."""
    global states
    theirs = reader.execute(f"SELECT {columns} FROM iceberg_scan('{metadata(table)}') "
                            f"WHERE {where}").fetchall()
    text = ["" if value is None else str(value) for row in theirs for value in row]
    width = len(theirs[0]) if theirs else 1
    theirs = sorted("|".join(text[at:at + width]) for at in range(0, len(text), width))
    ours = sorted(oribi(f"SELECT {columns} FROM {table} WHERE {where}").splitlines())
    assert ours == theirs, f"{table} where {where}:\n{ours}\n{theirs}"
    states += 1
    return len(ours)


COLUMNS = ("id, CAST(d AS text), CAST(t AS text), n, s, CAST(u AS text), "
           "CAST(x AS int), i, CAST(f * 1000 AS bigint), CAST(date_part('epoch', moment) AS bigint)")


def write(table, partitioning):
    oribi(f"""CREATE TABLE {table} (id bigint NOT NULL, d date, moment timestamptz, t timestamp,
            n numeric(20, 4), s text, b bytea, u uuid, f float8, r real, x boolean, i int)
            {partitioning} WITH ("write.parquet.compression-codec" = 'snappy')""")
    rows = """SELECT i, date '2020-01-01' + (i % 3), to_timestamp(1704067200 + i * 25200),
        to_timestamp(-3600 + i * 3600)::timestamp, i * 1.5, 's/ %ö' || i % 3, ('b' || i)::bytea,
        ('00000000-0000-0000-0000-0000000000' || lpad((i % 100)::text, 2, '0'))::uuid, i / 4.0,
        i * 0.5, i % 2 = 0, i FROM generate_series(0, 40) AS g (i)"""
    assert agree(table, COLUMNS) == 0
    oribi(f"INSERT INTO {table} {rows}")
    assert agree(table, COLUMNS) == 41
    oribi(f"INSERT INTO {table} (id) VALUES (1000)")
    assert agree(table, COLUMNS) == 42
    oribi(f"DELETE FROM {table} WHERE id % 5 = 0 AND id < 1000")
    assert agree(table, COLUMNS) == 33
    oribi(f"UPDATE {table} SET s = 'moved', n = n + 1 WHERE id BETWEEN 3 AND 9")
    agree(table, COLUMNS)
    oribi(f"ALTER TABLE {table} RENAME COLUMN x TO renamed, ADD COLUMN later int, DROP COLUMN b",
          f"ALTER TABLE {table} ALTER COLUMN i TYPE bigint, ALTER COLUMN r TYPE float8")
    now = COLUMNS.replace("CAST(x", "CAST(renamed") + ", CAST(r * 10 AS bigint), later"
    agree(table, now)
    oribi(f"UPDATE {table} SET later = 7 WHERE id < 20",
          f"INSERT INTO {table} (id, i, later) VALUES (2000, 5000000000, 8)")
    agree(table, now)
    # Their pruning finds what ours wrote.
    assert agree(table, now, "id = 3") == 1
    assert agree(table, now, "s = 'moved'") == 6
    assert agree(table, now, "d = DATE '2020-01-02'") > 5
    assert agree(table, now, "i > 4000000000") == 1
    for n in range(6):
        oribi(f"INSERT INTO {table} (id, s, d) VALUES ({3000 + n}, 's', '2021-01-01')")
    oribi(f"OPTIMIZE {table}", f"VACUUM {table} RETAIN '0s'")
    assert agree(table, now) == 40
    oribi(f"BEGIN; DELETE FROM {table} WHERE id = 3000; INSERT INTO {table} (id) VALUES (1); COMMIT")
    assert agree(table, now) == 40


write("plain", "")
write("parted", "PARTITIONED BY (day(moment), bucket(4, id), s)")
write("by_date", "PARTITIONED BY (d, truncate(100, id))")
oribi("CREATE TABLE nested AS SELECT i, ARRAY[i, NULL, i + 1] AS a FROM generate_series(1, 5) g(i)")
agree("nested", "i")
(lists,) = reader.execute(f"SELECT list(a ORDER BY i) FROM iceberg_scan('{metadata('nested')}')").fetchone()
assert lists == [[n, None, n + 1] for n in range(1, 6)], lists
oribi("TRUNCATE plain")
agree("plain", "id")
print(f"{states} states agree")

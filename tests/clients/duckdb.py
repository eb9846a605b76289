"""DuckDB's reader of PostgreSQL, which takes rows by COPY in binary: duckdb.py HOST PORT"""

import pathlib
import sys

# The names of other scripts here are those of packages.
sys.path.pop(0)

import duckdb
import duckdb_extension_postgres_scanner as scanner

HOST, PORT = sys.argv[1:]
SERVER = f"host={HOST} port={PORT} user=oribi dbname=oribi"

# The file that the package ships: DuckDB downloads nothing.
(extension,) = pathlib.Path(scanner.__file__).parent.glob("extensions/*/*.duckdb_extension")
local = duckdb.connect(config={"autoinstall_known_extensions": False})
local.execute(f"LOAD '{extension}'")
local.execute(f"ATTACH '{SERVER}' AS far (TYPE postgres, READ_ONLY)")


def rows(sql):
    return local.execute(sql).fetchall()


tables = rows("SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'far'")
assert ("public", "people") in tables, tables
types = [(name, kind) for name, kind, *_ in rows("DESCRIBE far.people")]
assert types == [("id", "INTEGER"), ("name", "VARCHAR"), ("born", "DATE"),
                 ("height", "DECIMAL(4,2)"), ("member", "BOOLEAN")], types

people = rows("SELECT id, name, born::text, height::text, member FROM far.people ORDER BY id")
assert people == [(1, "Ann", "1990-05-17", "1.72", True), (2, "Bob", "1985-12-01", "1.80", False),
                  (3, "Zoë, Dr.", None, None, None)], people
assert rows("SELECT count(*), max(height)::text FROM far.people") == [(3, "1.80")]
assert rows("SELECT name FROM far.people WHERE born < '1990-01-01'") == [("Bob",)]
assert rows("SELECT name FROM far.tall") == [("Bob",)]
assert rows("SELECT p.name FROM far.people p JOIN (VALUES (2)) v (id) USING (id)") == [("Bob",)]

# A query that is the daemon's to plan.
query = "SELECT i::int4 AS i FROM generate_series(1, 100000) t (i)"
assert rows(f"SELECT count(*), sum(i) FROM postgres_query('far', '{query}')") \
    == [(100000, 5000050000)]
# Filters that it sends along.
local.execute("SET pg_experimental_filter_pushdown = true")
assert rows("SELECT id FROM far.people WHERE name = 'Ann'") == [(1,)]
# Snapshots of a transaction.
local.execute("BEGIN")
assert rows("SELECT count(*) FROM far.people") == [(3,)]
local.execute("COMMIT")
# A table by the older function.
scan = f"SELECT name FROM postgres_scan('{SERVER}', 'public', 'people') WHERE id = 3"
assert rows(scan) == [("Zoë, Dr.",)]
try:
    rows("SELECT * FROM postgres_query('far', 'SELECT nothing FROM people')")
    raise AssertionError("no error")
except duckdb.Error as error:
    assert "nothing" in str(error), error

"""SQLAlchemy's reflection and pandas.read_sql: pandas.py HOST PORT"""

import sys

# Not this file, which has the same name.
sys.path.pop(0)

import pandas
import sqlalchemy
from sqlalchemy import MetaData, Table, func, inspect, select, text

HOST, PORT = sys.argv[1:]
engine = sqlalchemy.create_engine(f"postgresql+psycopg://oribi@{HOST}:{PORT}/oribi")

found = inspect(engine)
assert "public" in found.get_schema_names(), found.get_schema_names()
assert "people" in found.get_table_names(), found.get_table_names()
assert "tall" in found.get_view_names(), found.get_view_names()
columns = {column["name"]: str(column["type"]) for column in found.get_columns("people")}
assert columns == {"id": "INTEGER", "name": "TEXT", "born": "DATE", "height": "NUMERIC(4, 2)",
                   "member": "BOOLEAN"}, columns
assert found.get_pk_constraint("people")["constrained_columns"] == []
assert found.get_foreign_keys("people") == [] and found.get_indexes("people") == []
assert found.has_table("people") and not found.has_table("nothing")
assert "people" in found.get_view_definition("tall")

metadata = MetaData()
metadata.reflect(engine, views=True)
assert {"people", "tall"} <= set(metadata.tables), metadata.tables.keys()
people = Table("people", MetaData(), autoload_with=engine)
assert people.c.born.comment == "the day", people.c.born.comment
with engine.connect() as connection:
    query = select(people.c.name).where(people.c.id.in_([1, 2])).order_by(people.c.id)
    assert connection.execute(query).scalars().all() == ["Ann", "Bob"]
    query = select(func.count()).select_from(people).where(people.c.height > 1.7)
    assert connection.execute(query).scalar() == 2
    assert connection.execute(text("SELECT :x + 1"), {"x": 41}).scalar() == 42

frame = pandas.read_sql("SELECT * FROM people ORDER BY id", engine)
assert list(frame.columns) == ["id", "name", "born", "height", "member"]
assert frame["id"].tolist() == [1, 2, 3] and frame["name"][1] == "Bob"
assert pandas.isna(frame["height"][2])
frame = pandas.read_sql_table("people", engine, columns=["id", "name"])
assert sorted(frame["name"]) == ["Ann", "Bob", "Zoë, Dr."]
parts = pandas.read_sql("SELECT * FROM generate_series(1, 10000) t (n)", engine, chunksize=1000)
assert sum(int(part["n"].sum()) for part in parts) == 50005000
engine.dispose()

"""Clients that make Arrow of rows: ADBC, ConnectorX, polars: columnar.py HOST PORT"""

import datetime
import struct
import sys

# The names of other scripts here are those of packages.
sys.path.pop(0)

import adbc_driver_postgresql.dbapi
import connectorx
import polars
import pyarrow

HOST, PORT = sys.argv[1:]
URI = f"postgresql://oribi@{HOST}:{PORT}/oribi"
PEOPLE = "SELECT id, name, born, height, member FROM people ORDER BY id"


def adbc():
    """COPY in binary. Its types are known by the names of their functions."""
    with adbc_driver_postgresql.dbapi.connect(URI, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(PEOPLE)
            table = cursor.fetch_arrow_table()
            # Known to fail: pg_type's typreceive is a number, so that all types are opaque and their
            # values bytes, as PostgreSQL's binary format has them.
            assert table.schema.field("id").type != pyarrow.int32(), "works now: say so"
            plain = [column.combine_chunks().storage.to_pylist() for column in table.columns]
            assert plain[0] == [number.to_bytes(4, "big") for number in (1, 2, 3)], plain
            assert plain[1] == [name.encode() for name in ("Ann", "Bob", "Zoë, Dr.")], plain
            # Days since 2000.
            born = [(datetime.date(*day) - datetime.date(2000, 1, 1)).days.to_bytes(4, "big", signed=True)
                    for day in ((1990, 5, 17), (1985, 12, 1))]
            assert plain[2] == [*born, None], plain
            # Digits, weight, sign, scale; then the digits in base 10,000.
            heights = [struct.pack("!hhHhhh", 2, 0, 0, 2, 1, digits) for digits in (7200, 8000)]
            assert plain[3] == [*heights, None], plain
            assert plain[4] == [b"\1", b"\0", None], plain
            cursor.execute("SELECT i::int4 AS i FROM generate_series(1, 100000) t (i)")
            batches = [batch.column(0).storage for batch in cursor.fetch_record_batch()]
            numbers = [int.from_bytes(value.as_py(), "big") for batch in batches for value in batch]
            assert sorted(numbers) == list(range(1, 100001)), numbers[:10]
            try:
                cursor.execute("SELECT nothing FROM people")
                raise AssertionError("no error")
            except adbc_driver_postgresql.dbapi.ProgrammingError as error:
                assert error.sqlstate == "42703", error
        schema = connection.adbc_get_table_schema("people")
        assert schema.names == ["id", "name", "born", "height", "member"], schema


def connector_x():
    frame = connectorx.read_sql(URI, PEOPLE, return_type="arrow")
    born = [datetime.date(1990, 5, 17), datetime.date(1985, 12, 1), None]
    expected = {"id": [1, 2, 3], "name": ["Ann", "Bob", "Zoë, Dr."], "born": born,
                "height": [1.72, 1.8, None], "member": [True, False, None]}
    found = {name: frame[name].to_pylist() for name in expected}
    found["height"] = [height and float(height) for height in found["height"]]
    assert found == expected, frame
    for protocol in ("binary", "csv", "cursor", "simple"):
        frame = connectorx.read_sql(URI, "SELECT id, name FROM people ORDER BY id",
                                    protocol=protocol, return_type="arrow")
        assert frame["id"].to_pylist() == [1, 2, 3], (protocol, frame)
    frame = connectorx.read_sql(URI, "SELECT id, name FROM people", partition_on="id",
                                partition_num=2, return_type="arrow")
    assert sorted(frame["id"].to_pylist()) == [1, 2, 3], frame


def polars_frames():
    for engine in ("connectorx",):
        frame = polars.read_database_uri(PEOPLE, URI, engine=engine)
        assert frame["name"].to_list() == ["Ann", "Bob", "Zoë, Dr."], (engine, frame)
        assert frame["member"].to_list() == [True, False, None], (engine, frame)


adbc()
connector_x()
polars_frames()

"""asyncpg: asyncpg.py HOST PORT"""

import asyncio
import datetime
import decimal
import io
import sys
import uuid

# Not this file, which has the same name.
sys.path.pop(0)

import asyncpg

HOST, PORT = sys.argv[1:]


async def copies_in(connection):
    """Rows into a table; what fails leaves nothing."""
    await connection.execute("CREATE SCHEMA asyncpg_copied")
    await connection.execute("CREATE TABLE asyncpg_copied.t (id int, name text, at timestamptz)")
    moment = datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=datetime.timezone.utc)
    rows = [(1, "one", moment), (2, None, None)]
    place = {"table_name": "t", "schema_name": "asyncpg_copied"}
    # In binary.
    tag = await connection.copy_records_to_table(records=rows, **place)
    assert tag == "COPY 2", tag
    tag = await connection.copy_to_table(source=io.BytesIO(b"id;name\n3;three\n"), **place,
                                         columns=["id", "name"], format="csv", header=True,
                                         delimiter=";")
    assert tag == "COPY 1", tag
    tag = await connection.copy_to_table(source=io.BytesIO(b"4\tfour\t\\N\n"), **place)
    assert tag == "COPY 1", tag
    try:
        await connection.copy_to_table(source=io.BytesIO(b"5\tfive\t\\N\n6"), **place)
        raise AssertionError("no error")
    except asyncpg.BadCopyFileFormatError as error:
        assert "line 2" in error.context, error.context

    async def failing():
        yield (6, "six", None)
        raise KeyError("gives up")

    for records, expected in [(failing(), KeyError), ([("x", 1, 2)], TypeError)]:
        try:
            await connection.copy_records_to_table(records=records, **place)
            raise AssertionError("no error")
        except expected:
            pass
    try:
        async with connection.transaction():
            await connection.copy_records_to_table(records=rows, **place)
            raise KeyError("rolls back")
    except KeyError:
        pass
    found = await connection.fetch("SELECT * FROM asyncpg_copied.t ORDER BY id")
    found = [tuple(row) for row in found]
    assert found == [*rows, (3, "three", None), (4, "four", None)], found
    await connection.execute("DROP TABLE asyncpg_copied.t PURGE")
    await connection.execute("DROP SCHEMA asyncpg_copied")


async def main():
    connection = await asyncpg.connect(host=HOST, port=int(PORT), user="oribi", database="oribi")
    rows = await connection.fetch(
        "SELECT id, name, born, height, member FROM people WHERE id <> $1 ORDER BY id", 2)
    assert tuple(rows[0]) == (1, "Ann", datetime.date(1990, 5, 17), decimal.Decimal("1.72"),
                              True), rows
    assert tuple(rows[1]) == (3, "Zoë, Dr.", None, None, None), rows
    wrong = []
    for kind, value in [("int", 7), ("bigint", 2**40), ("text", "it's"), ("float8", 1.25),
                        ("boolean", True), ("date", datetime.date(2024, 2, 29)),
                        ("timestamp", datetime.datetime(2024, 2, 29, 1, 2, 3, 4)),
                        ("numeric", decimal.Decimal("12.5")), ("bytea", b"\x00\xff"),
                        ("int[]", [1, None, 3]), ("text[]", ["a", "b"]),
                        ("uuid", uuid.uuid4()), ("json", '{"a": 1}'),
                        ("interval", datetime.timedelta(days=1, seconds=2))]:
        try:
            got = await connection.fetchval(f"SELECT $1::{kind}", value)
            nothing = await connection.fetchval(f"SELECT $1::{kind}", None)
        except Exception as error:
            wrong.append((kind, value, error))
        else:
            if got != value or nothing is not None:
                wrong.append((kind, value, got, nothing))
    assert not wrong, wrong
    statement = await connection.prepare("SELECT name FROM people WHERE id = $1")
    assert [p.name for p in statement.get_parameters()] == ["int4"], statement.get_parameters()
    assert [a.name for a in statement.get_attributes()] == ["name"]
    assert await statement.fetchval(1) == "Ann" and await statement.fetchval(2) == "Bob"
    copied = io.BytesIO()
    tag = await connection.copy_from_query("SELECT name, id FROM people WHERE id <> $1 ORDER BY id",
                                           2, output=copied, format="csv", header=True)
    assert tag == "COPY 2", tag
    assert copied.getvalue().decode() == 'name,id\nAnn,1\n"Zoë, Dr.",3\n', copied.getvalue()
    copied = io.BytesIO()
    tag = await connection.copy_from_table("people", columns=["id"], output=copied, format="binary")
    assert tag == "COPY 3" and copied.getvalue()[:6] == b"PGCOPY", copied.getvalue()
    try:
        await connection.copy_to_table("people", source=io.BytesIO(b"1\tx\n"))
        raise AssertionError("no error")
    except asyncpg.FeatureNotSupportedError:
        pass
    await copies_in(connection)
    async with connection.transaction(readonly=True):
        total = 0
        async for row in connection.cursor("SELECT * FROM generate_series(1, 1000)", prefetch=64):
            total += row[0]
        assert total == 500500, total
        cursor = await connection.cursor("SELECT * FROM generate_series(1, 10)")
        assert len(await cursor.fetch(4)) == 4 and len(await cursor.fetch(100)) == 6
    try:
        await connection.fetch("SELECT nothing FROM people")
        raise AssertionError("no error")
    except asyncpg.UndefinedColumnError:
        pass
    try:
        await connection.fetch("SELECT count(*) FROM generate_series(1, 1000000000000)",
                               timeout=0.5)
        raise AssertionError("no timeout")
    except asyncio.TimeoutError:
        pass  # it has sent a cancel request
    assert await connection.fetchval("SELECT 1") == 1
    assert connection.get_server_version().major == 15
    await connection.reset()
    await connection.close()
    async with asyncpg.create_pool(host=HOST, port=int(PORT), user="oribi", database="oribi",
                                   min_size=2, max_size=4) as pool:
        answers = await asyncio.gather(*(pool.fetchval("SELECT $1::int", n) for n in range(20)))
        assert answers == list(range(20)), answers


asyncio.run(asyncio.wait_for(main(), 60))

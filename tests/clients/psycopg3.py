"""psycopg 3: psycopg3.py HOST PORT"""

import datetime
import decimal
import sys
import uuid

import psycopg
from psycopg.rows import dict_row

HOST, PORT = sys.argv[1:]
ADDRESS = dict(host=HOST, port=PORT, user="oribi", dbname="oribi", connect_timeout=30)


def texts_and_binaries(connection):
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            cursor.execute("SELECT id, name, born, height, member FROM people ORDER BY id")
            rows = cursor.fetchall()
            assert rows[0] == (1, "Ann", datetime.date(1990, 5, 17), decimal.Decimal("1.72"),
                               True), rows[0]
            assert rows[2] == (3, "Zoë, Dr.", None, None, None), rows[2]
            cursor.execute("""SELECT 1::smallint, 2::bigint, 1.5::real, 'NaN'::float8,
                TIMESTAMP '2024-01-02 03:04:05.678', TIMESTAMPTZ '2024-01-02 03:04:05+01',
                TIME '12:34:56', INTERVAL '1 day 2 hours', ARRAY[1, 2, NULL], ARRAY['a', 'b'],
                decode('00ff', 'hex'), '{"a":1}'::json, 'x'::text""")
            row = cursor.fetchone()
            assert row[:3] == (1, 2, 1.5) and row[3] != row[3], row
            assert row[4] == datetime.datetime(2024, 1, 2, 3, 4, 5, 678000), row[4]
            assert row[5].timestamp() == 1704161045, row[5]
            assert row[6:9] == (datetime.time(12, 34, 56), datetime.timedelta(1, 7200),
                                [1, 2, None]), row[6:9]
            assert row[9:] == (["a", "b"], b"\x00\xff", {"a": 1}, "x"), row[9:]


def parameters(connection):
    values = [1, -5, 2**40, 1.25, "it's", True, None, datetime.date(2024, 2, 29),
              datetime.datetime(2024, 2, 29, 1, 2, 3, 4), decimal.Decimal("12.340"),
              [1, 2, 3]]
    for value in values:
        for cursor in (connection.cursor(), connection.cursor(binary=True)):
            (got,) = cursor.execute("SELECT %s", (value,)).fetchone()
            assert got == value, (value, got)
    moment = datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=datetime.timezone.utc)
    (got,) = connection.execute("SELECT %s::timestamptz", (moment,)).fetchone()
    assert got == moment, got
    words = ["a", None, 'q"', ""]
    (got,) = connection.execute("SELECT %s::text[]", (words,)).fetchone()
    assert got == words, got
    key = uuid.uuid4()
    (got,) = connection.execute("SELECT %s::uuid", (key,)).fetchone()
    assert got == key, got
    (got,) = connection.execute("SELECT %b::bytea", (b"\x00\xff",)).fetchone()
    assert got == b"\x00\xff", got
    rows = connection.execute("SELECT name FROM people WHERE id = ANY(%s) ORDER BY id",
                              ([1, 2],)).fetchall()
    assert rows == [("Ann",), ("Bob",)], rows
    rows = connection.execute("SELECT id FROM people WHERE height > %s AND born < %s",
                              (decimal.Decimal("1.75"), datetime.date(2000, 1, 1))).fetchall()
    assert rows == [(2,)], rows
    rows = connection.execute("SELECT id FROM people WHERE name LIKE %s", ("Zo%",)).fetchall()
    assert rows == [(3,)], rows


def prepared(connection):
    for _ in range(3):
        for number, name in ((1, "Ann"), (2, "Bob")):
            row = connection.execute("SELECT name FROM people WHERE id = %s", (number,),
                                     prepare=True).fetchone()
            assert row == (name,), row
    # More texts than psycopg keeps prepared: it deallocates the oldest.
    connection.prepared_max = 3
    for number in range(10):
        row = connection.execute(f"SELECT %s::int + {number}", (1,), prepare=True).fetchone()
        assert row == (number + 1,), row


def pipeline(connection):
    with connection.pipeline() as pipe:
        cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(50)]
        pipe.sync()
        assert [c.fetchone()[0] for c in cursors] == list(range(50))
    try:
        with connection.pipeline():
            first = connection.execute("SELECT 1")
            connection.execute("SELECT nothing")
            connection.execute("SELECT 3")
        raise AssertionError("the error was lost")
    except psycopg.errors.UndefinedColumn:
        assert first.fetchone() == (1,)
    assert connection.execute("SELECT 4").fetchone() == (4,)


def blocks(connection):
    """autocommit off: every statement is in a block."""
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    connection.execute("SELECT 1")
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    try:
        connection.execute("SELECT 1 / 0")
        raise AssertionError("no error")
    except psycopg.errors.DivisionByZero:
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
    try:
        connection.execute("SELECT 1")
        raise AssertionError("no error")
    except psycopg.errors.InFailedSqlTransaction:
        connection.rollback()
    with connection.transaction():
        connection.execute("SELECT 1")
        try:
            with connection.transaction():  # a savepoint
                connection.execute("SELECT nothing")
        except psycopg.errors.UndefinedColumn:
            pass
        assert connection.execute("SELECT 2").fetchone() == (2,)
    try:
        connection.execute("SELECT 1")
        connection.execute("CREATE SCHEMA inside")
        raise AssertionError("no error")
    except psycopg.errors.FeatureNotSupported:
        connection.rollback()


def cursors(connection):
    query = "SELECT i, i::text FROM generate_series(1, 10000) t (i) WHERE i > %s ORDER BY i"
    for binary in (False, True):
        with connection.transaction(), connection.cursor("c") as cursor:
            cursor.itersize = 1000
            cursor.execute(query, (10,), binary=binary)
            rows = list(cursor)
            assert rows == [(i, str(i)) for i in range(11, 10001)], rows[:3]
    with connection.transaction(), connection.cursor("s", scrollable=True) as cursor:
        cursor.execute("SELECT i FROM generate_series(1, 10) t (i)")
        assert len(cursor.fetchall()) == 10
        cursor.scroll(2, mode="absolute")
        assert cursor.fetchmany(2) == [(3,), (4,)]
        cursor.scroll(-3)
        assert cursor.fetchone() == (2,)
    held = connection.cursor("h", withhold=True)
    with connection.transaction():
        held.execute("SELECT i FROM generate_series(1, 10) t (i)")
        assert held.fetchmany(2) == [(1,), (2,)]
    assert held.fetchmany(2) == [(3,), (4,)]
    held.close()
    assert connection.execute("SELECT count(*) FROM pg_cursors").fetchone() == (0,)


def copies(connection):
    cursor = connection.cursor()
    with cursor.copy("COPY (SELECT id, name, born, height FROM people ORDER BY id) TO STDOUT") as copy:
        rows = list(copy.rows())
    assert rows[0] == ("1", "Ann", "1990-05-17", "1.72"), rows
    assert rows[2] == ("3", "Zoë, Dr.", None, None), rows
    types = ["int4", "text", "date", "numeric", "bool"]
    with cursor.copy("COPY (SELECT * FROM people ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
        copy.set_types(types)
        rows = list(copy.rows())
    assert rows == [(1, "Ann", datetime.date(1990, 5, 17), decimal.Decimal("1.72"), True),
                    (2, "Bob", datetime.date(1985, 12, 1), decimal.Decimal("1.80"), False),
                    (3, "Zoë, Dr.", None, None, None)], rows
    with cursor.copy("COPY (SELECT 1::int WHERE false) TO STDOUT (FORMAT binary)") as copy:
        assert copy.read_row() is None
    with cursor.copy("COPY people (name, id) TO STDOUT (FORMAT csv, HEADER)") as copy:
        text = b"".join(copy).decode()
    assert text == 'name,id\nAnn,1\nBob,2\n"Zoë, Dr.",3\n', text
    for sql, error in [("COPY tall TO STDOUT", psycopg.errors.WrongObjectType),
                       ("COPY (SELECT 1 / (id - 3) FROM people) TO STDOUT",
                        psycopg.errors.DivisionByZero),
                       ("COPY people FROM STDIN", psycopg.errors.FeatureNotSupported)]:
        try:
            with cursor.copy(sql) as copy:
                list(copy)
            raise AssertionError(f"no error: {sql}")
        except error:
            pass
    try:
        with cursor.copy("COPY (SELECT * FROM generate_series(1, 1000000000)) TO STDOUT") as copy:
            assert copy.read_row() == ("1",)
            raise KeyError("the driver cancels the rest")
    except KeyError:
        pass
    assert connection.execute("SELECT 1").fetchone() == (1,)


def copies_in(connection):
    """Rows into a table, as text, CSV and binary; what fails leaves nothing."""
    connection.execute("CREATE SCHEMA psycopg3_copied")
    connection.execute("CREATE TABLE psycopg3_copied.t (id int, name text, born date)")
    rows = [(1, "tab\there", datetime.date(2024, 2, 29)), (2, None, None)]
    copy_in = "COPY psycopg3_copied.t FROM STDIN"
    cursor = connection.cursor()
    with cursor.copy(copy_in) as copy:
        for row in rows:
            copy.write_row(row)
    assert cursor.rowcount == 2, cursor.rowcount
    with cursor.copy(copy_in + " (FORMAT binary)") as copy:
        copy.set_types(["int4", "text", "date"])
        for row in rows:
            copy.write_row(row)
    with cursor.copy(copy_in + " (FORMAT csv, HEADER)") as copy:
        copy.write("id,name,born\n1,\"tab\there\",")
        copy.write("2024-02-29\n2,,\n")
    found = cursor.execute("SELECT * FROM psycopg3_copied.t ORDER BY id").fetchall()
    assert found == [rows[0]] * 3 + [rows[1]] * 3, found
    # An exception of the client's own is a CopyFail.
    try:
        with cursor.copy(copy_in) as copy:
            copy.write_row(rows[0])
            raise KeyError("gives up")
    except KeyError:
        pass
    try:
        with cursor.copy(copy_in) as copy:
            copy.write("1\tx\t\\N\n2\ty\n")
        raise AssertionError("no error")
    except psycopg.errors.BadCopyFileFormat as error:
        assert error.diag.context == 'COPY t, line 2: "2\ty"', error.diag.context
    try:
        with connection.transaction():
            with cursor.copy(copy_in) as copy:
                copy.write_row(rows[0])
            raise KeyError("rolls back")
    except KeyError:
        pass
    (count,) = cursor.execute("SELECT count(*) FROM psycopg3_copied.t").fetchone()
    assert count == 6, count
    connection.execute("DROP TABLE psycopg3_copied.t PURGE")
    connection.execute("DROP SCHEMA psycopg3_copied")


def rest(connection):
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("SELECT id AS key, name FROM people WHERE id = 1").fetchone()
        assert row == {"key": 1, "name": "Ann"}, row
        types = [column.type_display for column in cursor.description]
        assert types == ["int4", "text"], types
    rows = connection.cursor()
    rows.executemany("SELECT %s::int", [(1,), (2,)], returning=True)
    assert rows.fetchone() == (1,) and rows.nextset() and rows.fetchone() == (2,)
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.sqlstate))
    connection.execute("COMMIT")
    assert notices == ["25P01"], notices
    seen = 0
    for (number,) in connection.cursor().stream("SELECT * FROM generate_series(1, 100000)"):
        seen += number
    assert seen == 5000050000, seen


def returning(connection):
    """Rows of what is written: one by one, many at once, in a block."""
    connection.execute("CREATE SCHEMA psycopg3_written")
    connection.execute("CREATE TABLE psycopg3_written.t (id int, name text DEFAULT 'none')")
    insert = "INSERT INTO psycopg3_written.t (id) VALUES (%s) RETURNING id, name"
    for prepare in (False, True, True):
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            assert cursor.execute(insert, (1,), prepare=prepare).fetchall() == [(1, "none")]
            assert cursor.rowcount == 1 and cursor.statusmessage == "INSERT 0 1"
    cursor = connection.cursor()
    cursor.executemany(insert, [(2,), (3,)], returning=True)
    assert cursor.fetchone() == (2, "none") and cursor.nextset()
    assert cursor.fetchone() == (3, "none")
    cursor.execute("UPDATE psycopg3_written.t SET name = %s WHERE id > 1 RETURNING id", ("x",))
    assert sorted(cursor.fetchall()) == [(2,), (3,)] and cursor.statusmessage == "UPDATE 2"
    try:
        with connection.transaction():
            cursor.execute("DELETE FROM psycopg3_written.t RETURNING *")
            assert len(cursor.fetchall()) == 8
            raise KeyError("undone")
    except KeyError:
        pass
    merge = """MERGE INTO psycopg3_written.t USING (SELECT %s::int AS id) s ON t.id = s.id
               WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)"""
    assert connection.execute(merge, (9,)).statusmessage == "MERGE 1"
    assert connection.execute(merge, (1,), prepare=True).rowcount == 6
    (count,) = connection.execute("SELECT count(*) FROM psycopg3_written.t").fetchone()
    assert count == 3, count
    connection.execute("DROP TABLE psycopg3_written.t PURGE")
    connection.execute("DROP SCHEMA psycopg3_written")


def main():
    with psycopg.connect(**ADDRESS, autocommit=True) as connection:
        assert connection.info.server_version // 10000 == 15, connection.info.server_version
        assert connection.info.encoding == "utf-8"
        for part in (texts_and_binaries, parameters, prepared, pipeline, cursors, copies,
                     copies_in, returning, rest):
            part(connection)
    with psycopg.connect(**ADDRESS) as connection:
        blocks(connection)
        connection.rollback()
    with psycopg.connect(**ADDRESS, options="-c TimeZone=Europe/Vienna") as connection:
        assert str(connection.info.timezone) == "Europe/Vienna"


main()

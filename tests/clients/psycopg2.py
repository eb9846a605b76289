"""psycopg 2: psycopg2.py HOST PORT"""

import datetime
import decimal
import sys

# Not this file, which has the same name.
sys.path.pop(0)

import psycopg2
import psycopg2.errors
import psycopg2.extras

HOST, PORT = sys.argv[1:]
connection = psycopg2.connect(host=HOST, port=PORT, user="oribi", dbname="oribi")
with connection, connection.cursor() as cursor:
    cursor.execute("SELECT id, name, born, height, member FROM people ORDER BY id")
    rows = cursor.fetchall()
    assert rows[0] == (1, "Ann", datetime.date(1990, 5, 17), decimal.Decimal("1.72"), True), rows
    assert rows[2] == (3, "Zoë, Dr.", None, None, None), rows
    assert [column.name for column in cursor.description][:2] == ["id", "name"]
    cursor.execute("SELECT name FROM people WHERE id IN %s AND name <> %s ORDER BY 1",
                   ((1, 2), "it's"))
    assert cursor.fetchall() == [("Ann",), ("Bob",)]
    cursor.execute("SELECT %s, %s, %s, %s", (1.5, None, datetime.date(2024, 2, 29), [1, 2]))
    row = cursor.fetchone()
    assert float(row[0]) == 1.5 and row[1:] == (None, datetime.date(2024, 2, 29), [1, 2]), row
try:
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT nothing FROM people")
    raise AssertionError("no error")
except psycopg2.errors.UndefinedColumn as error:
    assert error.pgcode == "42703"
with connection, connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
    cursor.execute("SELECT id FROM people WHERE id = 1")
    assert cursor.fetchone() == {"id": 1}
connection.set_session(readonly=True, autocommit=True)
with connection.cursor() as cursor:
    cursor.execute("SELECT count(*) FROM people")
    assert cursor.fetchone() == (3,)
connection.close()

"""pg8000, written in Python alone: pg8000.py HOST PORT"""

import datetime
import decimal
import sys

# Not this file, which has the same name.
sys.path.pop(0)

import pg8000.dbapi
import pg8000.native

HOST, PORT = sys.argv[1:]
ADDRESS = dict(host=HOST, port=int(PORT), user="oribi", database="oribi")
with pg8000.native.Connection(**ADDRESS) as connection:
    rows = connection.run("SELECT id, name, born, height, member FROM people ORDER BY id")
    assert rows[0] == [1, "Ann", datetime.date(1990, 5, 17), decimal.Decimal("1.72"), True], rows
    assert rows[2] == [3, "Zoë, Dr.", None, None, None], rows
    assert [column["name"] for column in connection.columns][:2] == ["id", "name"]
    rows = connection.run("SELECT name FROM people WHERE id = :id", id=2)
    assert rows == [["Bob"]], rows
    statement = connection.prepare("SELECT CAST(:x AS int) + 1")
    assert statement.run(x=1) == [[2]] and statement.run(x=41) == [[42]]
    statement.close()
    try:
        connection.run("SELECT nothing FROM people")
        raise AssertionError("no error")
    except pg8000.native.DatabaseError as error:
        assert error.args[0]["C"] == "42703", error
connection = pg8000.dbapi.connect(**ADDRESS)
cursor = connection.cursor()
cursor.execute("SELECT name FROM people WHERE id = %s", (1,))
assert cursor.fetchone() == ["Ann"] or cursor.fetchone() == ("Ann",)
connection.commit()
connection.close()

"""The cases of values.tsv through every Python driver: values.py HOST PORT"""

import asyncio
import datetime
import decimal
import json
import pathlib
import sys
import uuid

# The names of other scripts here are those of packages.
sys.path.pop(0)

import asyncpg
import pg8000.dbapi
import psycopg
import psycopg.types.json
import psycopg2
import psycopg2.extras

HOST, PORT = sys.argv[1], int(sys.argv[2])
WHO = dict(host=HOST, port=PORT, user="oribi")


def interval(text):
    days, clock = text.split(" day ")
    hours, minutes, seconds = map(int, clock.split(":"))
    return datetime.timedelta(int(days), hours * 3600 + minutes * 60 + seconds)


READ = {
    "int2": int, "int4": int, "int8": int, "float4": float, "float8": float,
    "bool": lambda text: text == "true", "text": str, "numeric": decimal.Decimal,
    "date": datetime.date.fromisoformat, "time": datetime.time.fromisoformat,
    "timestamp": datetime.datetime.fromisoformat, "timestamptz": datetime.datetime.fromisoformat,
    "interval": interval, "uuid": uuid.UUID, "bytea": bytes.fromhex, "json": json.loads,
    "jsonb": json.loads,
}


def cases():
    for line in pathlib.Path(__file__).with_suffix(".tsv").read_text().splitlines():
        if not line.startswith("#"):
            kind, text, fails = (line.split("\t") + ["", ""])[:3]
            base = kind.partition("(")[0]
            value = json.loads(text) if base.endswith("[]") else READ[base](text)
            yield kind, value, dict(part.split(": ", 1) for part in fails.split("; ") if part)


wrong = []


def compare(driver, ask, send=lambda kind, value: value):
    """Each value and NULL, there and back."""
    for kind, value, fails in cases():
        try:
            got = (ask(kind, send(kind, value)), ask(kind, None))
            outcome = None if got == (value, None) else f"{got[0]!r} instead of {value!r}, {got[1]}"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        if outcome and driver not in fails:
            wrong.append(f"{driver}, {kind}: {outcome}")
        elif not outcome and driver in fails:
            wrong.append(f"{driver}, {kind}: works now, say so")


def psycopg_value(module):
    return lambda kind, value: module.Json(value) if kind.startswith("json") else value


with psycopg.connect(**WHO, dbname="oribi", autocommit=True) as connection:
    for binary in (False, True):
        mark = "%b" if binary else "%t"
        compare(f"psycopg3 {'binary' if binary else 'text'}",
                lambda kind, value: connection.execute(f"SELECT {mark}::{kind}", (value,),
                                                       binary=binary).fetchone()[0],
                psycopg_value(psycopg.types.json))

connection = psycopg2.connect(**WHO, dbname="oribi")
connection.autocommit = True
psycopg2.extras.register_uuid()


def psycopg2_ask(kind, value):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT %s::{kind}", (value,))
        (got,) = cursor.fetchone()
        return bytes(got) if isinstance(got, memoryview) else got


compare("psycopg2", psycopg2_ask, psycopg_value(psycopg2.extras))
connection.close()

connection = pg8000.dbapi.connect(**WHO, database="oribi")


def pg8000_ask(kind, value):
    cursor = connection.cursor()
    try:
        cursor.execute(f"SELECT CAST(%s AS {kind})", (value,))
        (got,) = cursor.fetchone()
        return got
    except Exception:
        connection.rollback()
        raise


compare("pg8000", pg8000_ask,
        lambda kind, value: json.dumps(value) if kind.startswith("json") else value)
connection.close()


async def asyncpg_cases():
    connection = await asyncpg.connect(**WHO, database="oribi")
    for kind, value, fails in cases():
        try:
            sent = json.dumps(value) if kind.startswith("json") else value
            got = await connection.fetchval(f"SELECT $1::{kind}", sent)
            nothing = await connection.fetchval(f"SELECT $1::{kind}", None)
            right = (json.loads(got) if kind.startswith("json") else got) == value
            outcome = None if right and nothing is None else f"{got!r} instead of {value!r}"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        if bool(outcome) != ("asyncpg" in fails):
            wrong.append(f"asyncpg, {kind}: {outcome}")
    await connection.close()


asyncio.run(asyncpg_cases())
assert not wrong, "\n" + "\n".join(wrong)

"""Runs expect.json against a daemon and compares: check.py [--host H] [--port P] DIR [-k TEXT]

Prints each failure with what was expected and what came, then `N passed, N failed`; exits 1 when
something failed. -k keeps the entries whose name holds TEXT. Needs psycopg 3.
"""

import argparse
import json
import re
import sys
from datetime import datetime
from pathlib import Path

import psycopg

# Longer values are cut in reports of failures.
SHOWN = 600


class Failure(Exception):
    """What was expected, and what came instead."""


def connect(options):
    """A connection on which nothing runs for ever."""
    connection = psycopg.connect(host=options.host, port=options.port, user=options.user,
                                 dbname=options.database, autocommit=True, connect_timeout=10,
                                 client_encoding="UTF8")
    run(connection, "SET statement_timeout = '60s'")
    return connection


def error_text(result):
    """What the server says, without the line of SQL that libpq repeats: that one names any file."""
    field = psycopg.pq.DiagnosticField
    parts = (result.error_field(part) for part in (field.SQLSTATE, field.MESSAGE_PRIMARY,
                                                   field.MESSAGE_DETAIL, field.MESSAGE_HINT,
                                                   field.CONTEXT))
    return " ".join(part.decode() for part in parts if part)


def run(connection, sql):
    """The rows of a simple query as the server's texts: psycopg's own conversions are bypassed."""
    result = connection.pgconn.exec_(sql.encode())
    if connection.pgconn.status != psycopg.pq.ConnStatus.OK:
        raise psycopg.OperationalError(result.error_message.decode().strip())
    if result.error_message:
        raise psycopg.DatabaseError(error_text(result))
    return [[None if (v := result.get_value(row, column)) is None else v.decode()
             for column in range(result.nfields)] for row in range(result.ntuples)]


def array_elements(text):
    """The elements of a one-dimensional array literal."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"|([^{},"]+)', text)
    return [re.sub(r"\\(.)", r"\1", quoted) if not bare else None if bare == "NULL" else bare
            for quoted, bare in found]


def parsed_json(text):
    """JSON, or a PostgreSQL array of JSON values, as lists of structs may come either way."""
    try:
        return json.loads(text)
    except ValueError:
        return [None if e is None else json.loads(e) for e in array_elements(text)]


def instant(text):
    return datetime.fromisoformat(re.sub(r"([+-]\d\d)$", r"\1:00", text))


def equal(kind, actual, expected):
    if actual is None or expected is None:
        return actual is expected
    if kind == "float":
        a, e = float(actual), float(expected)
        return a == e or a != a and e != e or abs(a - e) <= 1e-9 * abs(e)
    if kind == "json":
        return parsed_json(actual) == parsed_json(expected)
    if kind == "timestamptz" and actual != expected:
        return instant(actual) == instant(expected)
    return actual == expected


def compare(entry, actual):
    kinds = [kind for _, kind in entry["columns"]]
    if len(actual) != len(entry["rows"]):
        raise Failure(f"{len(entry['rows'])} rows", f"{len(actual)} rows: {actual[:5]}")
    for number, (got, wanted) in enumerate(zip(actual, entry["rows"]), 1):
        if len(got) != len(wanted) or not all(map(equal, kinds, got, wanted)):
            raise Failure(f"row {number}: {wanted}", f"row {number}: {got}")


def check(connection, entry, directory):
    """One entry; a failure is raised as Failure."""
    wanted_error = entry.get("error")
    try:
        for statement in entry["create"]:
            run(connection, statement.replace("{dir}", directory))
        actual = run(connection, entry["query"].replace("{dir}", directory))
    except psycopg.OperationalError:
        raise
    except psycopg.DatabaseError as error:
        if wanted_error and any(name in str(error) for name in wanted_error["names"]):
            return
        expected = f"an error naming {wanted_error['names']}" if wanted_error else entry["rows"]
        raise Failure(expected, error) from None
    if "rows" not in entry:
        raise Failure(f"an error naming {wanted_error['names']}", f"rows: {actual[:5]}")
    try:
        compare(entry, actual)
    except (ValueError, TypeError) as error:
        raise Failure(entry["rows"], f"{actual} ({error})") from None


def drop_tables(connection, entry):
    for statement in entry["create"]:
        table = statement.split()[3]
        try:
            run(connection, f"DROP TABLE IF EXISTS {table}")
        except psycopg.DatabaseError as error:
            print(f"note: {table} could not be dropped: {error}")


def report(entry, failure):
    expected, actual = failure.args
    print(f"FAILED {entry['name']}")
    for statement in [*entry["create"], entry["query"]]:
        print(f"    {statement[:SHOWN]}")
    print(f"  expected: {str(expected)[:SHOWN]}\n  actual:   {str(actual)[:SHOWN]}")


def main(options):
    entries = json.loads((Path(options.dir) / "expect.json").read_text())
    entries = [e for e in entries if options.keep in e["name"]]
    directory = str(Path(options.dir).resolve())
    passed = 0
    connection = connect(options)
    for entry in entries:
        if connection.closed or connection.pgconn.status != psycopg.pq.ConnStatus.OK:
            connection = connect(options)
        drop_tables(connection, entry)
        try:
            check(connection, entry, directory)
            passed += 1
        except Failure as failure:
            report(entry, failure)
        except psycopg.OperationalError as error:
            report(entry, Failure("an answer", f"connection lost: {error}"))
        drop_tables(connection, entry)
    connection.close()
    print(f"{passed} passed, {len(entries) - passed} failed")
    return 1 if passed < len(entries) or not entries else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5439)
    parser.add_argument("--user", default="oribi")
    parser.add_argument("--database", default="oribi")
    parser.add_argument("-k", dest="keep", default="", help="only entries whose name holds this")
    parser.add_argument("dir")
    sys.exit(main(parser.parse_args()))

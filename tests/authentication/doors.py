"""Clients of Python at a door with TLS: passwords, bound to the connection where a client can, and
certificates: doors.py CLIENT HOST PORT PASSWORD DIRECTORY"""

import asyncio
import ssl
import sys

CLIENT, HOST, PORT, PASSWORD, DIRECTORY = sys.argv[1:]
CA = f"{DIRECTORY}/ca.pem"


def identity(name):
    return f"{DIRECTORY}/{name}.pem", f"{DIRECTORY}/{name}.key"


def context(name=None):
    made = ssl.create_default_context(cafile=CA)
    if name:
        made.load_cert_chain(*identity(name))
    return made


def refused(call, words):
    try:
        call()
    except Exception as error:
        assert words in str(error), error
    else:
        raise AssertionError("came in")


def libpq(log_in):
    """Clients that are libpq: what it is told stands in its own words."""
    def address(user, password=None, name=None, more=""):
        text = f"host={HOST} port={PORT} dbname=oribi user={user} sslmode=verify-full " \
               f"sslrootcert={CA} connect_timeout=30 {more}"
        certificate, key = identity(name or "none")
        secret = f" password='{password}'" if password else ""
        return f"{text} sslcert={certificate} sslkey={key}{secret}"

    assert log_in(address("alice", PASSWORD, more="channel_binding=require")) == "alice"
    assert log_in(address("certain", name="certain")) == "certain"
    refused(lambda: log_in(address("alice", "wrong")), "password authentication failed")
    refused(lambda: log_in(address("certain", name="moved")), "certificate authentication failed")


def psycopg2():
    import psycopg2

    def log_in(address):
        with psycopg2.connect(address) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT session_user")
            return cursor.fetchone()[0]

    libpq(log_in)


def adbc():
    import adbc_driver_postgresql.dbapi

    def log_in(address):
        with adbc_driver_postgresql.dbapi.connect(address) as connection:
            with connection.cursor() as cursor:
                # Texts come as bytes: see tests/clients/columnar.py.
                cursor.execute("SELECT session_user::text")
                return bytes(cursor.fetchone()[0]).decode()

    libpq(log_in)


def duckdb():
    import pathlib

    sys.path.pop(0)
    import duckdb
    import duckdb_extension_postgres_scanner as scanner

    (extension,) = pathlib.Path(scanner.__file__).parent.glob("extensions/*/*.duckdb_extension")

    def log_in(address):
        local = duckdb.connect(config={"autoinstall_known_extensions": False})
        local.execute(f"LOAD '{extension}'")
        quoted = address.replace("'", "''")
        local.execute(f"ATTACH '{quoted}' AS far (TYPE postgres, READ_ONLY)")
        query = "SELECT session_user::text"
        return local.execute(f"SELECT * FROM postgres_query('far', '{query}')").fetchone()[0]

    libpq(log_in)


def asyncpg():
    sys.path.pop(0)
    import asyncpg

    def log_in(user, password=None, name=None):
        async def run():
            connection = await asyncpg.connect(
                host=HOST, port=int(PORT), database="oribi", user=user, password=password,
                ssl=context(name))
            try:
                return await connection.fetchval("SELECT session_user")
            finally:
                await connection.close()
        return asyncio.run(run())

    assert log_in("alice", PASSWORD) == "alice"
    assert log_in("certain", name="certain") == "certain"
    refused(lambda: log_in("alice", "wrong"), "password authentication failed")
    refused(lambda: log_in("certain", name="moved"), "certificate authentication failed")


def pg8000():
    """It binds the password to the connection by itself."""
    import pg8000.native

    def log_in(user, password=None, name=None):
        connection = pg8000.native.Connection(
            user, host=HOST, port=int(PORT), database="oribi", password=password,
            ssl_context=context(name))
        try:
            return connection.run("SELECT session_user")[0][0]
        finally:
            connection.close()

    assert log_in("alice", PASSWORD) == "alice"
    assert log_in("certain", name="certain") == "certain"
    refused(lambda: log_in("alice", "wrong"), "password authentication failed")
    refused(lambda: log_in("certain", name="moved"), "certificate authentication failed")


globals()[CLIENT]()

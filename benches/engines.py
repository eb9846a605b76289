"""Who answers SQL over the same Parquet files: each a function from a query to its rows."""

from datetime import datetime


def oribi(bench, tables):
    """On one connection that stays open."""
    for table, path in tables.items():
        bench.oribi.define(table, path)
    connection = bench.stack.enter_context(bench.oribi.connect())
    for setting in bench.options.set:
        name, value = setting.split("=", 1)
        connection.execute(f"SET {name} = '{value}'")
    bench.report.version("oribi", bench.oribi.version())
    return lambda sql: connection.execute(sql).fetchall()


def duckdb(bench, tables):
    import duckdb
    connection = duckdb.connect()
    if limit := bench.options.memory_limit:
        connection.execute(f"SET memory_limit = '{limit}'")
        connection.execute(f"SET temp_directory = '{bench.scratch / 'duckdb-spill'}'")
    for table, path in tables.items():
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{path}')")
    bench.report.version("duckdb", duckdb.__version__)
    return lambda sql: connection.execute(sql).fetchall()


def rows_of(table):
    """Of an Arrow table."""
    return list(zip(*(column.to_pylist() for column in table.columns)))


def datafusion(bench, tables):
    import datafusion
    context = datafusion.SessionContext(
        datafusion.SessionConfig().set("datafusion.sql_parser.dialect", "postgres"))
    for table, path in tables.items():
        context.register_parquet(table, str(path))
    bench.report.version("datafusion", datafusion.__version__)
    return lambda sql: rows_of(context.sql(sql).to_arrow_table())


def without_zone(value):
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def chdb(bench, tables):
    import pyarrow as arrow
    from chdb import session
    import chdb
    connection = session.Session()
    bench.stack.callback(connection.close)
    # Without NULL where there is none it is quicker, and the port's times are without a zone.
    for setting in ("schema_inference_make_columns_nullable = 0", "session_timezone = 'UTC'"):
        connection.query(f"SET {setting}")
    connection.query("CREATE DATABASE IF NOT EXISTS bench ENGINE = Atomic")
    connection.query("USE bench")
    for table, path in tables.items():
        connection.query(f"CREATE VIEW {table} AS SELECT * FROM file('{path}', Parquet)")
    bench.report.version("chdb", chdb.__version__)

    def rows(sql):
        # Its length counts bytes, and a backslash escapes.
        sql = sql.replace("length(", "lengthUTF8(").replace("\\", "\\\\")
        answer = connection.query(sql, "ArrowStream").bytes()
        return [tuple(map(without_zone, row))
                for row in rows_of(arrow.ipc.open_stream(answer).read_all())]
    return rows


def polars(bench, tables):
    import polars
    context = polars.SQLContext()
    for table, path in tables.items():
        context.register(table, polars.scan_parquet(path))
    bench.report.version("polars", polars.__version__)
    return lambda sql: context.execute(sql, eager=True).rows()


def optional(bench, make, tables):
    """The engine, or None with a word about it where its package could not be installed."""
    try:
        return make(bench, tables)
    except ImportError as error:
        bench.report.note(f"without {make.__name__}: {error}")
        return None

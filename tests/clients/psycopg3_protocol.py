"""What libpq 18 knows beyond queries, through psycopg 3: psycopg3_protocol.py HOST PORT"""

import sys

import psycopg
from psycopg import pq

HOST, PORT = sys.argv[1:]
ADDRESS = dict(host=HOST, port=PORT, user="oribi", dbname="oribi", connect_timeout=30)


def versions():
    for options, expected in [({}, 30000), (dict(max_protocol_version="3.2"), 30002),
                              (dict(max_protocol_version="latest"), 30002),
                              (dict(min_protocol_version="3.2", max_protocol_version="3.2"), 30002)]:
        with psycopg.connect(**ADDRESS, **options) as connection:
            version = connection.pgconn.full_protocol_version
            assert version == expected, (options, version)
            assert connection.execute("SELECT 1").fetchone() == (1,)
            cancelled(connection)


def cancelled(connection):
    """With the long key of 3.2 as with the short one."""
    connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000000)")
    while connection.pgconn.flush():
        pass
    while connection.pgconn.is_busy():
        connection.cancel_safe()
        connection.pgconn.consume_input()
    states = []
    while result := connection.pgconn.get_result():
        states.append(result.error_field(pq.DiagnosticField.SQLSTATE))
    assert states == [b"57014"], states
    connection.rollback()


def encryption():
    with psycopg.connect(**ADDRESS, sslmode="prefer", gssencmode="disable") as connection:
        assert not connection.pgconn.ssl_in_use
    try:
        psycopg.connect(**ADDRESS, sslmode="require").close()
        raise AssertionError("no error")
    except psycopg.OperationalError as error:
        assert "SSL" in str(error), error


def pipeline_of_the_library():
    """Chunks of rows, and an error amid a pipeline, as libpq itself gives them."""
    with psycopg.connect(**ADDRESS, autocommit=True) as connection:
        raw = connection.pgconn
        raw.enter_pipeline_mode()
        for sql in (b"SELECT 1", b"SELECT nothing", b"SELECT 2"):
            raw.send_query_params(sql, None)
        raw.pipeline_sync()
        raw.send_query_params(b"SELECT 3", None)
        raw.pipeline_sync()
        states = []
        while states.count(pq.ExecStatus.PIPELINE_SYNC) < 2:
            if result := raw.get_result():
                states.append(result.status)
        expected = [pq.ExecStatus.TUPLES_OK, pq.ExecStatus.FATAL_ERROR,
                    pq.ExecStatus.PIPELINE_ABORTED, pq.ExecStatus.PIPELINE_SYNC,
                    pq.ExecStatus.TUPLES_OK, pq.ExecStatus.PIPELINE_SYNC]
        assert states == expected, states
        raw.exit_pipeline_mode()
        prepared = raw.prepare(b"s", b"SELECT $1::int4, $2::text AS word")
        assert prepared.status == pq.ExecStatus.COMMAND_OK, prepared.error_message
        described = raw.describe_prepared(b"s")
        assert [described.param_type(n) for n in range(described.nparams)] == [23, 25]
        assert described.fname(1) == b"word" and described.ftype(1) == 25
        closed = raw.close_prepared(b"s")
        assert closed.status == pq.ExecStatus.COMMAND_OK, closed.error_message
        raw.send_query_params(b"SELECT i::int4 FROM generate_series(1, 10) t (i)", None)
        raw.set_chunked_rows_mode(4)
        counts = []
        while result := raw.get_result():
            counts.append(result.ntuples)
        assert counts == [4, 4, 2, 0], counts


versions()
encryption()
pipeline_of_the_library()

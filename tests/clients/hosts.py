"""libpq's choice among several servers, through psycopg: hosts.py HOST PORT HOST PORT"""

import sys

import psycopg

HOSTS = f"{sys.argv[1]},{sys.argv[3]}"
PORTS = f"{sys.argv[2]},{sys.argv[4]}"
COMMON = dict(host=HOSTS, port=PORTS, user="oribi", dbname="oribi", connect_timeout=30)


def connect(**options):
    with psycopg.connect(**(COMMON | options)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        return connection.info.port


# Both daemons read and write: whoever asks for a standby gets none.
for wanted in ("any", "read-write", "primary", "prefer-standby"):
    assert connect(target_session_attrs=wanted) == int(sys.argv[2]), wanted
for wanted in ("standby", "read-only"):
    try:
        connect(target_session_attrs=wanted)
        raise AssertionError(wanted)
    except psycopg.OperationalError:
        pass
assert connect(target_session_attrs="read-only", options="-c default_transaction_read_only=on")

# Both are found when chance decides, sooner or later.
seen = set()
while len(seen) < 2:
    seen.add(connect(load_balance_hosts="random"))
assert seen == {int(sys.argv[2]), int(sys.argv[4])}, seen

# A host where nobody listens is passed by.
assert connect(host=f"127.0.0.1,{sys.argv[3]}", port=f"1,{sys.argv[4]}") == int(sys.argv[4])

"""Clients under which daemons drain, one after another: no query may be lost without a word.

Arguments: host=... port=... with several of each, and files: one that is made once the clients run,
one that ends them when it is there."""

import os
import random
import select
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psycopg

CONNINFO, RUNNING, END = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
CLIENTS = 6

seen, lock = Counter(), threading.Lock()


def note(what):
    with lock:
        seen[what] += 1


def connect():
    give_up = time.monotonic() + 60
    while True:
        try:
            return psycopg.connect(f"{CONNINFO} load_balance_hosts=random", autocommit=True)
        except psycopg.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def ask(connection):
    answer = connection.execute("SELECT 41 + 1").fetchone()
    assert answer == (42,), answer


def plain(pause):
    """Asks with the connection that it has."""
    connection = connect()
    while not END.exists():
        try:
            ask(connection)
            note("plain: answered")
        except psycopg.errors.AdminShutdown:
            note("plain: 57P01")
            connection = connect()
        time.sleep(random.random() * pause)


def pooled(pause):
    """Looks at a connection before it is used, as pools do, and asks again what was not run."""
    connection = connect()
    while not END.exists():
        if select.select([connection.fileno()], [], [], 0)[0]:
            connection.close()
            connection = connect()
            note("pooled: replaced")
        try:
            ask(connection)
        except psycopg.errors.AdminShutdown:
            note("pooled: 57P01")
            connection = connect()
            ask(connection)
        note("pooled: answered")
        time.sleep(random.random() * pause)


def main():
    failures = []

    def run(client, pause):
        try:
            client(pause)
        except BaseException as error:
            failures.append(f"{client.__name__}, pause {pause}: {type(error).__name__}: {error}")
            # The others need not go on.
            END.touch()

    threads = [threading.Thread(target=run, args=(client, pause))
               for client in (plain, pooled) for pause in (0, 0.01, 0.3)
               for _ in range(CLIENTS // 3)]
    for thread in threads:
        thread.start()
    while not (seen["plain: answered"] > 100 and seen["pooled: answered"] > 100) and not failures:
        time.sleep(0.01)
    RUNNING.touch()
    for thread in threads:
        thread.join()
    print(dict(seen), failures)
    sys.stdout.flush()
    os._exit(1 if failures else 0)


main()

"""Listeners with psycopg and asyncpg on three daemons, of which the third is killed meanwhile.

Arguments: the daemons' addresses as host:port, and two files: one that is made once notifications
arrive everywhere, one that is there once the third daemon was killed."""

import asyncio
import sys
import threading
import time
from pathlib import Path

import asyncpg
import psycopg

ADDRESSES = [address.split(":") for address in sys.argv[1:4]]
ARRIVING, KILLED = Path(sys.argv[4]), Path(sys.argv[5])
BEFORE, AFTER = 300, 300
PATIENCE = 60

heard = {name: [] for name in ("psycopg a", "asyncpg b", "psycopg c")}
failures = []


def connect(at):
    host, port = ADDRESSES[at]
    return psycopg.connect(host=host, port=port, user="oribi", dbname="oribi", autocommit=True)


def listen_psycopg(name, at, listening):
    """Gets notifications with no statement of its own."""
    connection = connect(at)
    connection.execute("LISTEN own")
    listening.set()
    try:
        for notification in connection.notifies():
            heard[name].append(notification.payload)
    except psycopg.OperationalError:
        if at != 2:
            raise


async def listen_asyncpg(name, at, listening):
    host, port = ADDRESSES[at]
    connection = await asyncpg.connect(host=host, port=port, user="oribi", database="oribi")
    await connection.add_listener("own", lambda _c, _pid, _channel, payload: heard[name].append(payload))
    listening.set()
    await asyncio.sleep(10 * PATIENCE)


def wait(what, holds):
    give_up = time.monotonic() + PATIENCE
    while not holds():
        if failures or time.monotonic() > give_up:
            raise RuntimeError(f"{what}: {[(n, len(h)) for n, h in heard.items()]} {failures}")
        time.sleep(0.01)


def send(at, halfway):
    connection = connect(at)
    for number in range(BEFORE + AFTER):
        if number == BEFORE:
            halfway.wait(PATIENCE)
        payload = f"{at} {number}"
        if number % 2:
            connection.execute("SELECT pg_notify('own', %s)", (payload,))
        else:
            with connection.transaction():
                connection.execute(f"NOTIFY own, '{payload}'")
                connection.execute(f"NOTIFY own, '{payload}'")


def guarded(function, *arguments):
    def run():
        try:
            function(*arguments)
        except BaseException as error:
            failures.append(f"{function.__name__}: {type(error).__name__}: {error}")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def main():
    listening = [threading.Event() for _ in range(3)]
    guarded(listen_psycopg, "psycopg a", 0, listening[0])
    guarded(lambda: asyncio.run(listen_asyncpg("asyncpg b", 1, listening[1])))
    guarded(listen_psycopg, "psycopg c", 2, listening[2])
    for event in listening:
        assert event.wait(PATIENCE), failures

    halfway = threading.Event()
    senders = [guarded(send, at, halfway) for at in (0, 1)]
    wait("before", lambda: all(len(payloads) == 2 * BEFORE for payloads in heard.values()))
    ARRIVING.touch()
    wait("the third daemon is killed", KILLED.exists)
    halfway.set()
    for sender in senders:
        sender.join(PATIENCE)
    survivors = {name: heard[name] for name in ("psycopg a", "asyncpg b")}
    wait("after", lambda: all(len(p) >= 2 * (BEFORE + AFTER) for p in survivors.values()))
    # What is doubled would come now.
    time.sleep(0.5)
    for name, payloads in heard.items():
        count = BEFORE if name == "psycopg c" else BEFORE + AFTER
        for at in (0, 1):
            own = [payload for payload in payloads if payload.startswith(f"{at} ")]
            expected = [f"{at} {number}" for number in range(count)]
            assert own == expected, f"{name} of {at}: {own[:5]}... {len(own)}"
    assert not failures, failures
    print("all heard, in order")


main()

"""psql's tab completion, typed into a terminal: completion.py HOST PORT"""

import os
import pty
import select
import sys
import time

HOST, PORT = sys.argv[1:]
PATIENCE = 60

pid, terminal = pty.fork()
if pid == 0:
    os.environ.update(TERM="dumb", PAGER="cat", LC_ALL="C.UTF-8")
    os.execvp("psql", ["psql", "-X", "-h", HOST, "-p", PORT, "-U", "oribi", "-d", "oribi"])


def until(text, typed):
    """Types, and reads up to where the text is shown."""
    os.write(terminal, typed.encode())
    shown, end = "", time.monotonic() + PATIENCE
    while text not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        assert ready, f"{text!r} is not in {shown!r}"
        shown += os.read(terminal, 4096).decode(errors="replace")


CLEAR = "\x15"
until("oribi=", "")
until("people ", "SELECT * FROM peo\t")
until("born", f"{CLEAR}SELECT * FROM people WHERE bo\t")
until("tall ", f"{CLEAR}\\sv ta\t")
until("public", f"{CLEAR}\\dt pub\t")
until("statement_timeout", f"{CLEAR}SHOW statement_t\t")
until("oribi ", f"{CLEAR}\\c ori\t")
os.write(terminal, f"{CLEAR}\\q\n".encode())
_, status = os.waitpid(pid, 0)
assert status == 0, status

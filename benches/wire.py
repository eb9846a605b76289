"""A client of few lines, the same for every server, so that the client's own cost is the same.

It reads into one buffer and looks only at how a message stream ends, so a million rows cost it
little more than the kernel's copy.
"""

import re
import socket
import struct

READY = b"Z\x00\x00\x00\x05"
BUFFER = 1 << 20


class WireError(OSError):
    """The server answered with an error; the message is the server's."""


def message(kind, body=b""):
    return kind + struct.pack("!i", len(body) + 4) + body


def error_in(stream):
    """The text of an ErrorResponse that the stream ends with, or None."""
    found = re.search(rb"E....S(\w+)\0.*?C(\w{5})\0M([^\0]*)\0", stream, re.S)
    return found and f"{found[2].decode()} {found[3].decode(errors='replace')}"


class Connection:
    def __init__(self, port, user, database, timeout=600):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = memoryview(bytearray(BUFFER))
        parameters = f"user\0{user}\0database\0{database}\0client_encoding\0UTF8\0\0".encode()
        self.socket.sendall(struct.pack("!ii", len(parameters) + 8, 196608) + parameters)
        self.until_ready()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def until_ready(self):
        """(bytes read, command tag) up to ReadyForQuery, which is six bytes and always the last."""
        total, end = 0, b""
        while True:
            count = self.socket.recv_into(self.buffer)
            if count == 0:
                raise WireError(error_in(end) or "connection closed")
            total += count
            # Only the end matters: the command tag and ReadyForQuery, or an error.
            end = (end + bytes(self.buffer[max(0, count - 2000):count]))[-2000:]
            if end[-6:-1] == READY and end[-1:] in (b"I", b"T", b"E"):
                break
        tag = re.search(rb"C\0\0\0.([A-Z0-9 ]+)\0Z\0\0\0\x05.$", end, re.S)
        if tag is None and (text := error_in(end)):
            raise WireError(text)
        return total, tag and tag[1].decode()

    def simple(self, sql):
        self.socket.sendall(message(b"Q", sql.encode() + b"\0"))
        return self.until_ready()

    def extended(self, sql, binary):
        """Parse, Bind, Execute without a row limit, Sync; all result columns in one format."""
        self.socket.sendall(
            message(b"P", b"\0" + sql.encode() + b"\0" + struct.pack("!h", 0))
            + message(b"B", b"\0\0" + struct.pack("!hhhh", 0, 0, 1, int(binary)))
            + message(b"E", b"\0" + struct.pack("!i", 0)) + message(b"S"))
        return self.until_ready()

"""Lines from a socket, as many at once as have come, so that who is behind does not act on each."""

from __future__ import annotations

import socket
from collections.abc import Iterator

# Bytes that are read at once, and the most that are, after which even a sender who never stops is heard.
_CHUNK, _MOST = 1 << 16, 1 << 22


def batches(sock: socket.socket) -> Iterator[list[bytes]]:
    """Waits for a line, and gives it with all that wait behind it; until the other side ends. Raises OSError."""
    rest = b""
    while data := sock.recv(_CHUNK):
        pieces, size = [rest, data], len(data)
        while size < _MOST and (data := _more(sock)):
            pieces.append(data)
            size += len(data)
        *lines, rest = b"".join(pieces).split(b"\n")
        if lines:
            yield lines


def _more(sock: socket.socket) -> bytes:
    """What is there already; nothing is also what an end looks like, which comes again."""
    try:
        return sock.recv(_CHUNK, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""

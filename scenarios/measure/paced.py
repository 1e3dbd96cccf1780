"""Asks a UDP echo server on time, whether or not it answered before; runs as a script inside a lab's place.

    paced.py ADDRESS PORT PERIOD SECONDS PATIENCE

The server is rr.py's. Prints {"samples_us": [...], "lost": N, "late_us": [...]} when SECONDS and then PATIENCE seconds
have passed, or as soon as nothing is missing. A time counts from when the question was due, so one that could not be
sent in time, because the sender itself had to wait, is as slow as it was for who asked: leaving such out is what is
called coordinated omission. late_us: by how much questions left late.
"""

from __future__ import annotations

import contextlib
import json
import select
import struct
import sys
import time
from socket import AF_INET, SO_RCVBUF, SOCK_DGRAM, SOL_SOCKET, socket

ROOM = 1 << 20


def ask(address: str, port: int, period: float, seconds: float, patience: float) -> dict[str, object]:
    """All the questions; what came of them."""
    sock = socket(AF_INET, SOCK_DGRAM)
    sock.setsockopt(SOL_SOCKET, SO_RCVBUF, ROOM)
    sock.setblocking(False)
    sock.connect((address, port))
    waiting: dict[int, float] = {}
    samples: list[float] = []
    late: list[float] = []
    began, number, count = time.monotonic(), 0, int(seconds / period)
    while number < count or (waiting and time.monotonic() < began + seconds + patience):
        due = began + number * period if number < count else began + seconds + patience
        if select.select([sock], [], [], max(0.0, due - time.monotonic()))[0]:
            with contextlib.suppress(OSError):  # nobody listens: no answer
                while True:
                    (which,) = struct.unpack("!I", sock.recv(16)[:4])
                    if which in waiting:
                        samples.append((time.monotonic() - waiting.pop(which)) * 1e6)
        now = time.monotonic()
        if number < count and now >= due:
            late.append((now - due) * 1e6)
            waiting[number] = due
            with contextlib.suppress(OSError):  # the queue is full, say: lost
                sock.send(struct.pack("!I", number))
            number += 1
    return {"samples_us": samples, "lost": len(waiting), "late_us": late}


if __name__ == "__main__":
    print(json.dumps(ask(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:]))))

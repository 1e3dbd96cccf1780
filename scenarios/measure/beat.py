"""Asks a UDP echo server every millisecond; runs as a script inside a lab's place. Tells when answers come and stop.

    beat.py ADDRESS PORT

Prints "ready", then the CLOCK_MONOTONIC second of each answer, a line each, until its standard input closes: a change
is in force from when answers stop, or come again. All namespaces of a machine have the same clock.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from socket import AF_INET, SOCK_DGRAM, socket

PERIOD = 0.001


def main() -> None:
    """Send on time whether or not answers come; the socket is one flow for the switch."""
    sock = socket(AF_INET, SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect((sys.argv[1], int(sys.argv[2])))
    lines: list[str] = []
    print("ready", flush=True)
    due = time.monotonic()
    while True:
        readable = select.select([0, sock.fileno()], [], [], max(0.0, due - time.monotonic()))[0]
        if 0 in readable and not os.read(0, 64):
            break
        with contextlib.suppress(OSError):  # nobody listens, say: no answer
            if sock.fileno() in readable:
                sock.recv(16)
                lines.append(f"{time.monotonic():.6f}")
        if time.monotonic() >= due:
            due += PERIOD
            with contextlib.suppress(OSError):
                sock.send(b"?")
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()

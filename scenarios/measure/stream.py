"""A stream of numbered datagrams, one a millisecond; runs as a script inside a lab's places, one process an end.

    stream.py send ADDRESS PORT   prints "ready", sends until its standard input closes, then prints when each was sent
    stream.py sink PORT           prints "ready", receives until then, then prints the numbers that came, in order

Times are CLOCK_MONOTONIC seconds, which all namespaces of a machine share. What the sender could not send on time it
sends late, so a machine that stalls loses nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import sys
import time
from socket import AF_INET, SO_RCVBUF, SOCK_DGRAM, SOL_SOCKET, socket

PERIOD = 0.001


def send(address: str, port: int) -> None:
    """One flow, whatever becomes of it."""
    sock = socket(AF_INET, SOCK_DGRAM)
    times: list[float] = []
    print("ready", flush=True)
    due = time.monotonic()
    while not (select.select([0], [], [], max(0.0, due - time.monotonic()))[0] and not os.read(0, 64)):
        if time.monotonic() < due:
            continue
        due += PERIOD
        with contextlib.suppress(OSError):  # no route, or nobody listens: lost
            sock.sendto(struct.pack("!I", len(times)), (address, port))
        times.append(time.monotonic())
    print("\n".join(f"{moment:.6f}" for moment in times), flush=True)


def sink(port: int) -> None:
    """Whoever sends."""
    sock = socket(AF_INET, SOCK_DGRAM)
    sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 1 << 20)
    sock.bind(("0.0.0.0", port))
    numbers: list[int] = []
    print("ready", flush=True)
    while True:
        readable = select.select([0, sock.fileno()], [], [])[0]
        if sock.fileno() in readable:
            numbers.append(struct.unpack("!I", sock.recv(16)[:4])[0])
        elif not os.read(0, 64):
            break
    print("\n".join(map(str, numbers)), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], int(sys.argv[3]))
    else:
        sink(int(sys.argv[2]))

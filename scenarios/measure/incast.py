"""Many senders answer one receiver at the same moment; runs as a script inside a lab's places.

    incast.py sender ADDRESS PORT BYTES
    incast.py receiver PORT BYTES ROUNDS PATIENCE ADDRESS...

A sender prints "ready" and answers each byte that it gets with BYTES; it ends with its input. The receiver has one
connection to each, asks all of them at once, and asks again when it has all that they send. It prints
{"rounds_us": [...], "broken": N}: how long each round took until the last byte, and how many rounds were not over
after PATIENCE seconds; after such a one it stops.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import time
from collections.abc import Sequence


def serve(address: str, port: int, size: int) -> None:
    """A thread a receiver."""
    listener = socket.create_server((address, port))
    block = bytes(size)

    def answer(sock: socket.socket) -> None:
        with sock:
            while sock.recv(1):
                sock.sendall(block)

    def accept() -> None:
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


def receive(addresses: Sequence[str], port: int, size: int, rounds: int, patience: float) -> dict[str, object]:
    """Ask all, and again; what it took."""
    try:
        socks = [socket.create_connection((address, port), patience) for address in addresses]
    except OSError:
        return {"rounds_us": [], "broken": 1}
    poll = select.epoll()
    for sock in socks:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(sock, select.EPOLLIN)
    by_fd = {sock.fileno(): sock for sock in socks}
    times: list[float] = []
    for _ in range(rounds):
        missing = dict.fromkeys(by_fd, size)
        began = time.monotonic()
        for sock in socks:
            sock.send(b"?")
        while missing:
            ready = poll.poll(max(0.0, began + patience - time.monotonic()))
            if not ready:
                return {"rounds_us": times, "broken": 1}
            for fd, _ in ready:
                arrived = len(by_fd[fd].recv(1 << 20))
                if not arrived:
                    return {"rounds_us": times, "broken": 1}
                missing[fd] -= arrived
                if missing[fd] <= 0:
                    del missing[fd]
        times.append((time.monotonic() - began) * 1e6)
    return {"rounds_us": times, "broken": 0}


if __name__ == "__main__":
    if sys.argv[1] == "sender":
        serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        port, size, rounds, patience, *addresses = sys.argv[2:]
        print(json.dumps(receive(addresses, int(port), int(size), int(rounds), float(patience))))

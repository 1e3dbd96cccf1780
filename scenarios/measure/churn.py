"""Opens and closes connections at a rate, whatever became of those before; runs as a script inside a lab's places.

    churn.py server ADDRESS PORT
    churn.py client ADDRESS PORT RATE SECONDS PATIENCE

A connection is: connect, one byte, its answer, and the server closes, as with HTTP's "Connection: close". The server
prints "ready" and ends with its input. The client prints {"samples_us": [...], "errors": {REASON: COUNT}, "ports": N,
"seconds": S}: the time of each connection, how many source ports they had, and the time until the last one that
succeeded was over. No connection waits for another, and each counts from when it was due, also if it began late.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass

# struct linger (socket(7)): what is not over in time leaves nothing behind.
ABORT = struct.pack("ii", 1, 0)


def serve(address: str, port: int) -> None:
    """Answer and close; no connection waits for another."""
    listener = socket.create_server((address, port), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(0, select.EPOLLIN)
    open_: dict[int, socket.socket] = {}
    print("ready", flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == 0:
                if not os.read(0, 64):
                    return
            elif fd == listener.fileno():
                _accept(listener, poll, open_)
            else:
                with open_.pop(fd) as sock:
                    try:
                        if sock.recv(16):
                            sock.send(b"x")
                    except OSError:
                        pass  # the client gave up


def _accept(listener: socket.socket, poll: select.epoll, open_: dict[int, socket.socket]) -> None:
    try:
        while True:
            sock, _ = listener.accept()
            sock.setblocking(False)
            open_[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
    except OSError:
        return  # no more of them for now


@dataclass(slots=True)
class Opened:
    """A connection on its way. due: when it was to be opened; asked: whether its byte was sent."""

    sock: socket.socket
    due: float
    asked: bool = False


class Client:
    """All of its connections."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.samples: list[float] = []
        self.errors: dict[str, int] = {}
        self.ports: set[int] = set()
        self.last = 0.0
        self._poll = select.epoll()
        self._open: dict[int, Opened] = {}

    def run(self, rate: float, seconds: float, patience: float) -> float:
        """Open them on time and see each to its end; the seconds until the last success."""
        began, number, count = time.monotonic(), 0, int(rate * seconds)
        while number < count or self._open:
            due = began + number / rate if number < count else time.monotonic() + 0.05
            # A turn of the loop takes what is due and looks at a few, so that neither waits for the other.
            for fd, events in self._poll.poll(max(0.0, due - time.monotonic()), 64):
                self._step(fd, events)
            now = time.monotonic()
            while number < count and now >= began + number / rate:
                self._begin(began + number / rate)
                number += 1
                now = time.monotonic()
            self._give_up(now - patience)
        return max(self.last - began, 1 / rate)

    def _begin(self, due: float) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        code = sock.connect_ex(self.address)
        if code not in (0, errno.EINPROGRESS):
            self._failed(sock, os.strerror(code))
            return
        self.ports.add(sock.getsockname()[1])
        self._open[sock.fileno()] = Opened(sock, due)
        self._poll.register(sock, select.EPOLLOUT)

    def _step(self, fd: int, events: int) -> None:
        one = self._open[fd]
        try:
            if code := one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
            if not one.asked:
                one.sock.send(b"?")
                one.asked = True
                self._poll.modify(fd, select.EPOLLIN)
                return
            if one.sock.recv(16):
                return  # the end is still to come
            self.last = time.monotonic()
            self.samples.append((self.last - one.due) * 1e6)
            self._open.pop(fd).sock.close()
        except OSError as problem:
            self._failed(self._open.pop(fd).sock, problem.strerror or str(problem))

    def _give_up(self, before: float) -> None:
        """On the oldest, which come first."""
        while self._open and (oldest := next(iter(self._open.items())))[1].due < before:
            self._failed(self._open.pop(oldest[0]).sock, "no answer in time")

    def _failed(self, sock: socket.socket, reason: str) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        sock.close()
        self.errors[reason] = self.errors.get(reason, 0) + 1


def main(what: str, address: str, port: str, *more: str) -> None:
    if what == "server":
        serve(address, int(port))
        return
    client = Client((address, int(port)))
    seconds = client.run(*map(float, more))
    found = {"samples_us": client.samples, "errors": client.errors, "ports": len(client.ports)}
    print(json.dumps(found | {"seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])

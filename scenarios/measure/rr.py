"""Time TCP and UDP request/response transactions of one byte each way; runs as a script inside a lab's place.

    rr.py server tcp|crr|udp ADDRESS PORT
    rr.py client tcp|crr|udp ADDRESS PORT SECONDS COUNT TIMEOUT

The three kinds are netperf's TCP_RR, TCP_CRR and UDP_RR. The server prints "ready PORT" (PORT 0: any free one) and
ends when its standard input does. The client ends after SECONDS or COUNT transactions, whichever is first, and
prints {"samples_us": [...], "lost": N, "error": "the last loss's reason"}. A transaction without an answer within
TIMEOUT seconds is a loss.

Only what starts fast is imported: a short run should not be mostly the interpreter's start. Time-outs are
SO_RCVTIMEO and SO_SNDTIMEO (socket(7)), for Python's settimeout() makes the socket non-blocking and adds a poll()
to every call, which would be measured too.

How a CRR connection ends. The server closes first; the client reads to the end of file and then closes with
SO_LINGER 0, which sends a reset (socket(7), tcp(7)) to a server that is in FIN-WAIT-2 by then.
- Neither end is left in TIME-WAIT (RFC 9293, 3.6.1), so ephemeral ports do not run out within some 28000
  transactions, as they would if each were blocked for a minute.
- Connection tracking sees FIN, ACK, RST strictly in this order. A reset straight after the answer could overtake
  the server's FIN, which would then belong to no connection: invalid, and so not translated back by a Service.
- An entry in state CLOSE is kept 10 s, in TIME_WAIT 120 s (nf_conntrack-sysctl), so the table stays small.
"""

from __future__ import annotations

import _thread  # threading costs milliseconds to import
import os
import struct
import sys
import time
from socket import (
    AF_INET,
    IPPROTO_TCP,
    SO_LINGER,
    SO_RCVTIMEO,
    SO_REUSEADDR,
    SO_SNDTIMEO,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    socket,
)

WARM_UP = 50  # transactions not counted: ARP, flow set-up, caches ...
WARM_UP_SHARE = 0.1  # ... but no more than this share of the duration, whatever the path's delay.
SERVER_PATIENCE = 1.0  # seconds for a CRR request after its handshake: the server takes one connection at a time.


def timeouts(sock: socket, seconds: float) -> None:
    """Let blocking calls on the socket fail with EAGAIN after so long (struct timeval: two longs)."""
    value = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, value)
    sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, value)


def reason(problem: OSError) -> str:
    """Why a transaction was lost. BlockingIOError is EAGAIN, or EINPROGRESS for connect(): a time-out above."""
    return "no answer in time" if isinstance(problem, BlockingIOError) else problem.strerror or str(problem)


class Stream:
    """TCP_RR: one connection for all; after a loss a new one, so that a late answer is not taken for the next."""

    def __init__(self, address: tuple[str, int], timeout: float) -> None:
        self.address, self.timeout = address, timeout
        self.problem: OSError | None = None  # why there is no connection
        self.sock = socket(AF_INET, SOCK_STREAM)
        self.recover()

    def recover(self) -> None:
        self.sock.close()
        self.sock = socket(AF_INET, SOCK_STREAM)
        timeouts(self.sock, self.timeout)
        self.sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        try:
            self.sock.connect(self.address)
            self.problem = None
        except OSError as problem:
            self.problem = problem

    def transact(self) -> None:
        if self.problem is not None:
            raise self.problem
        self.sock.send(b"x")
        if not self.sock.recv(1):
            raise OSError("closed by the server")


class Connections:
    """TCP_CRR: connect, request, response, close; see above for the close."""

    LINGER_0 = struct.pack("ii", 1, 0)

    def __init__(self, address: tuple[str, int], timeout: float) -> None:
        self.address, self.timeout = address, timeout

    def transact(self) -> None:
        with socket(AF_INET, SOCK_STREAM) as sock:
            timeouts(sock, self.timeout)
            sock.setsockopt(SOL_SOCKET, SO_LINGER, self.LINGER_0)
            sock.connect(self.address)
            sock.send(b"x")
            if not sock.recv(1):
                raise OSError("closed by the server")
            sock.recv(1)

    def recover(self) -> None:
        """Nothing: every transaction has its own connection."""


class Datagrams:
    """UDP_RR: the byte is a sequence number, so that a late answer is not taken for the next one's."""

    def __init__(self, address: tuple[str, int], timeout: float) -> None:
        self.number = 0
        self.sock = socket(AF_INET, SOCK_DGRAM)
        timeouts(self.sock, timeout)
        self.sock.connect(address)

    def transact(self) -> None:
        self.number = (self.number + 1) % 256
        request = bytes((self.number,))
        self.sock.send(request)
        while self.sock.recv(2) != request:
            pass

    def recover(self) -> None:
        """Nothing: datagrams are independent."""


KINDS: dict[str, type[Stream | Connections | Datagrams]] = {"tcp": Stream, "crr": Connections, "udp": Datagrams}


def client(kind: str, address: tuple[str, int], seconds: float, count: int, timeout: float) -> str:
    """Time transactions; the JSON document above."""
    end = KINDS[kind](address, timeout)
    transact, now = end.transact, time.perf_counter_ns
    samples, lost, error = [], 0, ""
    warm_up, until = WARM_UP, now() + int(seconds * WARM_UP_SHARE * 1e9)
    while True:
        begin = now()
        try:
            transact()
            if not warm_up:
                samples.append((now() - begin) / 1000)
        except OSError as problem:
            lost += not warm_up
            error = reason(problem)
            end.recover()
        if warm_up:
            warm_up -= 1
            if not warm_up or now() >= until:
                warm_up, until = 0, now() + int(seconds * 1e9)
        elif len(samples) + lost >= count or now() >= until:
            # Written by hand: json would take as long to import as the interpreter to start.
            return f'{{"samples_us": {samples}, "lost": {lost}, "error": "{error if lost else ""}"}}'


def serve_stream(sock: socket) -> None:
    """Answer a TCP_RR connection until it ends. In its own thread: a dead peer's connection holds up no other."""
    with sock:
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        try:
            while sock.recv(1):
                sock.send(b"x")
        except OSError:
            return  # The client gave up.


def serve_once(sock: socket) -> None:
    """Answer a TCP_CRR connection and close it."""
    with sock:
        timeouts(sock, SERVER_PATIENCE)
        try:
            if sock.recv(1):
                sock.send(b"x")
        except OSError:
            return  # The request was lost, or the client gave up; it counts the loss.


def serve_datagrams(sock: socket) -> None:
    while True:
        try:
            request, peer = sock.recvfrom(64)
            sock.sendto(request, peer)
        except OSError:
            continue  # An ICMP error for an earlier answer, or no route for now; the client counts its loss.


def end_with_stdin() -> None:
    os.read(0, 1)
    os._exit(0)


def server(kind: str, address: tuple[str, int]) -> None:
    """Answer until standard input ends."""
    sock = socket(AF_INET, SOCK_DGRAM if kind == "udp" else SOCK_STREAM)
    sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)  # An earlier run's connections may be in TIME-WAIT.
    sock.bind(address)
    if kind != "udp":
        sock.listen(128)
    _thread.start_new_thread(end_with_stdin, ())
    print("ready", sock.getsockname()[1], flush=True)
    if kind == "udp":
        serve_datagrams(sock)
    while True:
        connection, _ = sock.accept()
        if kind == "crr":
            serve_once(connection)
        else:
            _thread.start_new_thread(serve_stream, (connection,))


def main(argv: list[str]) -> None:
    role, kind, host, port = argv[:4]
    if role == "server":
        server(kind, (host, int(port)))
    else:
        print(client(kind, (host, int(port)), float(argv[4]), int(argv[5]), float(argv[6])))


if __name__ == "__main__":
    main(sys.argv[1:])

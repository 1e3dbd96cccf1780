"""The sockets: questions over UDP and TCP (RFC 7766), the way to the upstream, and the port that says we are ready."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from topo.addons.dns.messages import Forward, Lookup, fresh, is_answer, reply

Place = tuple[str, int]

# Seconds until an upstream that says nothing is given up, over UDP in two attempts.
_PATIENCE, _ATTEMPTS = 2.0, 2
# Seconds a TCP connection may be silent; that many may be open, and that many questions be with the upstream.
_IDLE, _MOST = 10.0, 200


class Server:
    """Answers at one address, each thing in a thread of its own, until the process ends."""

    def __init__(self, lookup: Lookup, upstream: Place | None) -> None:
        self._lookup, self._upstream = lookup, upstream
        self._waiting, self._connections = threading.Semaphore(_MOST), threading.Semaphore(_MOST)

    def start(self, address: str, port: int) -> int:
        """Bind UDP and TCP; the port, for who asks for port 0. Raises OSError."""
        tcp = socket.create_server((address, port), backlog=128)
        number = int(tcp.getsockname()[1])
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((address, number))
        _thread("udp", lambda: self._serve_udp(udp))
        _thread("tcp", lambda: self._serve_tcp(tcp))
        return number

    def _serve_udp(self, sock: socket.socket) -> None:
        while True:
            with suppress(OSError):  # an ICMP error of an earlier reply
                wire, client = sock.recvfrom(65535)
                self._take(wire, sock, client)

    def _take(self, wire: bytes, sock: socket.socket, client: Place) -> None:
        """Answer at once, or let a thread wait for the upstream."""
        answer = reply(wire, self._lookup, tcp=False, has_upstream=self._upstream is not None)
        if isinstance(answer, bytes):
            sock.sendto(answer, client)
        elif answer is not None:
            _thread("upstream", lambda: _send(sock, self._forward(answer, tcp=False), client))

    def _serve_tcp(self, listener: socket.socket) -> None:
        while True:
            sock, _ = listener.accept()
            if self._connections.acquire(blocking=False):
                _thread("connection", partial(self._converse, sock))
            else:
                sock.close()

    def _converse(self, sock: socket.socket) -> None:
        with self._free_connection(), sock, suppress(OSError):
            sock.settimeout(_IDLE)
            while (wire := _receive(sock)) is not None:
                answer = reply(wire, self._lookup, tcp=True, has_upstream=self._upstream is not None)
                if isinstance(answer, Forward):
                    answer = self._forward(answer, tcp=True)
                if answer is None:
                    break
                sock.sendall(struct.pack("!H", len(answer)) + answer)

    @contextmanager
    def _free_connection(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._connections.release()

    def _forward(self, question: Forward, tcp: bool) -> bytes:
        """The upstream is asked the way we were, so that an answer too large for UDP makes our own client use TCP."""
        got = None
        if self._upstream is not None and self._waiting.acquire(blocking=False):
            try:
                got = ask(question.question, self._upstream, tcp)
            finally:
                self._waiting.release()
        return question.finish(got)


def ask(question: bytes, upstream: Place, tcp: bool) -> bytes | None:
    """A server's answer under the question's own ID; None if there is none within two seconds."""
    sent = fresh(question)
    with suppress(OSError):
        answer = (_ask_tcp if tcp else _ask_udp)(sent, upstream)
        return None if answer is None else question[:2] + answer[2:]
    return None


def _ask_udp(question: bytes, upstream: Place) -> bytes | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_PATIENCE / _ATTEMPTS)
        sock.connect(upstream)  # so that an ICMP error reaches us, and nobody else's packets do
        for _ in range(_ATTEMPTS):
            sock.send(question)
            with suppress(TimeoutError):
                answer = sock.recv(65535)
                while not is_answer(answer, question):
                    answer = sock.recv(65535)
                return answer
    return None


def _ask_tcp(question: bytes, upstream: Place) -> bytes | None:
    with socket.create_connection(upstream, timeout=_PATIENCE) as sock:
        sock.sendall(struct.pack("!H", len(question)) + question)
        answer = _receive(sock)
    return answer if answer is not None and is_answer(answer, question) else None


def _receive(sock: socket.socket) -> bytes | None:
    """One message with its length before it; None at the connection's end."""
    with sock.makefile("rb") as lines:
        head = lines.read(2)
        body = lines.read(struct.unpack("!H", head)[0]) if len(head) == 2 else b""
    return body or None


def _send(sock: socket.socket, wire: bytes, client: Place) -> None:
    with suppress(OSError):
        sock.sendto(wire, client)


def serve_ready(address: str, port: int, is_ready: Callable[[], bool]) -> None:
    """GET /ready, as CoreDNS' plugin ready has it: 200 and OK, or 503. Raises OSError if the port is taken."""
    listener = socket.create_server((address, port))

    def serve() -> None:
        while True:
            sock, _ = listener.accept()
            with sock, suppress(OSError):
                sock.settimeout(1)
                found = sock.recv(4096).startswith(b"GET /ready ")
                status = (b"200 OK" if is_ready() else b"503 Service Unavailable") if found else b"404 Not Found"
                text = status.partition(b" ")[2]
                head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(text))
                sock.sendall(head + text)

    _thread("ready", serve)


def _thread(name: str, work: Callable[[], None]) -> None:
    threading.Thread(target=work, name=name, daemon=True).start()

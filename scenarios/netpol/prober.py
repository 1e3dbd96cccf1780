"""Probes many pairs of pods at once: one process that opens its sockets in every pod's network namespace.

Standard input: a JSON line {"ends": {name: [pid, address]}, "probes": [[source, target, protocol, port, wanted], ...],
"quiet": seconds, "limit": seconds}. Standard output: {"reached": [true, ...], "seconds": seconds}.

A name that begins with "ip:" is a host of many addresses: it asks from, and is asked at, the one given.
wanted: probes that should succeed. It ends once all of these did and nothing else came for `quiet`, or after `limit`.
SCTP is spoken by hand over raw sockets, INIT and INIT ACK (RFC 9260, sections 3.3.2 and 3.3.3), for many kernels have
none: whatever comes back from the target is an answer, and where the kernel has no SCTP this process answers, too.
"""

from __future__ import annotations

import errno
import json
import resource
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from topo.system import inside

_TRIES = (0.0, 0.12, 0.35, 0.8)  # datagrams are sent again, as TCP would
_FIRST_PORT, _LAST_PORT = 33000, 60000
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_INIT, _INIT_ACK = 1, 2
_HOST = "ip:"


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def sctp(source: int, target: int, tag: int, kind: int) -> bytes:
    """An SCTP packet with one INIT or INIT ACK chunk; the latter with the state cookie it must have."""
    cookie = struct.pack("!HH4s", 7, 8, b"none") if kind == _INIT_ACK else b""
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20 + len(cookie), 1, 65535, 1, 1, 1) + cookie
    head = struct.pack("!HHI", source, target, tag)
    checksum = struct.pack("<I", crc32c(head + bytes(4) + chunk))
    return head + checksum + chunk


def echo(number: int) -> bytes:
    """An ICMP echo request with this identifier (RFC 792)."""
    total = 0x0800 + number
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBHHH", 8, 0, ~total & 0xFFFF, number, 0)


class Round:
    """One set of probes."""

    def __init__(self, ends: Mapping[str, Sequence[Any]], probes: Sequence[Sequence[Any]], numbers: Callable[[], int]):
        self.ends, self.probes, self.numbers = ends, probes, numbers
        self.reached = [False] * len(probes)
        self.waiting = {i for i, probe in enumerate(probes) if probe[4]}
        self.selector = selectors.DefaultSelector()
        self.sockets: list[socket.socket] = []
        self.again: list[tuple[socket.socket, bytes, tuple[str, int], int]] = []
        self.last = time.monotonic()
        # By pod, then by the number that an answer bears: which probe it is of.
        self.raw: dict[tuple[str, int, int], int] = {}

    def run(self, quiet: float, limit: float) -> None:
        """Send everything, and listen."""
        for name in sorted({p[1] for p in self.probes if p[1].startswith(_HOST)}):  # before anybody asks them
            with inside(self.ends[name][0]):
                for protocol, port in {(p[2], p[3]) for p in self.probes if p[1] == name}:
                    self._serve(protocol, (self.ends[name][1], port))
        names = {p[0] for p in self.probes} | {p[1] for p in self.probes if p[2] == "SCTP"}
        for name in sorted(names & self.ends.keys()):
            # A pod that has just ended asks nobody.
            with suppress(FileNotFoundError, ProcessLookupError), inside(self.ends[name][0]):
                self._open(name)
        began = self.last = time.monotonic()
        tries = list(_TRIES)
        try:
            while True:
                now = time.monotonic()
                if tries and now - began >= tries[0]:
                    tries.pop(0)
                    for sock, data, address, index in self.again:
                        if not self.reached[index]:
                            _send(sock, data, address)
                if (not self.waiting and now - self.last >= quiet) or now - began >= limit:
                    return
                for key, _ in self.selector.select(0.02):
                    key.data(key.fileobj)
        finally:
            for sock in self.sockets:
                sock.close()
            self.selector.close()

    def _open(self, name: str) -> None:
        """Sockets of one pod, in whose namespace this thread is now."""
        mine = [(i, p) for i, p in enumerate(self.probes) if p[0] == name]
        kinds = {p[2] for _, p in mine} | {p[2] for p in self.probes if p[1] == name and p[2] == "SCTP"}
        own = (self.ends[name][1], 0) if name.startswith(_HOST) else ("", 0)
        raw: dict[str, socket.socket] = {}
        for kind, number in (("SCTP", socket.IPPROTO_SCTP), ("ICMP", socket.IPPROTO_ICMP)):
            if kind in kinds:
                raw[kind] = self._socket(socket.SOCK_RAW, number)
                raw[kind].bind(own)
                hear = self._sctp if kind == "SCTP" else self._icmp
                self._listen(raw[kind], selectors.EVENT_READ, partial(hear, name))
        for index, (_, target, protocol, port, _) in mine:
            address = self.ends[target][1]
            match protocol:
                case "TCP":
                    sock = self._socket(socket.SOCK_STREAM)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    sock.bind(own)
                    outcome = sock.connect_ex((address, port))
                    if outcome == 0:
                        self._done(index)
                    elif outcome == errno.EINPROGRESS:  # else there is no route, say
                        self._listen(sock, selectors.EVENT_WRITE, partial(self._tcp, index))
                case "UDP":
                    sock = self._socket(socket.SOCK_DGRAM)
                    sock.bind(own)
                    with suppress(OSError):  # connected, so that a late answer to another's question is none to this
                        sock.connect((address, port))
                    self._listen(sock, selectors.EVENT_READ, partial(self._udp, index))
                    self.again.append((sock, b"?", (address, port), index))
                case "SCTP":
                    number = self.numbers()
                    self.raw[name, number, port] = index
                    self.again.append((raw["SCTP"], sctp(number, port, 0, _INIT), (address, 0), index))
                case "ICMP":
                    number = self.numbers()
                    self.raw[name, number, 0] = index
                    self.again.append((raw["ICMP"], echo(number), (address, 0), index))

    def _serve(self, protocol: str, address: tuple[str, int]) -> None:
        """Be there for who asks this address; the kernel completes TCP's connections by itself."""
        if protocol == "TCP":
            sock = self._socket(socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(128)
        elif protocol == "UDP":
            sock = self._socket(socket.SOCK_DGRAM)
            sock.bind(address)
            self._listen(sock, selectors.EVENT_READ, _answer)

    def _socket(self, kind: int, protocol: int = 0) -> socket.socket:
        sock = socket.socket(socket.AF_INET, kind, protocol)
        sock.setblocking(False)
        self.sockets.append(sock)
        return sock

    def _listen(self, sock: socket.socket, events: int, hear: Callable[[Any], None]) -> None:
        self.selector.register(sock, events, hear)

    def _done(self, index: int) -> None:
        if not self.reached[index]:
            self.reached[index] = True
            self.waiting.discard(index)
            self.last = time.monotonic()

    def _tcp(self, index: int, sock: socket.socket) -> None:
        self.selector.unregister(sock)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            self._done(index)

    def _udp(self, index: int, sock: socket.socket) -> None:
        try:
            sock.recv(2048)
        except OSError:
            return
        self._done(index)

    def _icmp(self, name: str, sock: socket.socket) -> None:
        packet = _received(sock)
        if len(packet) >= 28 and packet[20] == 0:
            index = self.raw.get((name, struct.unpack_from("!H", packet, 24)[0], 0))
            if index is not None:
                self._done(index)

    def _sctp(self, name: str, sock: socket.socket) -> None:
        packet = _received(sock)
        if len(packet) < 40:
            return
        source, target, _ = struct.unpack_from("!HHI", packet, 20)
        if packet[32] == _INIT:
            tag = struct.unpack_from("!I", packet, 36)[0]
            _send(sock, sctp(target, source, tag, _INIT_ACK), (socket.inet_ntoa(packet[12:16]), 0))
            return
        index = self.raw.get((name, target, source))
        if index is not None and packet[12:16] == socket.inet_aton(self.ends[self.probes[index][1]][1]):
            self._done(index)


def _answer(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.sendto(*sock.recvfrom(2048))


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(2048)
    except OSError:
        return b""


def _send(sock: socket.socket, data: bytes, address: tuple[str, int]) -> None:
    with suppress(OSError):  # no route, or an answer to an earlier datagram: not reached
        if sock.type == socket.SOCK_DGRAM:
            sock.send(data)
        else:
            sock.sendto(data, address)


def main() -> None:
    """Answer requests until standard input closes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    taken = _FIRST_PORT

    def numbers() -> int:
        nonlocal taken
        taken = taken + 1 if taken < _LAST_PORT else _FIRST_PORT
        return taken

    for line in sys.stdin:
        request = json.loads(line)
        began = time.monotonic()
        one = Round(request["ends"], request["probes"], numbers)
        one.run(request["quiet"], request["limit"])
        answer = {"reached": one.reached, "seconds": round(time.monotonic() - began, 4)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

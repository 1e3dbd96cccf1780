"""A tunnel in userspace: takes packets from a TUN device, wraps them for the node that has their destination.

    tunnel.py DEVICE LOCAL-ADDRESS SOCKET udp PORT [KEY]     each packet in a UDP datagram (flannel's backend udp)
    tunnel.py DEVICE LOCAL-ADDRESS SOCKET ipip               each packet in an IP packet of protocol 4 (RFC 2003)

KEY: 64 hex digits; datagrams are then sealed with XSalsa20-Poly1305 (NaCl's secretbox), as Weave Net's sleeve does.

SOCKET: a path where it listens once the device is there. Whoever connects sends routes as JSON, {"10.244.1.0/24":
"172.18.0.3", ...}, which replace those before, and reads "ok". Packets to nowhere, and from nodes it has no route to,
are dropped.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000
_LARGEST = 65535


class Routes:
    """Destination -> the node to send it to, the longest prefix first; what was looked up is kept."""

    def __init__(self, table: dict[str, str]) -> None:
        networks = ((ipaddress.IPv4Network(prefix), peer) for prefix, peer in table.items())
        self._table = sorted(
            ((int(net.netmask), int(net.network_address), peer) for net, peer in networks), reverse=True
        )
        self._known: dict[int, str | None] = {}
        self.peers = frozenset(table.values())

    def peer(self, destination: int) -> str | None:
        """The node's address, or None."""
        if destination not in self._known:
            if len(self._known) > 100_000:
                self._known.clear()
            self._known[destination] = next((p for mask, net, p in self._table if destination & mask == net), None)
        return self._known[destination]


def open_tun(name: str) -> int:
    """A TUN device's descriptor (kernel documentation, networking/tuntap). Raises OSError."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def destination(packet: bytes) -> int | None:
    """The destination of an IPv4 packet, or None if it is none."""
    return struct.unpack_from("!I", packet, 16)[0] if len(packet) >= 20 and packet[0] >> 4 == 4 else None


def seal(key: bytes | None) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes | None]]:
    """Wrap and unwrap one packet; unwrap gives None for what somebody without the key made."""
    if key is None:
        return (lambda packet: packet), (lambda datagram: datagram)
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    box = SecretBox(key)

    def unwrap(datagram: bytes) -> bytes | None:
        try:
            return box.decrypt(datagram)
        except (CryptoError, ValueError):
            return None

    return (lambda packet: bytes(box.encrypt(packet))), unwrap


class Tunnel:
    """One device and one socket, a thread for each direction."""

    def __init__(self, tun: int, sock: socket.socket, port: int, key: bytes | None) -> None:
        self.routes = Routes({})
        self._tun, self._sock, self._port = tun, sock, port
        self._wrap, self._unwrap = seal(key)

    def start(self) -> None:
        """Carry packets until the process ends."""
        for work in (self._outward, self._inward):
            threading.Thread(target=work, daemon=True).start()

    def _outward(self) -> None:
        while True:
            packet = os.read(self._tun, _LARGEST)
            to = destination(packet)
            peer = None if to is None else self.routes.peer(to)
            if peer is not None:
                with suppress(OSError):  # no way there now, or too large for the fabric: as lost as on a wire
                    self._sock.sendto(self._wrap(packet), (peer, self._port))

    def _inward(self) -> None:
        # A raw socket gives the outer IP header too (raw(7)).
        is_raw = self._sock.type == socket.SOCK_RAW
        while True:
            try:
                datagram, (peer, *_) = self._sock.recvfrom(_LARGEST)
            except OSError:
                continue  # an ICMP error about something sent
            if is_raw:
                datagram = datagram[(datagram[0] & 0xF) * 4 :]
            packet = self._unwrap(datagram) if peer in self.routes.peers else None
            if packet and destination(packet) is not None:
                with suppress(OSError):  # the device is down
                    os.write(self._tun, packet)

    def obey(self, listener: socket.socket) -> None:
        """Take routes from whoever connects, one after the other, for ever."""
        while True:
            caller, _ = listener.accept()
            with caller, suppress(OSError):  # it went
                self.routes = Routes(json.loads(caller.makefile("rb").read()))
                caller.sendall(b"ok")


def main(argv: list[str]) -> None:
    """Serve until the process is ended."""
    device, local, path, kind, *rest = argv
    if kind == "udp":
        port = int(rest[0])
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((local, port))
    else:
        port = 0
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
        sock.bind((local, 0))
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 1 << 21)
    tunnel = Tunnel(open_tun(device), sock, port, bytes.fromhex(rest[1]) if len(rest) > 1 else None)
    tunnel.start()
    Path(path).unlink(missing_ok=True)  # of one that was killed
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        tunnel.obey(listener)


if __name__ == "__main__":
    main(sys.argv[1:])

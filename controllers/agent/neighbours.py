"""Tells the fabric when this node becomes the one that answers for a LoadBalancer address (RFC 5227, section 3)."""

from __future__ import annotations

import socket
import struct

from controllers.announce import answerers
from controllers.state import NodeView
from topo.system import inside

# Repeated, for one may be lost; MetalLB sends some for a few seconds.
_TIMES = 3
_BROADCAST = 0xFFFFFFFFFFFF
_ARP = 0x0806


class Announcements:
    """What one node has announced."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._announced: frozenset[int] = frozenset()

    def sync(self, view: NodeView) -> None:
        """Announce each address that has just become this node's. Raises OSError."""
        found = answerers(view.lab, view.services, (view.node, *view.peers))
        mine = frozenset(address for address, name in found.items() if name == view.node.name)
        new, self._announced = mine - self._announced, mine
        if new:
            with inside(self._pid):
                sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP))
            with sock:
                sock.bind(("br-ex", _ARP))
                for _ in range(_TIMES):
                    for address in sorted(new):
                        sock.send(gratuitous(view.node.mac, address))

    def close(self) -> None:
        """Nothing runs."""


def gratuitous(mac: int, ip: int) -> bytes:
    """An ARP announcement as a frame: a request for the sender's own address."""
    sender, nobody = mac.to_bytes(6, "big"), bytes(6)
    head = _BROADCAST.to_bytes(6, "big") + sender + struct.pack("!H", _ARP)
    return head + struct.pack("!HHBBH6sI6sI", 1, 0x0800, 6, 4, 1, sender, ip, nobody, ip)

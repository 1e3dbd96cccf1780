"""Tells the fabric when this node becomes the one that answers for a LoadBalancer address (RFC 5227, section 3)."""

from __future__ import annotations

import logging
import socket
import struct
import threading

from controllers.announce import answerers
from controllers.state import NodeView
from topo.system import inside

LOG = logging.getLogger("mininetes")
# So often, so many seconds apart: one may be lost, or come before the fabric's flows know the announcer. RFC 5227 has
# two, 2 s apart; MetalLB goes on for 5 s.
TIMES, INTERVAL = 3, 1.0
_BROADCAST = 0xFFFFFFFFFFFF
_ARP = 0x0806


class Announcements:
    """What one node has announced. interface: to the network; interval: seconds between repetitions."""

    def __init__(self, pid: int, interface: str = "br-ex", interval: float = INTERVAL) -> None:
        self._pid, self._interface, self._interval = pid, interface, interval
        self._announced: frozenset[int] = frozenset()

    def sync(self, view: NodeView) -> None:
        """Announce each address that has just become this node's. Raises OSError."""
        found = answerers(view.lab, view.services, (view.node, *view.peers))
        mine = frozenset(address for address, name in found.items() if name == view.node.name)
        new, self._announced = mine - self._announced, mine & self._announced
        if new:
            self._send(view.node.mac, new)
            self._announced |= new
            self._later(view.node.mac, new, TIMES - 1)

    def close(self) -> None:
        """Say no more."""
        self._announced = frozenset()

    def _later(self, mac: int, addresses: frozenset[int], times: int) -> None:
        if times:
            timer = threading.Timer(self._interval, self._again, (mac, addresses, times))
            timer.daemon = True
            timer.start()

    def _again(self, mac: int, addresses: frozenset[int], times: int) -> None:
        left = addresses & self._announced  # those that are another's by now are its to announce
        if left:
            try:
                self._send(mac, left)
            except OSError as error:  # the switch or the node went meanwhile
                LOG.info("cannot announce again: %s", error)
            self._later(mac, left, times - 1)

    def _send(self, mac: int, addresses: frozenset[int]) -> None:
        with inside(self._pid):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # 0: deaf until it is bound (packet(7))
        with sock:
            sock.bind((self._interface, _ARP))
            for address in sorted(addresses):
                sock.send(gratuitous(mac, address))


def gratuitous(mac: int, ip: int) -> bytes:
    """An ARP announcement as a frame: a request for the sender's own address."""
    sender, nobody = mac.to_bytes(6, "big"), bytes(6)
    head = _BROADCAST.to_bytes(6, "big") + sender + struct.pack("!H", _ARP)
    return head + struct.pack("!HHBBH6sI6sI", 1, 0x0800, 6, 4, 1, sender, ip, nobody, ip)

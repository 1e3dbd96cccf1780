"""A Weave Net peer: learns by gossip who hears whom, finds ways round links that are broken, and is the sleeve.

    weave.py NAME ADDRESS SOCKET [DEVICE]

DEVICE: pods' frames that come out of it cross to other peers in UDP (sleeve), and theirs go into it; without one it
only gossips. SOCKET: a unix socket on which JSON lines {"peers": {"worker": "172.18.0.3", ...}, "key": HEX or ""} say
who else there is; with a key all datagrams are sealed by XSalsa20-Poly1305 (NaCl's secretbox). Lines
{"via": {"worker": "worker2"}} come back whenever it changes which peers are reached through which others.

Source: Weave Net, "How Weave Net Works", "Router Sleeve", "Fast Datapath"; docs/sleeve.md and docs/fastdp.md.
"""

from __future__ import annotations

import fcntl
import json
import selectors
import socket
import struct
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

PORT = 6783
# Seconds between two heartbeats, and without one until a peer counts as not heard; each peer adds to the former.
HEARTBEAT, PER_PEER, MISSED = 0.3, 0.02, 5
_LARGEST = 65535
# What a datagram ends with: its kind, before which a frame has the addresses of the peers at its ends.
_HELLO, _FRAME = b"H", b"F"
_ENDS = struct.Struct("!4s4s")
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
# packet(7): what the node's own kernel or this program sends is not to be sent on.
_OUTGOING, _EVERY_PROTOCOL = 4, 0x0003

State = tuple[int, frozenset[str]]


class Mesh:
    """Who hears whom, as one peer knows it. Time is an argument."""

    def __init__(self, me: str, first: int) -> None:
        self.me = me
        self.peers: frozenset[str] = frozenset()
        self._heard: dict[str, float] = {}
        # Of each peer: the number of its latest news, and whom it hears. One that starts again counts on from there.
        self.states: dict[str, State] = {me: (first, frozenset())}

    @property
    def period(self) -> float:
        """Seconds between two heartbeats."""
        return HEARTBEAT + PER_PEER * len(self.peers)

    def look(self, now: float) -> None:
        """Note whom it hears now."""
        late = now - MISSED * self.period
        hears = frozenset(peer for peer, when in self._heard.items() if when > late and peer in self.peers)
        number, before = self.states[self.me]
        if hears != before:
            self.states[self.me] = number + 1, hears

    def hear(self, sender: str, states: Mapping[str, State], now: float) -> None:
        """A heartbeat, with all that its sender knows."""
        self._heard[sender] = now
        for peer, state in states.items():
            if peer != self.me and (peer not in self.states or state[0] > self.states[peer][0]):
                self.states[peer] = state

    def via(self) -> dict[str, str]:
        """The first peer on the way to each peer that is not reached directly, but is through others."""
        first: dict[str, str] = {}
        todo = deque([self.me])
        while todo:
            here = todo.popleft()
            for peer in sorted(self._hears(here)):
                if peer in self.peers and peer not in first and here in self._hears(peer):
                    first[peer] = first.get(here, peer)
                    todo.append(peer)
        return {peer: hop for peer, hop in sorted(first.items()) if hop != peer}

    def _hears(self, peer: str) -> frozenset[str]:
        return self.states.get(peer, (0, frozenset()))[1]


def hello(mesh: Mesh) -> bytes:
    """A heartbeat."""
    known = {peer: [number, sorted(hears)] for peer, (number, hears) in mesh.states.items()}
    return zlib.compress(json.dumps({"from": mesh.me, "states": known}).encode()) + _HELLO


def read_hello(data: bytes) -> tuple[str, dict[str, State]]:
    """The sender of a heartbeat and what it knows. Raises ValueError or zlib.error."""
    said = json.loads(zlib.decompress(data[: -len(_HELLO)]))
    return said["from"], {peer: (number, frozenset(hears)) for peer, (number, hears) in said["states"].items()}


class Forwarding:
    """Which peer a frame is for: learnt from the frames that came, and all of them until then."""

    def __init__(self) -> None:
        self._at: dict[bytes, bytes] = {}

    def learn(self, frame: bytes, peer: bytes) -> None:
        """The frame's sender is behind that peer."""
        self._at[frame[6:12]] = peer

    def to(self, frame: bytes, everyone: Iterable[bytes]) -> Iterable[bytes]:
        """The peers it goes to. The lowest bit of a group's address is set (IEEE 802, section 8.2)."""
        known = None if frame[0] & 1 else self._at.get(frame[:6])
        return everyone if known is None else (known,)


class Peer:
    """The sockets of one peer, and one loop that serves them all."""

    def __init__(self, name: str, address: str, path: str, device: str) -> None:
        self.mesh, self.address = Mesh(name, int(time.time() * 1000)), socket.inet_aton(address)
        self._names: dict[bytes, str] = {}
        self._addresses: dict[str, bytes] = {}
        self._via: dict[str, str] = {}
        self._wrap: Callable[[bytes], bytes] | None = None
        self._unwrap: Callable[[bytes], bytes | None] = lambda datagram: datagram
        self._forwarding = Forwarding()
        self._agents: dict[socket.socket, bytes] = {}
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._udp.setsockopt(socket.SOL_SOCKET, option, 1 << 21)
        self._udp.bind((address, PORT))
        self._wait = selectors.DefaultSelector()
        self._wait.register(self._udp, selectors.EVENT_READ, self._datagram)
        self._device_name, self._device_index = device, 0
        self._device: socket.socket | None = None
        listener = socket.socket(socket.AF_UNIX)
        Path(path).unlink(missing_ok=True)
        listener.bind(path)
        listener.listen()
        self._wait.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> None:
        """For ever."""
        next_beat = time.monotonic()
        while True:
            for key, _ in self._wait.select(max(0.0, next_beat - time.monotonic())):
                key.data(key.fileobj)
            now = time.monotonic()
            if now >= next_beat:
                self._open_device()
                self.mesh.look(now)
                self._beat()
                self._tell_via()
                next_beat = now + self.mesh.period

    def _open_device(self) -> None:
        """Have it up and listen to it; it is another one after its switch was restarted."""
        try:
            index = socket.if_nametoindex(self._device_name) if self._device_name else 0
        except OSError:
            return  # its switch is down
        if index == self._device_index:
            return
        if self._device is not None:
            self._wait.unregister(self._device)
            self._device.close()
        self._device = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
        # netdevice(7): ifr_name, ifr_flags.
        fcntl.ioctl(self._device, _SIOCSIFFLAGS, struct.pack("16sH22x", self._device_name.encode(), _IFF_UP))
        self._device.bind((self._device_name, _EVERY_PROTOCOL))
        self._wait.register(self._device, selectors.EVENT_READ, self._from_device)
        self._device_index = index

    def _beat(self) -> None:
        message = hello(self.mesh)
        for peer in self._names:
            self._send(peer, message)

    def _send(self, to: bytes, message: bytes) -> None:
        """To the peer itself."""
        if self._wrap is not None:
            with suppress(OSError):  # no way there now
                self._udp.sendto(self._wrap(message), (socket.inet_ntoa(to), PORT))

    def _datagram(self, sock: socket.socket) -> None:
        try:
            datagram, (sender, *_) = sock.recvfrom(_LARGEST)
        except OSError:
            return  # an ICMP error about something sent
        peer = socket.inet_aton(sender)
        message = self._unwrap(datagram) if peer in self._names and self._wrap is not None else None
        if not message:
            return
        if message[-1:] == _HELLO:
            with suppress(ValueError, zlib.error, KeyError):
                self.mesh.hear(*read_hello(message), time.monotonic())
        elif message[-1:] == _FRAME and len(message) > _ENDS.size + 1 + 14:
            self._frame(message)

    def _frame(self, message: bytes) -> None:
        target, source = _ENDS.unpack_from(message, len(message) - 1 - _ENDS.size)
        if target != self.address:
            self._send(self._hop(target), message)
        elif self._device is not None:
            frame = message[: -1 - _ENDS.size]
            self._forwarding.learn(frame, source)
            with suppress(OSError):  # the device is down
                self._device.send(frame)

    def _hop(self, target: bytes) -> bytes:
        """The peer to send to so that `target` gets it."""
        via = self._via.get(self._names.get(target, ""), "")
        return self._addresses.get(via, target)

    def _from_device(self, sock: socket.socket) -> None:
        try:
            frame, (_, _, kind, *_) = sock.recvfrom(_LARGEST)
        except OSError:
            return  # the device is down
        if kind == _OUTGOING or len(frame) < 14:
            return
        for peer in self._forwarding.to(frame, self._names):
            self._send(self._hop(peer), frame + _ENDS.pack(peer, self.address) + _FRAME)

    def _accept(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        self._agents[sock] = b""
        self._wait.register(sock, selectors.EVENT_READ, self._from_agent)

    def _from_agent(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(_LARGEST)
        except OSError:
            data = b""
        *lines, self._agents[sock] = (self._agents[sock] + data).split(b"\n")
        for line in lines:
            self._told(json.loads(line))
            self._say(sock)
        if not data:
            self._wait.unregister(sock)
            del self._agents[sock]
            sock.close()

    def _told(self, said: Mapping[str, object]) -> None:
        peers = said["peers"]
        assert isinstance(peers, dict)
        self._addresses = {name: socket.inet_aton(address) for name, address in peers.items()}
        self._names = {address: name for name, address in self._addresses.items()}
        self.mesh.peers = frozenset(peers)
        self._wrap, self._unwrap = seal(bytes.fromhex(str(said["key"])))

    def _tell_via(self) -> None:
        via = self.mesh.via()
        if via != self._via:
            self._via = via
            for sock in self._agents:
                self._say(sock)

    def _say(self, sock: socket.socket) -> None:
        with suppress(OSError):  # it goes, and its end is read next
            sock.sendall(json.dumps({"via": self._via}).encode() + b"\n")


def seal(key: bytes) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes | None]]:
    """Wrap and unwrap one datagram; unwrap gives None for what somebody without the key made."""
    if not key:
        return (lambda message: message), (lambda datagram: datagram)
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    box = SecretBox(key)

    def unwrap(datagram: bytes) -> bytes | None:
        try:
            return box.decrypt(datagram)
        except (CryptoError, ValueError):
            return None

    return (lambda message: bytes(box.encrypt(message))), unwrap


if __name__ == "__main__":
    name, address, path, *device = sys.argv[1:]
    Peer(name, address, path, device[0] if device else "").serve()

"""What of pods' packets is on a link: captured there, read by tshark, each with its headers, sizes and addresses."""

from __future__ import annotations

import socket
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from controllers.cni import Traits
from topo.cluster.errors import PlatformError
from topo.system import inside

# tshark(1), -T fields: every occurrence of a field, for a packet in a packet has two of each.
_FIELDS = ("frame.protocols", "ip.len", "ip.src", "ip.dst", "ip.flags.mf", "ip.frag_offset")
_EVERY_PROTOCOL, _ROOM = 0x0003, 1 << 22  # ETH_P_ALL (linux/if_ether.h); bytes
# Dissectors that it puts between two headers, which are none themselves.
_NO_HEADERS = ("ethertype",)


@dataclass(frozen=True, slots=True)
class Packet:
    """headers: as tshark names them, from what follows the outermost Ethernet header on. sizes, sources, targets: of
    each IP packet, outermost first; the size is its total length. fragment: of a larger one.
    """

    headers: tuple[str, ...]
    sizes: tuple[int, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    fragment: bool

    @property
    def size(self) -> int:
        """Bytes of the outermost IP packet."""
        return self.sizes[0]


def read(capture: Path, traits: Traits) -> list[Packet]:
    """The IP packets of a pcap file, the CNI's tunnel opened where it is not sealed. Raises PlatformError."""
    command = ["tshark", "-n", "-r", str(capture), "-Y", "ip", "-T", "fields", "-E", "separator=;", *_decode(traits)]
    for field in _FIELDS:
        command += ["-e", field]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PlatformError("tshark is not installed", "apt-get install tshark") from None
    if done.returncode != 0:
        raise PlatformError(f"tshark cannot read {capture.name}", done.stderr.strip()[-200:])
    return [_packet(line.split(";")) for line in done.stdout.splitlines()]


class Tap:
    """Keeps what passes an interface while the block runs: nothing is lost, for who sent it waits for the answer."""

    def __init__(self, pid: int, interface: str) -> None:
        """pid: a process in the interface's namespace."""
        with inside(pid):
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        self._sock.bind((interface, 0))
        self._sock.setblocking(False)
        self._frames: list[bytes] = []

    def __enter__(self) -> Tap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._sock:
            while True:
                try:
                    self._frames.append(self._sock.recv(1 << 16))
                except BlockingIOError:
                    return

    def packets(self, least: int, traits: Traits) -> list[Packet]:
        """IP packets of at least so many bytes that it kept. Raises PlatformError."""
        with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 16, 1))  # pcap-savefile(5), Ethernet
            for frame in self._frames:
                file.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
            file.flush()
            return [packet for packet in read(Path(file.name), traits) if packet.size >= least]


def added(traits: Traits, one_subnet: bool = True) -> tuple[tuple[str, ...], int]:
    """Headers and bytes that must be added to a pod's packet between two nodes. one_subnet: whether both are in one."""
    return ((), 0) if one_subnet and traits.only_between_subnets else (traits.headers, traits.overhead)


def is_added(traits: Traits, found: int, one_subnet: bool = True) -> bool:
    """Whether a packet that takes so many bytes more on the fabric than from its pod is as the traits say.

    WireGuard fills up what it seals to a multiple of 16 bytes (WireGuard, "Protocol": data messages).
    """
    headers, least = added(traits, one_subnet)
    return least <= found <= least + (15 if "wg" in headers else 0)


def unlike(
    traits: Traits, packets: Sequence[Packet], ends: Sequence[str], nodes: Sequence[str], one_subnet: bool = True
) -> list[str]:
    """What is not as the traits say of packets between two pods; a sentence each.

    packets: of the ones that were sent, all. ends, nodes: the pods' addresses, and their nodes'.
    """
    wanted, _ = added(traits, one_subnet)
    found = [] if packets else ["no packet was seen on the fabric"]
    for packet in packets:
        before, rest = packet.headers[: len(wanted)], packet.headers[len(wanted) :]
        seen = ":".join(packet.headers)
        if before != wanted:
            found.append(f"{seen} on the fabric, which does not begin with {':'.join(wanted)}")
        elif traits.sealed and rest[:1] == ("ip",):
            found.append(f"{seen}: what should be sealed can be read")
        elif not traits.sealed and rest[:1] != ("ip",):
            found.append(f"{seen}: no IP packet of a pod after {':'.join(wanted) or 'Ethernet'}")
        pairs = [{source, target} for source, target in zip(packet.sources, packet.targets, strict=True)]
        expected = ([set(nodes)] if wanted else []) + ([] if traits.sealed else [set(ends)])
        if pairs != expected:
            found.append(f"addresses {' in '.join(' and '.join(sorted(p)) for p in pairs[::-1])} on the fabric")
    return list(dict.fromkeys(found))


def _decode(traits: Traits) -> list[str]:
    """What a UDP port carries; tshark knows ports by IANA's list, and CNIs often use others."""
    if not traits.udp_port or traits.sealed:
        return []
    after = traits.headers[traits.headers.index("udp") + 1 :]
    return ["-d", f"udp.port=={traits.udp_port},{after[0] if after else 'ip'}"]


def _packet(fields: Sequence[str]) -> Packet:
    protocols, *others = fields
    sizes, sources, targets, more, offsets = (text.split(",") for text in others)
    headers = [name for name in protocols.split(":") if name not in _NO_HEADERS]
    is_fragment = "1" in more or "True" in more or any(offset not in ("0", "") for offset in offsets)
    return Packet(tuple(headers[1:]), tuple(map(int, sizes)), tuple(sources), tuple(targets), is_fragment)

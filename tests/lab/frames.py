"""Ethernet frames: made for sending, and read from what was captured."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(text: str) -> bytes:
    """A MAC's six bytes."""
    return bytes.fromhex(text.replace(":", ""))


def udp(source_mac: str, target_mac: str, source: str, target: str, port: int, payload: bytes = b"x") -> bytes:
    """A UDP datagram in IPv4 in Ethernet (RFC 768: checksum 0 is none)."""
    datagram = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload
    addresses = IPv4Address(source).packed + IPv4Address(target).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:]
    return mac(target_mac) + mac(source_mac) + b"\x08\x00" + head + datagram


def arp_request(source_mac: str, source: str, target: str) -> bytes:
    """Who has `target`? (RFC 826)"""
    body = struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + mac(source_mac) + IPv4Address(source).packed
    return mac(BROADCAST) + mac(source_mac) + b"\x08\x06" + body + bytes(6) + IPv4Address(target).packed


@dataclass(frozen=True)
class Packet:
    """An IPv4 packet as it was captured. payload: what follows its header."""

    source: str
    target: str
    protocol: int
    ttl: int
    payload: bytes

    def ports(self) -> tuple[int, int]:
        """Of UDP or TCP."""
        one, two = struct.unpack_from("!HH", self.payload)
        return one, two

    def vxlan(self) -> tuple[int, Packet]:
        """VNI and inner packet (RFC 7348, section 5)."""
        flags, vni = self.payload[8], int.from_bytes(self.payload[12:15], "big")
        assert flags & 0x08, "the VNI is not valid"
        return vni, parse(self.payload[16:])


def parse(frame: bytes) -> Packet:
    """The IPv4 packet in an Ethernet frame."""
    assert frame[12:14] == b"\x08\x00", f"not IPv4: {frame.hex()}"
    head = frame[14:]
    length = (head[0] & 15) * 4
    source, target = IPv4Address(head[12:16]), IPv4Address(head[16:20])
    return Packet(str(source), str(target), head[9], head[8], head[length:])


def read(file: Path) -> Iterator[bytes]:
    """The frames of a pcap file."""
    data = file.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    offset = 24
    while offset < len(data):
        (length,) = struct.unpack_from(f"{order}I", data, offset + 8)
        yield data[offset + 16 : offset + 16 + length]
        offset += 16 + length

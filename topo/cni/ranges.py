"""Which address comes next: ranges of addresses, as the IPAM plugin host-local has them; pure.

Source: containernetworking plugins, host-local's README: round robin from the last one given; the network's own
address, the gateway's and the broadcast address are never given.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

IP = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Range:
    """The addresses from start to end of a subnet, without its gateway."""

    subnet: IPv4Network | IPv6Network
    start: IP
    end: IP
    gateway: IP

    def __contains__(self, address: IP) -> bool:
        same = address.version == self.subnet.version
        return same and int(self.start) <= int(address) <= int(self.end) and address != self.gateway

    def __len__(self) -> int:
        return int(self.end) - int(self.start) + 1 - (int(self.start) <= int(self.gateway) <= int(self.end))

    def after(self, address: IP | None) -> Iterator[IP]:
        """Every address after this one, from the start for None."""
        first = int(self.start) if address is None else int(address) + 1
        found = (
            ip_address(number) if self.subnet.version == 4 else IPv6Address(number)
            for number in range(first, int(self.end) + 1)
        )
        return (one for one in found if one != self.gateway)


RangeSet = tuple[Range, ...]


def read(value: Mapping[str, Any]) -> Range:
    """A range of a configuration: subnet, and if it says so rangeStart, rangeEnd and gateway. Raises ValueError."""
    try:
        subnet = ip_network(str(value["subnet"]), strict=False)
    except KeyError:
        raise ValueError("subnet: is missing; expected a prefix, as 10.1.0.0/16") from None
    except ValueError as error:
        raise ValueError(f"subnet: {error}") from None
    if subnet.max_prefixlen - subnet.prefixlen < 2:
        raise ValueError(
            f"subnet: {subnet} is too small to allocate from; expected /{subnet.max_prefixlen - 2} or larger"
        )
    last = subnet.broadcast_address if subnet.version == 6 else subnet.broadcast_address - 1
    given = {}
    for name, default in (
        ("rangeStart", subnet.network_address + 1),
        ("rangeEnd", last),
        ("gateway", subnet.network_address + 1),
    ):
        try:
            given[name] = ip_address(value[name]) if value.get(name) else default
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    for name in ("rangeStart", "rangeEnd"):
        if given[name] not in subnet:
            raise ValueError(f"{name}: {given[name]} is not in {subnet}")
    if int(given["rangeStart"]) > int(given["rangeEnd"]):
        raise ValueError(f"rangeEnd: {given['rangeEnd']} is before {given['rangeStart']}")
    return Range(subnet, given["rangeStart"], given["rangeEnd"], given["gateway"])


def candidates(ranges: RangeSet, last: IP | None) -> Iterator[IP]:
    """Every address of the set once, those after the last one first, itself at the end."""
    at = next((i for i, one in enumerate(ranges) if last is not None and last in one), None)
    if at is None or last is None:
        for one in ranges:
            yield from one.after(None)
        return
    yield from ranges[at].after(last)
    for one in (*ranges[at + 1 :], *ranges[:at]):
        yield from one.after(None)
    yield from (address for address in ranges[at].after(None) if int(address) <= int(last))


def next_free(ranges: RangeSet, taken: Container[IP], last: IP | None) -> IP | None:
    """The address to give out now; None if every one is taken."""
    return next((address for address in candidates(ranges, last) if address not in taken), None)


def range_of(ranges: Sequence[Range], address: IP) -> Range | None:
    """The range an address is of."""
    return next((one for one in ranges if address in one), None)

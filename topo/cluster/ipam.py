"""Address pools: no address twice, a released one is used again as late as possible, an empty pool says so."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from itertools import chain


class Exhausted(Exception):
    """The pool has no free address; the message names it."""


class AddressPool:
    """The host addresses of a network less some reserved ones.

    first: offset of the first address given out by `take` (addresses before it may still be claimed by name).
    """

    def __init__(self, network: IPv4Network, reserved: Iterable[IPv4Address] = (), first: int = 1) -> None:
        self.network = network
        self._base = int(network.network_address)
        self._end = network.num_addresses - (1 if network.prefixlen < 31 else 0)  # without the broadcast address
        self._first = first
        self._reserved = {int(a) - self._base for a in reserved}
        self._used: set[int] = set()
        self._next = first

    def take(self) -> IPv4Address:
        """The next free address after the one given last, so that an address rests before it is used again.

        Raises Exhausted.
        """
        span = self._end - self._first
        after = (self._first + (self._next - self._first + step) % span for step in range(span))
        # The band for chosen ones is used up last (KEP-3070).
        for offset in chain(after, range(1, min(self._first, self._end))):
            if offset not in self._used and offset not in self._reserved:
                self._used.add(offset)
                self._next = max(self._first, offset + 1)
                return IPv4Address(self._base + offset)
        raise Exhausted(f"{self.network} has no free address: {len(self._used)} in use")

    def claim(self, address: IPv4Address) -> bool:
        """Take this very address; False if it is in use or not of this pool."""
        offset = int(address) - self._base
        if not 0 < offset < self._end or offset in self._used or offset in self._reserved:
            return False
        self._used.add(offset)
        return True

    def release(self, address: IPv4Address) -> None:
        """Give an address back; one that is free already is no error."""
        self._used.discard(int(address) - self._base)

    def __len__(self) -> int:
        return len(self._used)


def service_pool(network: IPv4Network) -> AddressPool:
    """ClusterIPs: automatic ones come from above the band kept for those chosen by hand.

    Source: KEP-3070, band of min(max(16, size/16), 256) addresses. The first is the API server's.
    """
    size = network.num_addresses
    band = min(max(16, size // 16), 256) if size > 32 else 2
    return AddressPool(network, [network.network_address + 1], first=band)

"""Who has which address, kept in files as host-local keeps them: one an address, under a lock for all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

from topo.cni.lock import exclusive
from topo.cni.ranges import IP

Owner = tuple[str, str]  # container and interface


class Reservations:
    """One network's folder; only within `locked`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def taken(self) -> dict[IP, Owner]:
        """Every address that somebody has."""
        found: dict[IP, Owner] = {}
        for entry in os.scandir(self._folder):
            with suppress(ValueError):  # the lock, the last one given
                address = ip_address(entry.name)
                container, _, ifname = Path(entry.path).read_text().partition("\n")
                found[address] = container.strip(), ifname.strip()
        return found

    def addresses(self) -> set[IP]:
        """The addresses alone, which no file needs to be opened for."""
        found: set[IP] = set()
        for name in os.listdir(self._folder):  # noqa: PTH208  (a Path for each would take ten times as long)
            with suppress(ValueError):
                found.add(ip_address(name))
        return found

    def take(self, address: IP, owner: Owner, number: int | None) -> None:
        """Write down an owner. number: of the range set whose last address this is, None for one that was asked for."""
        (self._folder / str(address)).write_text(f"{owner[0]}\r\n{owner[1]}")
        if number is not None:
            self._last(number).write_text(str(address))

    def release(self, address: IP) -> None:
        """Forget its owner."""
        (self._folder / str(address)).unlink(missing_ok=True)

    def last(self, number: int) -> IP | None:
        """What the range set gave last."""
        with suppress(OSError, ValueError):
            return ip_address(self._last(number).read_text().strip())
        return None

    def _last(self, number: int) -> Path:
        return self._folder / f"last_reserved_ip.{number}"


@contextmanager
def locked(folder: Path) -> Iterator[Reservations]:
    """The reservations, for this process alone."""
    with exclusive(folder / "lock"):
        yield Reservations(folder)

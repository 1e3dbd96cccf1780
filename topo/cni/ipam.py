"""The plugin mininetes-ipam: addresses from ranges, with the fields of host-local in `ipam`.

Addresses are asked for by runtimeConfig.ips, args.cni.ips or CNI_ARGS' IP, the first of them that is there (CNI,
CONVENTIONS.md). One that is taken or of no range is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

from topo.cni import ranges
from topo.cni.errors import CniError, Code
from topo.cni.program import run
from topo.cni.protocol import Call
from topo.cni.ranges import IP, Range, RangeSet
from topo.cni.reservations import Owner, Reservations, locked
from topo.cni.result import Address, Result, Route

# Where reservations are if the configuration says nothing; in a lab, which has a /run of its own, they end with it.
FOLDER = "/run/mininetes/cni/networks"
_KNOWN = ("type", "ranges", "subnet", "rangeStart", "rangeEnd", "gateway", "routes", "dataDir")


class Ipam:
    """The plugin; see topo/cni/protocol.py."""

    def add(self, call: Call) -> Result:
        """One address of every range set, all or none."""
        ipam, sets = _ipam(call.config)
        routes, wanted = _routes(ipam), _wanted(call)
        strange = [str(ip) for ip in wanted if all(ranges.range_of(one, ip) is None for one in sets)]
        if strange:
            raise CniError(Code.ADDRESS_TAKEN, f"{', '.join(strange)}: not one of {_text(sets)}")
        given: list[tuple[IP, Range]] = []
        with locked(_folder(call)) as kept:
            try:
                for number, one in enumerate(sets):
                    given.append(_take(kept, number, one, (call.container, call.ifname), wanted))
            except CniError:
                for address, _ in given:
                    kept.release(address)
                raise
        ips = tuple(Address(ip_interface(f"{ip}/{one.subnet.prefixlen}"), one.gateway) for ip, one in given)
        return Result(ips=ips, routes=routes, dns=call.config.get("dns"))

    def delete(self, call: Call) -> None:
        """Give back what it has."""
        with locked(_folder(call)) as kept:
            for address, owner in kept.taken().items():
                if owner == (call.container, call.ifname):
                    kept.release(address)

    def check(self, call: Call) -> None:
        """Whether it has what prevResult says, of our ranges."""
        _, sets = _ipam(call.config)
        with locked(_folder(call)) as kept:
            mine = {ip for ip, owner in kept.taken().items() if owner == (call.container, call.ifname)}
        listed = {one.address.ip for one in (call.previous or Result()).ips}
        ours = {ip for ip in listed if any(ip in one for ranges_ in sets for one in ranges_)}
        if not mine or not ours <= mine:
            said = ", ".join(map(str, sorted(map(str, ours - mine)))) or "any address"
            raise CniError(Code.NOT_AS_MADE, f"no reservation of {said} for {call.container}")

    def status(self, call: Call) -> None:
        """Whether every range set has an address left."""
        _, sets = _ipam(call.config)
        with locked(_folder(call)) as kept:
            taken = kept.addresses()
        for one in sets:
            if sum(any(ip in part for part in one) for ip in taken) >= sum(map(len, one)):
                raise CniError(Code.UNAVAILABLE, f"no IP addresses available in range set: {_text([one])}")

    def collect(self, call: Call) -> None:
        """Give back what belongs to none of the valid attachments."""
        with locked(_folder(call)) as kept:
            for address, owner in kept.taken().items():
                if owner not in call.valid:
                    kept.release(address)


def main() -> int:
    """Console script mininetes-ipam."""
    return run(Ipam())


def _take(kept: Reservations, number: int, one: RangeSet, owner: Owner, wanted: list[IP]) -> tuple[IP, Range]:
    """An address of a set: what is wanted of it, else the next. Raises CniError."""
    taken = kept.addresses()
    asked = next((ip for ip in wanted if ranges.range_of(one, ip)), None)
    if asked is not None and asked in taken:
        raise CniError(Code.ADDRESS_TAKEN, f"{asked} is in use")
    ip = asked or ranges.next_free(one, taken, kept.last(number))
    if ip is None:
        raise CniError(Code.TRY_LATER, f"no IP addresses available in range set: {_text([one])}")
    kept.take(ip, owner, number if asked is None else None)
    found = ranges.range_of(one, ip)
    assert found is not None  # next_free gives addresses of the set
    return ip, found


def _ipam(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[RangeSet]]:
    """The section and its range sets. Raises CniError."""
    ipam = config.get("ipam")
    if not isinstance(ipam, dict):
        raise CniError(Code.INVALID_CONFIG, "ipam: is missing", "expected an object with `ranges` or `subnet`")
    for key in ipam:
        if key not in _KNOWN:
            raise CniError(Code.UNSUPPORTED_FIELD, f"ipam.{key}: {ipam[key]!r}", f"known are {', '.join(_KNOWN)}")
    listed = [*([[ipam]] if "subnet" in ipam else []), *(ipam.get("ranges") or [])]
    if not listed:
        raise CniError(Code.INVALID_CONFIG, "ipam.ranges: no range", "expected `ranges` or `subnet`")
    try:
        return ipam, [tuple(ranges.read(one) for one in each) for each in listed if each]
    except (ValueError, TypeError, AttributeError) as error:
        raise CniError(Code.INVALID_CONFIG, f"ipam.{error}") from error


def _routes(ipam: Mapping[str, Any]) -> tuple[Route, ...]:
    try:
        return tuple(
            Route(str(one["dst"]), ip_address(one["gw"]) if one.get("gw") else None) for one in ipam.get("routes") or ()
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CniError(Code.INVALID_CONFIG, f"ipam.routes: {error}", 'expected [{"dst": "0.0.0.0/0"}]') from error


def _wanted(call: Call) -> list[IP]:
    args = (call.config.get("args") or {}).get("cni") or {}
    texts = call.told.get("ips") or args.get("ips") or ([call.args["IP"]] if call.args.get("IP") else [])
    try:
        return [ip_interface(text).ip for text in texts]
    except ValueError as error:
        raise CniError(Code.INVALID_CONFIG, f"an address that is asked for: {error}") from error


def _folder(call: Call) -> Path:
    ipam = call.config.get("ipam") or {}
    return Path(ipam.get("dataDir") or FOLDER) / call.network


def _text(sets: list[RangeSet]) -> str:
    return ", ".join(f"{one.start}-{one.end}" for each in sets for one in each)

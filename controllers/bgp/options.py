"""What a lab file says of BGP: mininetes.cni's options of a CNI that speaks it, and the section mininetes.bgp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from controllers.state import Lab
from topo.cluster.errors import InputError

# Options of mininetes.cni beside the CNI's own.
OPTIONS = ("speaker", "peering", "reflectors", "asn", "holdTime", "gracefulRestart", "bfd")
SPEAKERS = ("controller", "bird")
PEERINGS = ("mesh", "reflector")
OUTSIDE_ROUTERS = ("bird", "frr")
# Calico, "Configure BGP peering": the default AS number of a cluster.
ASN, OUTSIDE_ASN = 64512, 64513
_SECTION = ("outsideRouter", "outsideAsn", "peers", "serviceSubnet")
# RFC 6793: AS numbers have four octets; 0 and 23456 are no AS's (RFC 7607, RFC 6793), the last is reserved (RFC 7300).
_NO_ASN = (0, 23456, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Peer:
    """A router that every node speaks to."""

    address: str
    asn: int


@dataclass(frozen=True, slots=True)
class Bgp:
    """How the nodes of a lab speak BGP.

    speaker: "controller" (a RIB there, routes as flows) or "bird". reflectors: how many nodes are route reflectors if
    peering is "reflector". hold_time: seconds without a message after which a session ends. peers: beside the nodes.
    outside: what routes in the machine outside the cluster, "bird", "frr" or "". service_subnet: whether nodes announce
    the Services' subnet too.
    """

    speaker: str = "controller"
    peering: str = "mesh"
    reflectors: int = 2
    asn: int = ASN
    hold_time: int = 90
    graceful_restart: bool = True
    bfd: bool = False
    outside: str = ""
    outside_asn: int = OUTSIDE_ASN
    peers: tuple[Peer, ...] = ()
    service_subnet: bool = False

    @property
    def on_the_wire(self) -> bool:
        """Whether nodes have BGP sessions."""
        return self.speaker == "bird"


def read(cni: Mapping[str, object], section: Mapping[str, object]) -> Bgp:
    """From the options of the CNI and the section mininetes.bgp. Raises InputError, placed by lab file field."""
    where, own = "mininetes.cni", "mininetes.bgp"
    for key in section:
        if key not in _SECTION:
            raise InputError(f"{own}.{key}", "there is no such option", f"one of: {', '.join(_SECTION)}")
    found = Bgp(
        speaker=_choice(where, cni, "speaker", SPEAKERS),
        peering=_choice(where, cni, "peering", PEERINGS),
        reflectors=_number(where, cni, "reflectors", 2, 1, 2),
        asn=_asn(where, cni, "asn", ASN),
        hold_time=_number(where, cni, "holdTime", 90, 3, 65535),  # RFC 4271, section 4.2: 0, or 3 at least
        graceful_restart=_switch(where, cni, "gracefulRestart", True),
        bfd=_switch(where, cni, "bfd", False),
        outside=_choice(own, section, "outsideRouter", OUTSIDE_ROUTERS) if "outsideRouter" in section else "",
        outside_asn=_asn(own, section, "outsideAsn", OUTSIDE_ASN),
        peers=_peers(section.get("peers", ())),
        service_subnet=_switch(own, section, "serviceSubnet", False),
    )
    given = [key for key in (*OPTIONS[1:], *section) if key in cni or key in section]
    if given and not found.on_the_wire:
        place = where if given[0] in cni else own
        raise InputError(f"{place}.{given[0]}", "no BGP is spoken on the wire", f"{where}.speaker: bird")
    return found


def of(lab: Lab) -> Bgp:
    """How the nodes of this lab speak BGP; if they do not, the controller has the routes."""
    return of_cni(lab.options.get("cni", {}), lab.options.get("bgp", {}))


def of_cni(options: Mapping[str, object], section: Mapping[str, object] | None = None) -> Bgp:
    """From all options of a CNI, of which some are not of BGP. Raises InputError."""
    return read({key: value for key, value in options.items() if key in OPTIONS}, section or {})


def _choice(where: str, given: Mapping[str, object], key: str, allowed: tuple[str, ...]) -> str:
    value = given.get(key, allowed[0])
    if value not in allowed:
        raise InputError(f"{where}.{key}", f"{value!r} is none", " or ".join(allowed))
    return str(value)


def _number(where: str, given: Mapping[str, object], key: str, default: int, low: int, high: int) -> int:
    value = given.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{where}.{key}", f"{value!r} is out of range", f"{low} to {high}")
    return value


def _asn(where: str, given: Mapping[str, object], key: str, default: int) -> int:
    value = _number(where, given, key, default, 1, 0xFFFFFFFE)
    if value in _NO_ASN:
        raise InputError(f"{where}.{key}", f"{value} is no AS number", "64512 to 65534 for private use")
    return value


def _switch(where: str, given: Mapping[str, object], key: str, default: bool) -> bool:
    value = given.get(key, default)
    if not isinstance(value, bool):
        raise InputError(f"{where}.{key}", f"{value!r} is wrong", "true or false")
    return value


def _peers(value: Any) -> tuple[Peer, ...]:
    where, expected = "mininetes.bgp.peers", "a list of {address: IPV4, asn: NUMBER}"
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(where, f"{value!r} is wrong", expected)
    return tuple(_peer(f"{where}[{number}]", one, expected) for number, one in enumerate(value))


def _peer(where: str, value: Any, expected: str) -> Peer:
    if not isinstance(value, Mapping) or set(value) != {"address", "asn"}:
        raise InputError(where, f"{value!r} is no peer", expected)
    try:
        address = str(IPv4Address(value["address"]))
    except ValueError:
        raise InputError(f"{where}.address", f"{value['address']!r} is no IPv4 address", expected) from None
    return Peer(address, _asn(where, value, "asn", 0))

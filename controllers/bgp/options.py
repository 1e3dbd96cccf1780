"""What a lab file says of BGP: mininetes.cni's options of a CNI that speaks it, and the section mininetes.bgp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from controllers.rib import DEFAULT_LOCAL_PREFERENCE, Community, Rule
from controllers.state import Lab
from topo.cluster.errors import InputError

# Options of mininetes.cni beside the CNI's own.
OPTIONS = ("speaker", "peering", "reflectors", "asn", "holdTime", "gracefulRestart", "bfd")
SPEAKERS = ("controller", "bird", "ryu")
PEERINGS = ("mesh", "reflector", "tor")
OUTSIDE_ROUTERS = ("bird", "frr")
# Calico, "Configure BGP peering": the default AS number of a cluster.
ASN, OUTSIDE_ASN = 64512, 64513
# The spines' AS of a routed fabric, of which leaves have the next ones: the first for private use (RFC 6996).
ROUTER_ASN = 4200000000
# Of these only the first two mean something to the controller's RIB too.
_SECTION = ("announce", "import", "outsideRouter", "outsideAsn", "peers", "serviceSubnet")
# RFC 6793: AS numbers have four octets; 0 and 23456 are no AS's (RFC 7607, RFC 6793), the last is reserved (RFC 7300).
_NO_ASN = (0, 23456, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Peer:
    """A router that every node speaks to."""

    address: str
    asn: int


@dataclass(frozen=True, slots=True)
class Announced:
    """A prefix that some nodes announce beside their pods': an address of their own, the same on several perhaps."""

    prefix: str
    nodes: tuple[str, ...]
    local_preference: int = DEFAULT_LOCAL_PREFERENCE
    med: int = 0
    communities: frozenset[Community] = frozenset()


@dataclass(frozen=True, slots=True)
class Bgp:
    """How the nodes of a lab speak BGP.

    speaker: "controller" (a RIB there, routes as flows), "bird" or "ryu" on every node. peering: "mesh" of all nodes;
    "reflector", with so many nodes as reflectors; "tor", each node with its rack's router. hold_time: seconds without a
    message after which a session ends. peers: beside the nodes. outside: what routes in the machine outside the
    cluster, "bird", "frr" or "". service_subnet: whether nodes announce the Services' subnet too. announced: further
    prefixes of nodes. imports: what nodes do with what other nodes tell them; what no rule is about is taken as it is.
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
    announced: tuple[Announced, ...] = ()
    imports: tuple[Rule, ...] = ()

    def own(self, node: str) -> tuple[Announced, ...]:
        """What this node announces beside its pods."""
        return tuple(one for one in self.announced if node in one.nodes)

    @property
    def on_the_wire(self) -> bool:
        """Whether nodes have BGP sessions."""
        return self.speaker != "controller"


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
        announced=tuple(_announced(*one) for one in _items(section, "announce")),
        imports=tuple(_rule(*one) for one in _items(section, "import")),
    )
    wire = (*OPTIONS[1:], *_SECTION[2:])
    for where_, number in ((f"{where}.asn", found.asn), (f"{own}.outsideAsn", found.outside_asn)):
        if found.peering == "tor" and ROUTER_ASN <= number < ROUTER_ASN + 64:
            raise InputError(where_, f"{number} is the AS of a switch", "another")
    given = [key for key in wire if key in cni or key in section]
    if given and not found.on_the_wire:
        place = where if given[0] in cni else own
        raise InputError(f"{place}.{given[0]}", "no BGP is spoken on the wire", f"{where}.speaker: bird")
    if found.speaker == "ryu":
        _check_ryu(cni, section, found)
    return found


def _check_ryu(cni: Mapping[str, object], section: Mapping[str, object], found: Bgp) -> None:
    """What Ryu 4.34's speaker cannot do (its neighbors' and speaker's settings). Raises InputError."""
    lacks = [f"mininetes.cni.{key}" for key in ("holdTime", "gracefulRestart", "bfd") if key in cni]
    lacks += ["mininetes.cni.peering"] if found.peering == "tor" else []
    lacks += ["mininetes.bgp.import"] if found.imports else []
    plain = all(one == Announced(one.prefix, one.nodes) for one in found.announced)
    lacks += [] if plain else ["mininetes.bgp.announce"]
    if lacks:
        said = "Ryu's speaker holds sessions for 40 s, and has no BFD, graceful restart, import rules or attributes"
        raise InputError(lacks[0], said, "mininetes.cni.speaker: bird")


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


def _items(section: Mapping[str, object], key: str) -> list[tuple[str, Mapping[str, Any]]]:
    """(place, fields) of each item of a list of the section."""
    where, value = f"mininetes.bgp.{key}", section.get(key, ())
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(where, f"{value!r} is wrong", "a list")
    for number, one in enumerate(value):
        if not isinstance(one, Mapping):
            raise InputError(f"{where}[{number}]", f"{one!r} is wrong", "a mapping")
    return [(f"{where}[{number}]", one) for number, one in enumerate(value)]


def _announced(where: str, given: Mapping[str, Any]) -> Announced:
    _known(where, given, ("prefix", "nodes", "localPreference", "med", "communities"))
    nodes = given.get("nodes")
    if not isinstance(nodes, Sequence) or isinstance(nodes, str) or not nodes:
        raise InputError(f"{where}.nodes", f"{nodes!r} is wrong", "a list of nodes' names")
    return Announced(
        _prefix(where, given),
        tuple(map(str, nodes)),
        _number(where, given, "localPreference", DEFAULT_LOCAL_PREFERENCE, 0, 0xFFFFFFFF),
        _number(where, given, "med", 0, 0, 0xFFFFFFFF),
        _communities(f"{where}.communities", given.get("communities", ())),
    )


def _rule(where: str, given: Mapping[str, Any]) -> Rule:
    _known(where, given, ("action", "prefix", "shortest", "longest", "community", "localPreference", "addCommunities"))
    if "action" not in given:
        raise InputError(f"{where}.action", "the field is missing", "accept or reject")
    community = _communities(f"{where}.community", [given["community"]]) if "community" in given else frozenset()
    preference = _number(where, given, "localPreference", 0, 0, 0xFFFFFFFF) if "localPreference" in given else None
    shortest, longest = (_number(where, given, *ends, 0, 32) for ends in (("shortest", 0), ("longest", 32)))
    prefix = _prefix(where, given) if "prefix" in given else ""
    if longest < max(shortest, int(prefix.partition("/")[2] or 0)):
        raise InputError(f"{where}.longest", f"no prefix is as short as /{longest} here", "a greater length")
    return Rule(
        _choice(where, given, "action", ("accept", "reject")) == "accept",
        prefix,
        shortest,
        longest,
        next(iter(community), None),
        preference,
        _communities(f"{where}.addCommunities", given.get("addCommunities", ())),
    )


def _known(where: str, given: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    for key in given:
        if key not in fields:
            raise InputError(f"{where}.{key}", "there is no such field", f"one of: {', '.join(fields)}")


def _prefix(where: str, given: Mapping[str, Any]) -> str:
    try:
        return str(IPv4Network(given.get("prefix", "")))
    except ValueError as error:
        raise InputError(f"{where}.prefix", str(error) or "the field is missing", "as 192.0.2.0/24") from None


def _communities(where: str, value: Any) -> frozenset[Community]:
    """Of texts as 64512:100 (RFC 1997)."""
    found = set()
    for text in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        one, colon, two = str(text).partition(":")
        if not (colon and one.isdecimal() and two.isdecimal() and int(one) < 65536 and int(two) < 65536):
            raise InputError(where, f"{text!r} is no community", 'a text as "64512:100"')
        found.add((int(one), int(two)))
    return frozenset(found)

"""What Calico refuses of its policies and network sets although their schema allows it, and what nothing here enforces.

Source: Calico, "Network policy" and "Global network policy" with the rules of its API (projectcalico.org/v3). Refused
as not enforced here: tiers other than default, service accounts' labels, Services, HTTP, and names among notPorts and
source ports.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from topo import manifest_rules
from topo.cluster import selectors
from topo.manifest_rules import Object, Path, Problem
from topo.policy_schemas import CALICO
from topo.yaml_source import show

ACTIONS = ("Allow", "Deny", "Log", "Pass")
TYPES = ("Ingress", "Egress")
_WITH_PORTS = ("TCP", "UDP", "SCTP")
_PROTOCOLS = (*_WITH_PORTS, "ICMP", "ICMPv6", "UDPLite")
_MOST_RULES, _MOST_PORTS, _MOST_NETS, _MOST_TEXT = 1024, 50, 256, 1024
_HERE = "is not enforced here"


def problems(thing: Object) -> Iterator[Problem]:
    """Everything the rules find in an object of Calico's that fits its schema; nothing for other kinds."""
    if thing["apiVersion"] != CALICO:
        return
    spec = thing["spec"]
    if thing["kind"] in ("NetworkSet", "GlobalNetworkSet"):
        yield from _networks(("spec", "nets"), spec.get("nets", []))
        return
    if spec.get("tier", "default") != "default":
        yield Problem(("spec", "tier"), f"tier {show(spec['tier'])} {_HERE}", "default, or no tier")
    if spec.get("serviceAccountSelector"):
        yield Problem(("spec", "serviceAccountSelector"), _HERE, "a selector by the pods' own labels")
    for name in ("selector", "namespaceSelector"):
        yield from _selector(("spec", name), spec.get(name, ""))
    for i, one in enumerate(spec.get("types", ())):
        if one not in TYPES or one in spec["types"][:i]:
            yield Problem(("spec", "types", i), f"{show(one)} is no policy type, or is there twice", "Ingress, Egress")
    yield from _for_hosts(spec)
    for side in ("ingress", "egress"):
        rules = spec.get(side, [])
        if len(rules) > _MOST_RULES:
            yield Problem(("spec", side), f"{len(rules)} rules", f"at most {_MOST_RULES}")
        for i, rule in enumerate(rules):
            yield from _rule(("spec", side, i), rule)


def fill_defaults(thing: Object) -> None:
    """Fill in, in place, what Calico's API would: types."""
    spec = thing.get("spec", {})
    if thing["apiVersion"] == CALICO and thing["kind"] in ("NetworkPolicy", "GlobalNetworkPolicy"):
        given = [kind for kind in TYPES if spec.get(kind.lower())]
        spec["types"] = spec.get("types") or given or ["Ingress"]


def _for_hosts(spec: Object) -> Iterator[Problem]:
    """doNotTrack and preDNAT: such policies are for host endpoints alone."""
    for name in ("doNotTrack", "preDNAT"):
        if spec.get(name) and not spec.get("applyOnForward"):
            yield Problem(("spec", name), "is true without applyOnForward", "applyOnForward: true")
    if spec.get("preDNAT") and (spec.get("egress") or "Egress" in spec["types"]):
        yield Problem(("spec", "preDNAT"), "is true in a policy with egress", "ingress alone")


def _rule(at: Path, rule: Object) -> Iterator[Problem]:
    if rule["action"] not in ACTIONS:
        yield Problem((*at, "action"), f"unknown action {show(rule['action'])}", f"one of {', '.join(ACTIONS)}")
    if "http" in rule:
        yield Problem((*at, "http"), _HERE, "a rule without it")
    if rule.get("ipVersion", 4) not in (4, 6):
        yield Problem((*at, "ipVersion"), f"{rule['ipVersion']} is no version", "4 or 6")
    for name in ("protocol", "notProtocol"):
        yield from _protocol((*at, name), rule.get(name))
    for name in ("icmp", "notICMP"):
        yield from _icmp((*at, name), rule.get(name, {}), rule.get("protocol"))
    for name in ("source", "destination"):
        yield from _entity((*at, name), rule.get(name, {}), rule.get("protocol"))


def _protocol(at: Path, given: Any) -> Iterator[Problem]:
    number = int(given) if str(given).isdigit() else given
    good = 1 <= number <= 255 if isinstance(number, int) else given is None or _known(given, _PROTOCOLS)
    if not good:
        yield Problem(at, f"unknown protocol {show(given)}", f"one of {', '.join(_PROTOCOLS)}, or 1 to 255")


def _known(name: Any, names: tuple[str, ...]) -> bool:
    """Calico does not mind upper and lower case here."""
    return str(name).lower() in (known.lower() for known in names)


def _icmp(at: Path, fields: Object, protocol: Any) -> Iterator[Problem]:
    if fields and not (_known(protocol, ("ICMP", "ICMPv6")) or str(protocol) in ("1", "58")):
        yield Problem(at, "is there without the protocol", "protocol: ICMP beside it")
    if "code" in fields and "type" not in fields:
        yield Problem((*at, "code"), "is there without a type", "type beside it")
    for name, last in (("type", 254), ("code", 255)):
        if not 0 <= fields.get(name, 0) <= last:
            yield Problem((*at, name), f"{fields[name]} is out of range", f"0 to {last}")


def _entity(at: Path, entity: Object, protocol: Any) -> Iterator[Problem]:
    if "services" in entity:
        yield Problem((*at, "services"), _HERE, "a selector of the pods, or nets")
    if entity.get("serviceAccounts", {}).get("selector"):
        yield Problem((*at, "serviceAccounts", "selector"), _HERE, "names of service accounts")
    for name in ("nets", "notNets"):
        yield from _networks((*at, name), entity.get(name, []))
    for name in ("selector", "notSelector"):
        yield from _selector((*at, name), entity.get(name, ""))
    yield from _selector((*at, "namespaceSelector"), entity.get("namespaceSelector", ""), selectors.parse_namespaces)
    for name in ("ports", "notPorts"):
        ports = entity.get(name, [])
        if ports and not (_known(protocol, _WITH_PORTS) or str(protocol) in ("6", "17", "132")):
            yield Problem((*at, name), "are there without a protocol", f"protocol: {' or '.join(_WITH_PORTS)} beside")
        if len(ports) > _MOST_PORTS:
            yield Problem((*at, name), f"{len(ports)} ports", f"at most {_MOST_PORTS}")
        for i, port in enumerate(ports):
            yield from _port((*at, name, i), port, name == "ports" and at[-1] == "destination")


def _port(at: Path, port: int | str, name_allowed: bool) -> Iterator[Problem]:
    first, colon, last = str(port).partition(":")
    if first.isdigit() and (last.isdigit() or not colon):
        if not 0 <= int(first) <= int(last or first) <= 65535:
            yield Problem(at, f"{show(port)} is no port and no range", 'a number, or "FIRST:LAST", up to 65535')
        return
    if colon or not isinstance(port, str):
        yield Problem(at, f"{show(port)} is no port and no range", 'a number, or "FIRST:LAST", up to 65535')
    elif not name_allowed:
        yield Problem(at, f"a port's name {_HERE} in this place", "a number, or among a destination's ports")
    else:
        yield from manifest_rules.port_number(at, port, name_allowed=True)


def _networks(at: Path, nets: list[str]) -> Iterator[Problem]:
    if len(nets) > _MOST_NETS:
        yield Problem(at, f"{len(nets)} networks", f"at most {_MOST_NETS}")
    for i, text in enumerate(nets):
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            yield Problem((*at, i), f"{show(text)} is no network", "ADDRESS/PREFIX, as 10.0.0.0/8, or an address")


def _selector(at: Path, text: str, parse: Any = selectors.parse) -> Iterator[Problem]:
    if len(text) > _MOST_TEXT:
        yield Problem(at, f"{len(text)} characters", f"at most {_MOST_TEXT}")
    try:
        parse(text)
    except selectors.BadSelector as error:
        yield Problem(at, f"{show(text)} is no selector: {error}", "as role == 'web' && !has(canary)")

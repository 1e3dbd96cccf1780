"""What Kubernetes refuses of a policy although its schema allows it.

Sources: the API reference of networking.k8s.io/v1 and the API server's rules of networking/v1; the API specification of
policy.networking.k8s.io/v1alpha1 with its validation rules. Ours alone: egress to `nodes` is refused, for it is
experimental there and nothing here would enforce it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from topo import manifest_rules
from topo.cluster.store import kind_of
from topo.manifest_rules import Object, Path, Problem
from topo.yaml_source import show

PROTOCOLS = ("TCP", "UDP", "SCTP")
_ACTIONS = {"AdminNetworkPolicy": ("Allow", "Deny", "Pass"), "BaselineAdminNetworkPolicy": ("Allow", "Deny")}
_MOST = {"rules": 100, "peers": 100, "ports": 100, "networks": 25}
_SIDES = (("ingress", "from"), ("egress", "to"))


def problems(thing: Object) -> Iterator[Problem]:
    """Everything the rules find in a policy that fits its schema; nothing for other kinds."""
    match kind_of(thing):
        case "NetworkPolicy":
            yield from _network_policy(thing.get("spec", {}))
        case "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy":
            yield from _admin(thing["kind"], thing["metadata"].get("name", ""), thing["spec"])


def fill_defaults(thing: Object) -> None:
    """Fill in, in place, what the API server would: policyTypes and protocols."""
    spec = thing.get("spec", {})
    if kind_of(thing) == "NetworkPolicy":
        spec = thing.setdefault("spec", {})
        spec.setdefault("podSelector", {})
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
        for side, _ in _SIDES:
            for port in (p for rule in spec.get(side, ()) for p in rule.get("ports", ())):
                port["protocol"] = port.get("protocol") or "TCP"
    elif thing["kind"] in _ACTIONS:
        for side, _ in _SIDES:
            for port in (p for rule in spec.get(side, ()) for p in rule.get("ports", ())):
                for kind in ("portNumber", "portRange"):
                    if kind in port:
                        port[kind]["protocol"] = port[kind].get("protocol") or "TCP"


def _network_policy(spec: Object) -> Iterator[Problem]:
    yield from manifest_rules.label_selector(("spec", "podSelector"), spec.get("podSelector", {}))
    types = spec.get("policyTypes", [])
    for i, one in enumerate(types):
        if one not in ("Ingress", "Egress"):
            yield Problem(("spec", "policyTypes", i), f"unknown policy type {show(one)}", "one of Ingress, Egress")
    if len(types) > 2:
        yield Problem(("spec", "policyTypes"), f"{len(types)} policy types", "at most two")
    for side, end in _SIDES:
        for i, rule in enumerate(spec.get(side, ())):
            at: Path = ("spec", side, i)
            for j, port in enumerate(rule.get("ports", ())):
                yield from _port((*at, "ports", j), port)
            for j, peer in enumerate(rule.get(end, ())):
                yield from _peer((*at, end, j), peer)


def _port(at: Path, port: Object) -> Iterator[Problem]:
    number, last = port.get("port"), port.get("endPort")
    yield from _protocol(at, port)
    if number is not None:
        yield from manifest_rules.port_number((*at, "port"), number, name_allowed=True)
    if last is not None:
        if not isinstance(number, int):
            yield Problem((*at, "endPort"), "is there without a port's number", "a number in port, or no endPort")
        elif not number <= last <= 65535:
            yield Problem((*at, "endPort"), f"{last} is no end of a range from {number}", f"{number} to 65535")


def _protocol(at: Path, port: Object) -> Iterator[Problem]:
    if port.get("protocol", "TCP") not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        yield Problem((*at, "protocol"), f"unknown protocol {show(port['protocol'])}", f"one of {known}")


def _peer(at: Path, peer: Object) -> Iterator[Problem]:
    selectors = [name for name in ("podSelector", "namespaceSelector") if name in peer]
    if not selectors and "ipBlock" not in peer:
        yield Problem(at, "the peer says nothing", "one of podSelector, namespaceSelector and ipBlock")
    if selectors and "ipBlock" in peer:
        yield Problem((*at, "ipBlock"), f"is there beside {selectors[0]}", "selectors or an ipBlock")
    for name in selectors:
        yield from manifest_rules.label_selector((*at, name), peer[name])
    if "ipBlock" in peer:
        yield from _block((*at, "ipBlock"), peer["ipBlock"])


def _block(at: Path, block: Object) -> Iterator[Problem]:
    outer = _network(block["cidr"])
    if outer is None:
        yield Problem((*at, "cidr"), f"{show(block['cidr'])} is no CIDR", "ADDRESS/PREFIX, as 10.0.0.0/8")
        return
    for i, text in enumerate(block.get("except", ())):
        inner = _network(text)
        if inner is None:
            yield Problem((*at, "except", i), f"{show(text)} is no CIDR", "ADDRESS/PREFIX, as 10.1.0.0/16")
        elif inner.version != outer.version or inner == outer or not inner.subnet_of(outer):
            yield Problem((*at, "except", i), f"{text} is no part of {block['cidr']}", "a network inside the cidr")


def _network(text: str) -> Any:
    """The network, or None. Host bits are allowed, as the API server allows them."""
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _admin(kind: str, name: str, spec: Object) -> Iterator[Problem]:
    if kind == "BaselineAdminNetworkPolicy" and name != "default":
        yield Problem(
            ("metadata", "name"), f"{show(name)} is no name for a {kind}", "default: there is one in a cluster"
        )
    if not 0 <= spec.get("priority", 0) <= 1000:
        yield Problem(("spec", "priority"), f"{spec['priority']} is out of range", "0 to 1000, the lowest first")
    yield from _one_of(("spec", "subject"), spec["subject"], ("namespaces", "pods"))
    yield from _admin_selectors(("spec", "subject"), spec["subject"])
    for side, end in _SIDES:
        yield from _at_most(("spec", side), spec.get(side, []), "rules")
        for i, rule in enumerate(spec.get(side, ())):
            yield from _admin_rule(("spec", side, i), rule, end, _ACTIONS[kind])


def _admin_rule(at: Path, rule: Object, end: str, actions: tuple[str, ...]) -> Iterator[Problem]:
    if rule["action"] not in actions:
        yield Problem((*at, "action"), f"unknown action {show(rule['action'])}", f"one of {', '.join(actions)}")
    if not rule[end]:
        yield Problem((*at, end), "the rule has no peers", "one at least")
    yield from _at_most((*at, end), rule[end], "peers")
    for i, peer in enumerate(rule[end]):
        where = (*at, end, i)
        if "nodes" in peer:
            yield Problem((*where, "nodes"), "is experimental and not enforced here", "namespaces, pods or networks")
            continue
        yield from _one_of(where, peer, ("namespaces", "pods", *(("networks",) if end == "to" else ())))
        yield from _admin_selectors(where, peer)
        yield from _at_most((*where, "networks"), peer.get("networks", []), "networks")
        for j, text in enumerate(peer.get("networks", ())):
            if _network(text) is None:
                yield Problem((*where, "networks", j), f"{show(text)} is no CIDR", "ADDRESS/PREFIX, as 10.0.0.0/8")
    yield from _at_most((*at, "ports"), rule.get("ports", []), "ports")
    for i, port in enumerate(rule.get("ports", ())):
        yield from _admin_port((*at, "ports", i), port)


def _admin_selectors(at: Path, thing: Object) -> Iterator[Problem]:
    if "namespaces" in thing:
        yield from manifest_rules.label_selector((*at, "namespaces"), thing["namespaces"])
    for name in ("namespaceSelector", "podSelector") if "pods" in thing else ():
        yield from manifest_rules.label_selector((*at, "pods", name), thing["pods"][name])


def _admin_port(at: Path, port: Object) -> Iterator[Problem]:
    yield from _one_of(at, port, ("portNumber", "portRange", "namedPort"))
    if "namedPort" in port:
        yield from manifest_rules.port_number((*at, "namedPort"), port["namedPort"], name_allowed=True)
    if "portNumber" in port:
        yield from _protocol((*at, "portNumber"), port["portNumber"])
        yield from manifest_rules.port_number((*at, "portNumber", "port"), port["portNumber"]["port"])
    if "portRange" in port:
        span = port["portRange"]
        yield from _protocol((*at, "portRange"), span)
        for name in ("start", "end"):
            yield from manifest_rules.port_number((*at, "portRange", name), span[name])
        if span["start"] >= span["end"]:
            yield Problem((*at, "portRange", "end"), f"{span['end']} is not after {span['start']}", "a later port")


def _one_of(at: Path, thing: Object, names: tuple[str, ...]) -> Iterator[Problem]:
    there = [name for name in names if name in thing]
    if len(there) != 1:
        yield Problem(at, f"has {' and '.join(there) or 'nothing'}", f"one of {', '.join(names)}")


def _at_most(at: Path, things: list[Any], what: str) -> Iterator[Problem]:
    if len(things) > _MOST[what]:
        yield Problem(at, f"{len(things)} {what}", f"at most {_MOST[what]}")

"""From Calico's objects (projectcalico.org/v3) to the model: NetworkPolicy, GlobalNetworkPolicy and network sets.

Sources: Calico, "Network policy", "Global network policy", "Network set" and "Calico automatic labels".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from controllers.policy.model import (
    ACCOUNT_LABEL,
    ANY,
    EGRESS,
    INGRESS,
    NAMESPACED,
    PROTOCOLS,
    Block,
    Others,
    Peer,
    Pod,
    PodGroup,
    Policy,
    Port,
    Rule,
    protocol_name,
)
from topo.cluster.selectors import EVERYTHING, And, In, Not, Selector, parse, parse_namespaces

Object = Mapping[str, Any]
GROUP = "projectcalico.org"
NETWORK_POLICY, GLOBAL_POLICY = f"NetworkPolicy.{GROUP}", "GlobalNetworkPolicy"
POLICIES = (NETWORK_POLICY, GLOBAL_POLICY)
SETS = ("NetworkSet", "GlobalNetworkSet")
_EVERY_ADDRESS = ("0.0.0.0/0",)
# Ranges of ports, or of what ICMP has in their place.
_Spans = list[tuple[int, int]]
_ALL: tuple[int, int] = (0, 65535)


def policy(thing: Object) -> Policy | None:
    """The policy that an object is; None for any other kind."""
    meta, spec = thing["metadata"], thing.get("spec") or {}
    if thing["kind"] == GLOBAL_POLICY:
        key, namespace = f"{GLOBAL_POLICY} {meta['name']}", ""
    elif thing["kind"] == "NetworkPolicy":
        namespace = meta.get("namespace", "default")
        key = f"{NETWORK_POLICY} {namespace}/{meta['name']}"
    else:
        return None
    # Those two are for host endpoints alone, and govern no pod.
    types = () if spec.get("doNotTrack") or spec.get("preDNAT") else spec.get("types") or _types(spec)
    order, spaces = spec.get("order"), None if namespace else _of_namespaces(spec)
    return Policy(
        key,
        NAMESPACED,
        PodGroup(namespace, spaces, parse(spec.get("selector", "")), endpoints=True),
        tuple(_rule(r, INGRESS, namespace) for r in spec.get("ingress") or ()) if "Ingress" in types else None,
        tuple(_rule(r, EGRESS, namespace) for r in spec.get("egress") or ()) if "Egress" in types else None,
        (math.inf if order is None else float(order), f"{meta['name']} {namespace}"),
    )


def network_set(thing: Object) -> Pod:
    """A NetworkSet or GlobalNetworkSet."""
    meta, kind = thing["metadata"], thing["kind"]
    namespace = meta.get("namespace", "default") if kind == "NetworkSet" else ""
    networks = tuple(_v4((thing.get("spec") or {}).get("nets") or ()))
    # One without networks is told from a pod by a network that is nobody's.
    key = f"{namespace}/{meta['name']} ({kind})"
    return Pod(key, dict(meta.get("labels") or {}), networks=networks or ("0.0.0.0/32",))


def _types(spec: Object) -> tuple[str, ...]:
    """What types are if they are not given: the directions that have rules, ingress if none has."""
    if spec.get("egress"):
        return ("Ingress", "Egress") if spec.get("ingress") else ("Egress",)
    return ("Ingress",)


def _of_namespaces(spec: Object) -> Selector:
    text = spec.get("namespaceSelector", "")
    return parse_namespaces(text) if text else ANY


def _rule(rule: Object, direction: str, namespace: str) -> Rule:
    """Everything a rule says must hold; what it says of the policy's own pods narrows these."""
    source, target = rule.get("source") or {}, rule.get("destination") or {}
    own, other = (target, source) if direction == INGRESS else (source, target)
    name = ((rule.get("metadata") or {}).get("annotations") or {}).get("name", "")
    ports = () if rule.get("ipVersion") == 6 else _ports(rule, target, rule.get("icmp"), rule.get("notICMP"))
    sources = _ports(rule, source) if source.get("ports") or source.get("notPorts") else None
    peer = _peer(other, namespace)
    return Rule(rule["action"], None if peer is None else (peer,), ports, name, sources, _own(own, namespace))


def _peer(entity: Object, namespace: str) -> Peer | None:
    """Who an entity rule means; None for anybody.

    As soon as a namespaced policy's entity has any selector, it means only endpoints of that namespace, unless a
    namespaceSelector says of which.
    """
    found = _chosen(entity, namespace) or _block(entity)
    if entity.get("notSelector"):
        return Others(found or Block(_EVERY_ADDRESS), parse(entity["notSelector"]))
    return found


def _own(entity: Object, namespace: str) -> PodGroup | None:
    """The same of a policy's own pods, which are pods in any case."""
    if not any(entity.get(name) for name in _NARROWING):
        return None
    chosen = _chosen(entity, namespace) or PodGroup("", ANY, EVERYTHING, within=_block(entity))
    without = entity.get("notSelector")
    return replace(chosen, pods=And((chosen.pods, Not(parse(without))))) if without else chosen


def _chosen(entity: Object, namespace: str) -> PodGroup | None:
    """The pods and network sets that an entity's selectors choose; None if it has none that choose."""
    spaces, accounts = entity.get("namespaceSelector"), (entity.get("serviceAccounts") or {}).get("names")
    if not (spaces or entity.get("selector") or accounts or (entity.get("notSelector") and namespace)):
        return None
    pods: Selector = parse(entity.get("selector", ""))
    if accounts:
        pods = And((pods, In(ACCOUNT_LABEL, frozenset(accounts))))
    where = parse_namespaces(spaces) if spaces else None if namespace else ANY
    return PodGroup("" if spaces else namespace, where, pods, within=_block(entity), endpoints=True)


_NARROWING = ("nets", "notNets", "selector", "notSelector", "namespaceSelector", "serviceAccounts")


def _block(entity: Object) -> Block | None:
    if not entity.get("nets") and not entity.get("notNets"):
        return None
    networks = tuple(_v4(entity["nets"])) if entity.get("nets") else _EVERY_ADDRESS
    return Block(networks, tuple(_v4(entity.get("notNets") or ())))


def _v4(networks: Iterable[str]) -> Iterator[str]:
    """Pods have IPv4 addresses here; an address alone is a network of its own."""
    for text in networks:
        if ":" not in text:
            yield text if "/" in text else f"{text}/32"


def _ports(rule: Object, entity: Object, icmp: Object | None = None, no_icmp: Object | None = None) -> Any:
    """Protocols with their ports, none for any."""
    protocols = _protocols(rule)
    if protocols is None:
        return None
    names = [p for p in entity.get("ports") or () if _span(p) is None]
    wanted = [span for p in entity.get("ports") or () if (span := _span(p)) is not None]
    if icmp and "type" in icmp:
        wanted = [_of_icmp(icmp)]
    if not wanted and not names:
        wanted = [_ALL]
    unwanted = [span for p in entity.get("notPorts") or () if (span := _span(p)) is not None]
    if no_icmp and "type" in no_icmp:
        unwanted = [_of_icmp(no_icmp)]
    found = [Port(protocol, *span) for protocol in protocols for span in _less(wanted, unwanted)]
    return tuple(found + [Port(protocol, name=str(name)) for protocol in protocols for name in names])


def _protocols(rule: Object) -> list[str] | None:
    wanted, unwanted = _protocol(rule.get("protocol")), _protocol(rule.get("notProtocol"))
    if wanted:
        return [] if wanted == unwanted else [wanted]
    return [name for name in map(protocol_name, range(256)) if name != unwanted] if unwanted else None


def _protocol(given: str | int | None) -> str:
    if given is None:
        return ""
    upper = str(given).upper()
    return upper if upper in PROTOCOLS else protocol_name(_FURTHER.get(upper) or int(upper))


# Protocols that have names in this API and none in ours (IANA, "Protocol Numbers").
_FURTHER = {"ICMPV6": 58, "UDPLITE": 136}


def _span(port: str | int) -> tuple[int, int] | None:
    """A number or FIRST:LAST; None for a name."""
    first, _, last = str(port).partition(":")
    if not first.isdigit():
        return None
    return int(first), int(last or first)


def _of_icmp(fields: Object) -> tuple[int, int]:
    first = fields["type"] << 8
    return (first + fields["code"],) * 2 if "code" in fields else (first, first + 255)


def _less(spans: _Spans, holes: _Spans) -> _Spans:
    left = spans
    for hole, end in holes:
        left = [
            part
            for first, last in left
            for part in ((first, min(last, hole - 1)), (max(first, end + 1), last))
            if part[0] <= part[1]
        ]
    return list(dict.fromkeys(left))

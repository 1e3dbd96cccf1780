"""From objects to the model: pods, namespaces, policies of networking.k8s.io and policy.networking.k8s.io.

What the API defaults is filled in here: policyTypes, protocols, the namespace a podSelector alone speaks of. Calico's
own kinds are read by read_calico.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controllers.flow.fields import ip_number
from controllers.policy import read_calico
from controllers.policy.model import (
    ADMIN,
    ALLOW,
    ANY,
    BASELINE,
    EGRESS,
    INGRESS,
    NAME_LABEL,
    NAMESPACED,
    Block,
    LabelSelector,
    NamedPort,
    Peer,
    Pod,
    PodGroup,
    Policy,
    Port,
    Rule,
)

Object = Mapping[str, Any]


def selector(value: Object | None) -> LabelSelector:
    """A LabelSelector; a missing one chooses everything where it stands for no restriction."""
    value = value or {}
    expressions = tuple(
        (e["key"], e["operator"], tuple(sorted(e.get("values") or ()))) for e in value.get("matchExpressions") or ()
    )
    return LabelSelector(tuple(sorted((value.get("matchLabels") or {}).items())), expressions)


def namespace_labels(name: str, thing: Object | None) -> dict[str, str]:
    """A namespace's labels with the one the API server adds; a namespace that nobody made has that one alone."""
    labels = (thing or {}).get("metadata", {}).get("labels") or {}
    return {**labels, NAME_LABEL: name} if name else {}


def pod(thing: Object) -> Pod:
    """A pod; one that has ended has given its address back."""
    meta, spec, status = thing["metadata"], thing["spec"], thing.get("status") or {}
    over = status.get("phase") in ("Succeeded", "Failed")
    ports = tuple(
        NamedPort(p["name"], p.get("protocol", "TCP"), p["containerPort"])
        for c in spec.get("containers") or ()
        for p in c.get("ports") or ()
        if p.get("name")
    )
    return Pod(
        f"{meta.get('namespace', 'default')}/{meta['name']}",
        dict(meta.get("labels") or {}),
        0 if over or not status.get("podIP") else ip_number(status["podIP"]),
        spec.get("nodeName", ""),
        ports,
        bool(spec.get("hostNetwork")),
        spec.get("serviceAccountName") or "default",
    )


def policy(thing: Object) -> Policy | None:
    """The policy that an object of these kinds is; None for any other kind."""
    group = thing.get("apiVersion", "").partition("/")[0]
    if group == read_calico.GROUP:
        return read_calico.policy(thing)
    read = _KINDS.get((group, thing["kind"]))
    return read(thing) if read else None


def _network_policy(thing: Object) -> Policy:
    """networking.k8s.io/v1. Source: API reference, NetworkPolicySpec: what policyTypes is if it is not given."""
    meta, spec = thing["metadata"], thing.get("spec") or {}
    namespace = meta.get("namespace", "default")
    types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    return Policy(
        f"NetworkPolicy {namespace}/{meta['name']}",
        NAMESPACED,
        PodGroup(namespace, None, selector(spec.get("podSelector"))),
        tuple(_rule(r, "from", namespace) for r in spec.get("ingress") or ()) if "Ingress" in types else None,
        tuple(_rule(r, "to", namespace) for r in spec.get("egress") or ()) if "Egress" in types else None,
    )


def _rule(rule: Object, side: str, namespace: str) -> Rule:
    """An empty or missing list of peers or ports restricts nothing (API reference, NetworkPolicyIngressRule)."""
    peers = tuple(_peer(p, namespace) for p in rule.get(side) or ())
    ports = tuple(_port(p) for p in rule.get("ports") or ())
    return Rule(ALLOW, peers or None, ports or None)


def _peer(peer: Object, namespace: str) -> Peer:
    if "ipBlock" in peer:
        return _block((peer["ipBlock"]["cidr"],), peer["ipBlock"].get("except") or ())
    namespaces = selector(peer["namespaceSelector"]) if "namespaceSelector" in peer else None
    return PodGroup("" if namespaces is not None else namespace, namespaces, selector(peer.get("podSelector")))


def _block(networks: Iterable[str], without: Iterable[str] = ()) -> Block:
    """Pods have IPv4 addresses here; a network of IPv6 holds none of them."""
    return Block(tuple(n for n in networks if ":" not in n), tuple(n for n in without if ":" not in n))


def _port(port: Object) -> Port:
    protocol, number = port.get("protocol") or "TCP", port.get("port")
    if number is None:
        return Port(protocol)
    if isinstance(number, str):
        return Port(protocol, name=number)
    return Port(protocol, number, port.get("endPort") or number)


def _admin(thing: Object) -> Policy:
    """policy.networking.k8s.io/v1alpha1, AdminNetworkPolicy: a lower number of priority comes first."""
    order = (float(thing["spec"]["priority"]), thing["metadata"]["name"])
    return _cluster_policy(thing, ADMIN, order)


def _baseline(thing: Object) -> Policy:
    """policy.networking.k8s.io/v1alpha1, BaselineAdminNetworkPolicy: there is one, called default."""
    return _cluster_policy(thing, BASELINE, (0.0, thing["metadata"]["name"]))


def _cluster_policy(thing: Object, tier: str, order: tuple[float, str]) -> Policy:
    spec = thing["spec"]
    return Policy(
        f"{thing['kind']} {thing['metadata']['name']}",
        tier,
        _subject(spec["subject"]),
        _admin_rules(spec.get("ingress") or (), "from", INGRESS),
        _admin_rules(spec.get("egress") or (), "to", EGRESS),
        order,
        closes=False,
    )


def _subject(subject: Object) -> PodGroup:
    if "namespaces" in subject:
        return PodGroup("", selector(subject["namespaces"]), ANY)
    pods = subject["pods"]
    return PodGroup("", selector(pods.get("namespaceSelector")), selector(pods.get("podSelector")))


def _admin_rules(rules: Iterable[Object], side: str, direction: str) -> tuple[Rule, ...] | None:
    """No rules of a direction: the policy says nothing about it."""
    found = tuple(
        Rule(
            rule["action"],
            tuple(_admin_peer(p) for p in rule[side]),
            tuple(_admin_port(p) for p in rule["ports"]) if rule.get("ports") else None,
            rule.get("name", ""),
        )
        for rule in rules
    )
    return found or None


def _admin_peer(peer: Object) -> Peer:
    if "networks" in peer:
        return _block(peer["networks"])
    return _subject(peer)


def _admin_port(port: Object) -> Port:
    if "portNumber" in port:
        one = port["portNumber"]
        return Port(one.get("protocol", "TCP"), one["port"], one["port"])
    if "portRange" in port:
        span = port["portRange"]
        return Port(span.get("protocol", "TCP"), span["start"], span["end"])
    # A named port has no protocol of its own in this API: whichever the container's port has.
    return Port("", name=port["namedPort"])


_KINDS = {
    ("networking.k8s.io", "NetworkPolicy"): _network_policy,
    ("policy.networking.k8s.io", "AdminNetworkPolicy"): _admin,
    ("policy.networking.k8s.io", "BaselineAdminNetworkPolicy"): _baseline,
}
KINDS = (*(kind for _, kind in _KINDS), *read_calico.POLICIES)

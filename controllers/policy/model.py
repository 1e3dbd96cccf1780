"""Policies of every kind as one frozen model: whom they govern, and rules of peers, ports and an action.

Sources: Kubernetes, "Network Policies" and the API reference of networking.k8s.io/v1; the network-policy-api project
("API overview") for AdminNetworkPolicy and BaselineAdminNetworkPolicy; Calico, "Network policy" and "Global network
policy" for policies with an order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv4Network, summarize_address_range

from topo.cluster.selectors import NAMESPACE_NAME, Selector

INGRESS, EGRESS = "ingress", "egress"
DIRECTIONS = (INGRESS, EGRESS)
ALLOW, DENY, PASS, LOG = "Allow", "Deny", "Pass", "Log"
# Tiers, the first to be asked first. ADMIN rules come before, BASELINE rules after what namespaces say themselves.
ADMIN, NAMESPACED, BASELINE = "admin", "namespaced", "baseline"
TIERS = (ADMIN, NAMESPACED, BASELINE)
# Of a NetworkPolicy's rules, which are one set of permissions; and where that set stands among Calico's policies (order
# 1000, and the name that Calico gives them: calicoctl, "get networkpolicy").
UNORDERED = (1000.0, "knp.default.")
PROTOCOLS: Mapping[str, int] = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1}
_PROTOCOL_NAMES: Mapping[int, str] = {number: name for name, number in PROTOCOLS.items()}
# What ICMP has in the place of a port: type * 256 + code. This is an echo request's (RFC 792).
ECHO = 8 << 8
# The label that the API server gives every namespace (Kubernetes, "Automatic labelling").
NAME_LABEL = "kubernetes.io/metadata.name"
# Labels that Calico gives every pod.
NAMESPACE_LABEL, ACCOUNT_LABEL = "projectcalico.org/namespace", "projectcalico.org/serviceaccount"

Labels = Mapping[str, str]


def protocol_number(name: str) -> int:
    """The number of a protocol by name, or by number as text."""
    return PROTOCOLS[name] if name in PROTOCOLS else int(name)


def protocol_name(number: int) -> str:
    """The name of a protocol, its number as text if it has none here."""
    return _PROTOCOL_NAMES.get(number, str(number))


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A Kubernetes LabelSelector. equal: (key, value); expressions: (key, operator, values). All must hold."""

    equal: tuple[tuple[str, str], ...] = ()
    expressions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Kubernetes, "Labels and Selectors": NotIn and DoesNotExist hold too where the key is missing."""
        return all(labels.get(key) == value for key, value in self.equal) and all(
            _holds(key, operator, values, labels) for key, operator, values in self.expressions
        )

    def __str__(self) -> str:
        parts = [f"{key}={value}" for key, value in self.equal]
        parts += [f"{k} {o}{_values(v)}" for k, o, v in self.expressions]
        return ", ".join(parts) or "all"


def _values(values: tuple[str, ...]) -> str:
    return f" ({', '.join(values)})" if values else ""


ANY = LabelSelector()


def _holds(key: str, operator: str, values: tuple[str, ...], labels: Labels) -> bool:
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(f"{operator!r} is no operator of a label selector")


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A container port that has a name. protocol: TCP, UDP or SCTP."""

    name: str
    protocol: str
    number: int


@dataclass(frozen=True)
class Pod:
    """A pod as policies see it. key: namespace/name; ip: 0 while it has none; node: "" while it is on none.

    host_network: it has its node's address, and no policy selects it (Kubernetes, "Network Policies").
    account: its ServiceAccount; networks: not a pod but one of Calico's network sets, which rules can choose like pods.
    """

    key: str
    labels: Labels
    ip: int = 0
    node: str = ""
    ports: tuple[NamedPort, ...] = ()
    host_network: bool = False
    account: str = "default"
    networks: tuple[str, ...] = ()

    @cached_property
    def namespace(self) -> str:
        """The namespace's name."""
        return self.key.partition("/")[0]

    @cached_property
    def endpoint_labels(self) -> Labels:
        """What a selector of Calico's sees (Calico, "Calico automatic labels")."""
        found = {**self.labels, **({NAMESPACE_LABEL: self.namespace} if self.namespace else {})}
        return (
            found if self.networks else {**found, ACCOUNT_LABEL: self.account, "projectcalico.org/orchestrator": "k8s"}
        )

    def number(self, protocol: str, name: str) -> int:
        """The container port of this name and protocol; 0 if it has none."""
        return next((p.number for p in self.ports if (p.name, p.protocol) == (name, protocol)), 0)


@dataclass(frozen=True, slots=True)
class Block:
    """Addresses: some networks, less others, as text with a prefix length."""

    networks: tuple[str, ...]
    without: tuple[str, ...] = ()

    def contains(self, address: int) -> bool:
        """Whether the IPv4 address, a number, is meant."""
        return any(_within(address, n) for n in self.networks) and not any(_within(address, n) for n in self.without)

    def covering(self) -> tuple[str, ...]:
        """The same as the fewest networks without exceptions."""
        return _networks(self._spans())

    def common(self, networks: Iterable[str]) -> tuple[str, ...]:
        """The fewest networks for what these have in common with it."""
        other = Block(tuple(networks))._spans()
        both = [(max(a, c), min(b, d)) for a, b in self._spans() for c, d in other if a <= d and c <= b]
        return _networks(both)

    def _spans(self) -> list[tuple[int, int]]:
        """First and last address of each part, ascending."""
        without = sorted(map(_span, self.without))
        left = []
        for first, last in _merged(map(_span, self.networks)):
            for hole, end in without:
                if first <= end and hole <= last:
                    if first < hole:
                        left.append((first, hole - 1))
                    first = end + 1
            if first <= last:
                left.append((first, last))
        return left

    def __str__(self) -> str:
        return ", ".join(self.networks) + (f" except {', '.join(self.without)}" if self.without else "")


def _within(address: int, text: str) -> bool:
    first, last = _span(text)
    return first <= address <= last


@lru_cache(maxsize=65536)
def _span(text: str) -> tuple[int, int]:
    network = IPv4Network(text, strict=False)
    return int(network.network_address), int(network.broadcast_address)


def _networks(spans: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    ranges = (summarize_address_range(IPv4Address(first), IPv4Address(last)) for first, last in spans)
    return tuple(str(network) for part in ranges for network in part)


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same without overlaps, ascending."""
    end = -1
    for first, last in sorted(spans):
        if last > end:
            yield max(first, end + 1), last
            end = last


@dataclass(frozen=True, slots=True)
class PodGroup:
    """Pods chosen by labels: of one namespace by name ("" for any) if `namespaces` does not choose them, or of both.

    named: if given, only pods that have a container port of that name, protocol and number; within: only pods whose
    address it holds; endpoints: as Calico sees them, with its labels, and network sets are among them.
    """

    namespace: str
    namespaces: Selector | None
    pods: Selector
    named: NamedPort | None = None
    within: Block | None = None
    endpoints: bool = False

    def may_be_in(self, namespace: str, labels: Labels) -> bool:
        """Whether pods of a namespace with these labels, or what is in none, can belong to the group."""
        if (self.namespace or self.namespaces is None) and namespace != self.namespace:
            return False
        if self.namespaces is None or self.namespaces is ANY:
            return True
        return self.namespaces.matches(
            {**labels, NAMESPACE_NAME: namespace} if self.endpoints and namespace else labels
        )

    def contains(self, pod: Pod, namespace_labels: Labels) -> bool:
        """Whether the pod belongs to the group; namespace_labels are those of its own namespace."""
        if pod.host_network or (pod.networks and not self.endpoints):
            return False
        if not self.may_be_in(pod.namespace, namespace_labels):
            return False
        if self.within is not None and not pod.networks and not self.within.contains(pod.ip):
            return False
        labels = pod.endpoint_labels if self.endpoints else pod.labels
        return self.pods.matches(labels) and (self.named is None or self.named in pod.ports)

    def __str__(self) -> str:
        where = f"namespace {self.namespace}" if self.namespaces is None else f"namespaces {self.namespaces}"
        return f"pods {self.pods} in {where}"


@dataclass(frozen=True, slots=True)
class Others:
    """What is in `of` and has no address of a pod (or of a network set) that the selector chooses, wherever that is."""

    of: Block | PodGroup
    pods: Selector

    @property
    def without(self) -> PodGroup:
        """Those that are left out."""
        return PodGroup("", ANY, self.pods, endpoints=True)

    def __str__(self) -> str:
        return f"{self.of} but not pods {self.pods}"


Peer = PodGroup | Block | Others


@dataclass(frozen=True, slots=True)
class Port:
    """Ports of the destination. protocol "" is any; name: a container port's; else first..last, 0..65535 for all.

    Of ICMP, type * 256 + code takes a port's place.
    """

    protocol: str
    first: int = 0
    last: int = 65535
    name: str = ""

    def __str__(self) -> str:
        number = self.name or (f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}")
        every = not self.name and (self.first, self.last) == (0, 65535)
        return self.protocol if every else f"{self.protocol}/{number}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. peers: who may be at the other end, None for anybody; ports: None for any port and protocol.

    sources: ports of who opens the connection, None for any; subject: whom of the policy's pods the rule is about, None
    for all of them. An empty tuple wants nothing.
    """

    action: str
    peers: tuple[Peer, ...] | None
    ports: tuple[Port, ...] | None
    name: str = ""
    sources: tuple[Port, ...] | None = None
    subject: PodGroup | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. key: kind namespace/name; ingress, egress: its rules, None if it does not govern that direction.

    order: what comes first in its tier; closes: what no rule wants is denied, else it is left to the next tier.
    """

    key: str
    tier: str
    subject: PodGroup
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None
    order: tuple[float, str] = UNORDERED
    closes: bool = True

    def rules(self, direction: str) -> tuple[Rule, ...] | None:
        """The rules of one direction."""
        return self.ingress if direction == INGRESS else self.egress

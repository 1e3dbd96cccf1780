"""Policies of every kind as one frozen model: whom they govern, and rules of peers, ports and an action.

Sources: Kubernetes, "Network Policies" and the API reference of networking.k8s.io/v1; the network-policy-api project
("API overview") for AdminNetworkPolicy and BaselineAdminNetworkPolicy; Calico, "Network policy" and "Global network
policy" for policies with an order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, collapse_addresses
from typing import Protocol

INGRESS, EGRESS = "ingress", "egress"
DIRECTIONS = (INGRESS, EGRESS)
ALLOW, DENY, PASS, LOG = "Allow", "Deny", "Pass", "Log"
# Tiers, the first to be asked first. ADMIN rules come before, BASELINE rules after what namespaces say themselves.
ADMIN, NAMESPACED, BASELINE = "admin", "namespaced", "baseline"
TIERS = (ADMIN, NAMESPACED, BASELINE)
PROTOCOLS: Mapping[str, int] = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1}
# The label that the API server gives every namespace (Kubernetes, "Automatic labelling").
NAME_LABEL = "kubernetes.io/metadata.name"

Labels = Mapping[str, str]


class Selector(Protocol):
    """What chooses by labels: hashable, and equal if it says the same."""

    def __hash__(self) -> int:
        """Of what it says."""

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is chosen."""


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
    account: its ServiceAccount, which Calico's policies can name.
    """

    key: str
    labels: Labels
    ip: int = 0
    node: str = ""
    ports: tuple[NamedPort, ...] = ()
    host_network: bool = False
    account: str = "default"

    @cached_property
    def namespace(self) -> str:
        """The namespace's name."""
        return self.key.partition("/")[0]

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

    def covering(self) -> tuple[IPv4Network, ...]:
        """The same as the fewest networks without exceptions."""
        left = list(collapse_addresses(IPv4Network(n, strict=False) for n in self.networks))
        for text in self.without:
            hole = IPv4Network(text, strict=False)
            left = [part for network in left for part in _less(network, hole)]
        return tuple(collapse_addresses(left))

    def __str__(self) -> str:
        return ", ".join(self.networks) + (f" except {', '.join(self.without)}" if self.without else "")


def _within(address: int, text: str) -> bool:
    network = IPv4Network(text, strict=False)
    return int(network.network_address) <= address <= int(network.broadcast_address)


def _less(network: IPv4Network, hole: IPv4Network) -> list[IPv4Network]:
    if network.subnet_of(hole):
        return []
    return list(network.address_exclude(hole)) if hole.subnet_of(network) else [network]


@dataclass(frozen=True, slots=True)
class PodGroup:
    """Pods chosen by labels: of one namespace by name, or of the namespaces that a selector chooses.

    named: if given, only pods that have a container port of that name, protocol and number; within: only pods whose
    address it holds.
    """

    namespace: str
    namespaces: Selector | None
    pods: Selector
    named: NamedPort | None = None
    within: Block | None = None

    def contains(self, pod: Pod, namespace_labels: Labels) -> bool:
        """Whether the pod belongs to the group; namespace_labels are those of its own namespace."""
        if pod.host_network:
            return False
        if self.namespaces is None:
            if pod.namespace != self.namespace:
                return False
        elif not self.namespaces.matches(namespace_labels):
            return False
        if self.within is not None and not self.within.contains(pod.ip):
            return False
        return self.pods.matches(pod.labels) and (self.named is None or self.named in pod.ports)

    def __str__(self) -> str:
        where = f"namespace {self.namespace}" if self.namespaces is None else f"namespaces {self.namespaces}"
        return f"pods {self.pods} in {where}"


Peer = PodGroup | Block


@dataclass(frozen=True, slots=True)
class Port:
    """Ports of the destination. protocol "" is any; name: a container port's; else first..last, 0..65535 for all."""

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
    """One rule. peers: who may be at the other end, None for anybody; ports: None for any port and protocol."""

    action: str
    peers: tuple[Peer, ...] | None
    ports: tuple[Port, ...] | None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. key: kind namespace/name; ingress, egress: its rules, None if it does not govern that direction.

    order: what comes first in its tier, None where all policies of the tier are one set of permissions (NetworkPolicy).
    """

    key: str
    tier: str
    subject: PodGroup
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None
    order: tuple[float, str] | None = None
    # Calico: what no rule wants is denied, as a NetworkPolicy does; admin policies leave it to the next tier.
    closes: bool = field(default=True)

    def rules(self, direction: str) -> tuple[Rule, ...] | None:
        """The rules of one direction."""
        return self.ingress if direction == INGRESS else self.egress

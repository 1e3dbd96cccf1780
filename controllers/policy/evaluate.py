"""A plain reading of the specifications: may one end open a connection to the other, and what decided it.

No flows and nothing clever: this is what the compiled flows are held against.
Sources: as controllers/policy/model.py; quotations are from Kubernetes, "Network Policies".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from controllers.policy.model import (
    ADMIN,
    ALLOW,
    BASELINE,
    DENY,
    ECHO,
    EGRESS,
    INGRESS,
    LOG,
    NAMESPACED,
    PASS,
    Block,
    Labels,
    Others,
    Peer,
    Pod,
    PodGroup,
    Policy,
    Port,
    Rule,
)

# What a client's port is where nobody asks: one of those that kernels give (Linux, ip_local_port_range).
SOME_PORT = 40000


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: an address and, if it is a pod's own, the pod; node: of which node it is an address."""

    ip: int
    pod: Pod | None = None
    node: str = ""


@dataclass(frozen=True)
class Cluster:
    """Everything policies speak of. namespaces: labels by name."""

    namespaces: Mapping[str, Labels]
    pods: Mapping[str, Pod]
    policies: Sequence[Policy]
    nodes: Mapping[int, str] = field(default_factory=dict)

    def end(self, address: int) -> End:
        """Whoever has this address."""
        pod = next((p for p in self.pods.values() if p.ip == address and not p.host_network), None)
        return End(address, pod, self.nodes.get(address, ""))

    def contains(self, group: PodGroup, end: End) -> bool:
        """Whether the end is a pod of the group, or its address is in one of the group's network sets."""
        if group.within is not None and not group.within.contains(end.ip):
            return False
        sets = (p for p in self.pods.values() if group.endpoints and p.networks and Block(p.networks).contains(end.ip))
        return any(self.has(group, one) for one in (*([end.pod] if end.pod is not None else []), *sets))

    def has(self, group: PodGroup, pod: Pod) -> bool:
        """Whether the pod belongs to the group."""
        return group.contains(pod, self.namespaces.get(pod.namespace, {}))

    def selecting(self, pod: Pod, direction: str) -> list[Policy]:
        """Every policy that governs this direction of the pod."""
        labels = self.namespaces.get(pod.namespace, {})
        return [p for p in self.policies if p.rules(direction) is not None and p.subject.contains(pod, labels)]


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one direction. rule: index in the policy's rules, None for what no rule wanted.

    policy: "" where no policy decided; why: a clause for people; logged: the Log rules met before, as policy and index.
    """

    direction: str
    allowed: bool
    why: str
    policy: str = ""
    rule: int | None = None
    selected_by: tuple[str, ...] = ()
    logged: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both directions; a connection needs both."""

    egress: Decision
    ingress: Decision

    @property
    def allowed(self) -> bool:
        """Whether the connection may be opened."""
        return self.egress.allowed and self.ingress.allowed


def judge(
    cluster: Cluster, source: End, target: End, protocol: str, port: int, source_port: int = SOME_PORT
) -> Verdict:
    """May `source` open a connection to `target`? protocol: TCP, UDP, SCTP or ICMP, whose port 0 is an echo request."""
    packet = Packet(protocol, ECHO if (protocol, port) == ("ICMP", 0) else port, source_port, target)
    found = {
        direction: _direction(cluster, direction, own, other, packet)
        for direction, own, other in ((EGRESS, source, target), (INGRESS, target, source))
    }
    return Verdict(found[EGRESS], found[INGRESS])


@dataclass(frozen=True, slots=True)
class Packet:
    """What the first packet of a connection says of ports; target: who gets it."""

    protocol: str
    port: int
    source_port: int
    target: End


def _direction(cluster: Cluster, direction: str, own: End, other: End, packet: Packet) -> Decision:
    pod = own.pod
    if pod is None or pod.host_network:
        return Decision(direction, True, "no policy selects an address that is no pod's own")
    selecting = cluster.selecting(pod, direction)
    names = tuple(p.key for p in selecting)
    # "a Pod cannot block access to itself"
    if own.ip == other.ip:
        return Decision(direction, True, "a pod always reaches itself", selected_by=names)
    # "traffic to and from the node where a Pod is running is always allowed"
    if other.node and other.node == pod.node:
        return Decision(direction, True, "traffic to and from the pod's own node is always allowed", selected_by=names)

    def wants(rule: Rule) -> bool:
        return (
            (rule.subject is None or cluster.has(rule.subject, pod))
            and _peers(cluster, rule, other)
            and _ports(rule, packet)
        )

    logged: list[tuple[str, int]] = []
    for tier in (ADMIN, NAMESPACED, BASELINE):
        policies = sorted((p for p in selecting if p.tier == tier), key=lambda p: p.order)
        found = _tier(direction, policies, wants, logged)
        if found is not None:
            return replace(found, selected_by=names, logged=tuple(logged))
    why = "no policy that selects it says anything"
    return Decision(direction, True, why, selected_by=names, logged=tuple(logged))


def _tier(
    direction: str, policies: list[Policy], wants: Callable[[Rule], bool], logged: list[tuple[str, int]]
) -> Decision | None:
    """The first rule that wants the connection; None leaves it to the next tier. Log rules are noted on the way."""
    for policy in policies:
        for number, rule in enumerate(policy.rules(direction) or ()):
            if not wants(rule):
                continue
            if rule.action == LOG:
                logged.append((policy.key, number))
                continue
            if rule.action == PASS:
                return None
            allowed = rule.action == ALLOW
            assert allowed or rule.action == DENY
            why = f"rule {number + 1}{f' ({rule.name})' if rule.name else ''} of {policy.key} " + (
                "allows it" if allowed else "denies it"
            )
            return Decision(direction, allowed, why, policy.key, number)
    closing = [p.key for p in policies if p.closes]
    if closing:
        # "the pod is isolated": only what some policy allows. Calico, "Tiers": so ends a tier that applies to it.
        why = f"{', '.join(closing)} isolate{'s' if len(closing) == 1 else ''} it and no rule allows this"
        return Decision(direction, False, why, closing[0], None)
    return None


def _peers(cluster: Cluster, rule: Rule, other: End) -> bool:
    return rule.peers is None or any(_is_peer(cluster, peer, other) for peer in rule.peers)


def _is_peer(cluster: Cluster, peer: Peer, other: End) -> bool:
    if isinstance(peer, Block):
        return peer.contains(other.ip)
    if isinstance(peer, Others):
        return _is_peer(cluster, peer.of, other) and not cluster.contains(peer.without, other)
    return cluster.contains(peer, other)


def _ports(rule: Rule, packet: Packet) -> bool:
    wanted = rule.ports is None or any(_port(p, packet, packet.port) for p in rule.ports)
    return wanted and (rule.sources is None or any(_port(p, packet, packet.source_port) for p in rule.sources))


def _port(wanted: Port, packet: Packet, port: int) -> bool:
    if wanted.protocol not in ("", packet.protocol):
        return False
    if wanted.name:
        pod = packet.target.pod
        return pod is not None and not pod.host_network and pod.number(packet.protocol, wanted.name) == port != 0
    return wanted.first <= port <= wanted.last

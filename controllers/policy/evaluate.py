"""A plain reading of the specifications: may one end open a connection to the other, and what decided it.

No flows and nothing clever: this is what the compiled flows are held against.
Sources: as controllers/policy/model.py; quotations are from Kubernetes, "Network Policies".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controllers.policy.model import (
    ADMIN,
    ALLOW,
    BASELINE,
    DENY,
    EGRESS,
    INGRESS,
    LOG,
    NAMESPACED,
    PASS,
    Block,
    Labels,
    Pod,
    PodGroup,
    Policy,
    Port,
    Rule,
)


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
        """Whether the end is a pod of the group."""
        pod = end.pod
        return pod is not None and group.contains(pod, self.namespaces.get(pod.namespace, {}))

    def selecting(self, pod: Pod, direction: str) -> list[Policy]:
        """Every policy that governs this direction of the pod."""
        labels = self.namespaces.get(pod.namespace, {})
        return [p for p in self.policies if p.rules(direction) is not None and p.subject.contains(pod, labels)]


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one direction. rule: index in the policy's rules, None for what no rule wanted.

    policy: "" where no policy decided; why: a clause for people.
    """

    direction: str
    allowed: bool
    why: str
    policy: str = ""
    rule: int | None = None
    selected_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both directions; a connection needs both."""

    egress: Decision
    ingress: Decision

    @property
    def allowed(self) -> bool:
        """Whether the connection may be opened."""
        return self.egress.allowed and self.ingress.allowed


def judge(cluster: Cluster, source: End, target: End, protocol: str, port: int) -> Verdict:
    """May `source` open a connection to `target`? protocol: TCP, UDP, SCTP or ICMP (whose port is 0)."""
    found = {
        direction: _direction(cluster, direction, own, other, target, protocol, port)
        for direction, own, other in ((EGRESS, source, target), (INGRESS, target, source))
    }
    return Verdict(found[EGRESS], found[INGRESS])


def _direction(
    cluster: Cluster, direction: str, own: End, other: End, target: End, protocol: str, port: int
) -> Decision:
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
        return _peers(cluster, rule, other) and _ports(rule, target, protocol, port)

    for tier in (ADMIN, NAMESPACED, BASELINE):
        policies = sorted((p for p in selecting if p.tier == tier), key=lambda p: p.order or (1000.0, ""))
        found = _tier(direction, policies, wants, names)
        if found is not None:
            return found
    return Decision(direction, True, "no policy that selects it says anything", selected_by=names)


def _tier(direction: str, policies: list[Policy], wants: object, names: tuple[str, ...]) -> Decision | None:
    """The first rule that wants the connection; None leaves it to the next tier."""
    assert callable(wants)
    for policy in policies:
        for number, rule in enumerate(policy.rules(direction) or ()):
            if rule.action == LOG or not wants(rule):
                continue
            if rule.action == PASS:
                return None
            allowed = rule.action == ALLOW
            assert allowed or rule.action == DENY
            why = f"rule {number + 1}{f' ({rule.name})' if rule.name else ''} of {policy.key} " + (
                "allows it" if allowed else "denies it"
            )
            return Decision(direction, allowed, why, policy.key, number, names)
    closing = [p.key for p in policies if p.closes]
    if closing:
        # "the pod is isolated": only what some policy allows.
        why = f"{', '.join(closing)} isolate{'s' if len(closing) == 1 else ''} it and no rule allows this"
        return Decision(direction, False, why, closing[0], None, names)
    return None


def _peers(cluster: Cluster, rule: Rule, other: End) -> bool:
    if rule.peers is None:
        return True
    return any(p.contains(other.ip) if isinstance(p, Block) else cluster.contains(p, other) for p in rule.peers)


def _ports(rule: Rule, target: End, protocol: str, port: int) -> bool:
    return rule.ports is None or any(_port(p, target, protocol, port) for p in rule.ports)


def _port(wanted: Port, target: End, protocol: str, port: int) -> bool:
    if wanted.protocol not in ("", protocol):
        return False
    if wanted.name:
        pod = target.pod
        return pod is not None and not pod.host_network and pod.number(protocol, wanted.name) == port != 0
    return wanted.first <= port <= wanted.last

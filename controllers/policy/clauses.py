"""From policies to conjunctions: each rule as sets of which a connection must be in one member each.

One conjunction costs the sum of its clauses (subjects + peers + ports), not their product (ovs-fields(7), "Conjunctive
Match"). A port's name means another number in every destination, so a rule with names becomes one conjunction a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from controllers.policy.model import (
    ANY,
    DIRECTIONS,
    INGRESS,
    LOG,
    UNORDERED,
    Block,
    NamedPort,
    Others,
    Peer,
    PodGroup,
    Policy,
    Port,
    Rule,
    protocol_number,
)
from topo.cluster.selectors import And

# (protocol number, port, mask); mask 0: every port of the protocol. ICMP has type and code in a port's place.
PortMatch = tuple[int, int, int]
# Which numbers the container ports of a name have: (name, protocol) -> numbers.
Named = Mapping[tuple[str, str], Iterable[int]]
# Of which ports a match is.
PORT, SOURCE_PORT = "port", "source port"
# Priorities: of the rank 0; two for each rank, the higher one for a rule without clauses. More rules with an order than
# MOST in one tier and direction might have no priority left. More Log rules might take a packet deeper than the switch
# goes, 64 resubmits (ovs-actions(7), "resubmit").
_MIDDLE, _STEP = 30000, 2
MOST, MOST_LOGS = 14000, 50
_EVERYBODY = Block(("0.0.0.0/0",))


@dataclass(frozen=True, slots=True, eq=False)
class Conjunction:
    """One rule, or the part of it that concerns one number of a named port. The same object while nothing changes.

    key: unique, and how people know it; rank: place among the rules of its tier and direction, a lower one first and 0
    for all rules of NetworkPolicies; log: which of its direction's Log rules it is, counted from 1, 0 for none; peers,
    ports, sources: None for any.
    """

    key: str
    number: int
    policy: str
    rule: int
    tier: str
    direction: str
    action: str
    rank: int
    log: int
    subject: PodGroup
    peers: tuple[Peer, ...] | None
    ports: tuple[PortMatch, ...] | None
    sources: tuple[PortMatch, ...] | None
    # How many there are: with one alone no conjunction is needed.
    clauses: int
    # What must be enforced for it to have an effect: KIND/DIRECTION.
    effect: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A conjunction before it has a number and a rank. order: sorts the rules of a tier."""

    key: str
    policy: str
    rule: int
    tier: str
    direction: str
    action: str
    order: tuple[float, str, int]
    subject: PodGroup
    peers: tuple[Peer, ...] | None
    ports: tuple[PortMatch, ...] | None
    sources: tuple[PortMatch, ...] | None = None

    def made(self, number: int, place: Place) -> Conjunction:
        """With number, rank and log."""
        return Conjunction(
            *(self.key, number, self.policy, self.rule, self.tier, self.direction, self.action, *place),
            *(self.subject, self.peers, self.ports, self.sources),
            1 + sum(clause is not None for clause in (self.peers, self.ports, self.sources)),
            f"{self.policy.partition(' ')[0]}/{self.direction}",
        )


# Rank, and which Log rule.
Place = tuple[int, int]


def drafts(policy: Policy, named: Named) -> Iterator[Draft]:
    """Every conjunction of a policy. Pure."""
    for direction in DIRECTIONS:
        for number, rule in enumerate(policy.rules(direction) or ()):
            yield from _of_rule(policy, direction, number, rule, named)


def _of_rule(policy: Policy, direction: str, number: int, rule: Rule, named: Named) -> Iterator[Draft]:
    order = (*policy.order, 0 if policy.order == UNORDERED else number)
    subject = policy.subject if rule.subject is None else _both(policy.subject, rule.subject)
    sources = None if rule.sources is None else _numbers(rule.sources)
    # A Log rule always is a conjunction, so that its flow is its own and counts for it alone.
    peers = (_EVERYBODY,) if rule.action == LOG and rule.peers is None else rule.peers
    plain = Draft(
        *(f"{policy.key} {direction} {number + 1}", policy.key, number, policy.tier, direction, rule.action, order),
        *(subject, peers, None, sources),
    )
    if rule.ports is None and sources != ():
        yield plain
    if not rule.ports or sources == ():
        return
    numbers = _numbers(rule.ports)
    if numbers:
        yield replace(plain, ports=numbers)
    for name, protocol in dict.fromkeys((p.name, p.protocol) for p in rule.ports if p.name):
        for each in (protocol,) if protocol else ("TCP", "UDP", "SCTP"):
            for port in sorted(named.get((name, each), ())):
                yield from _of_name(plain, NamedPort(name, each, port))


def _numbers(ports: Iterable[Port]) -> tuple[PortMatch, ...]:
    return tuple(dict.fromkeys(m for p in ports if not p.name for m in _matches(p.protocol, p.first, p.last)))


def _both(one: PodGroup, two: PodGroup) -> PodGroup:
    """The pods that are in both: a policy's own, and those of them that one of its rules is about."""
    namespaces = two.namespaces
    if one.namespaces is not None and namespaces is not None:
        namespaces = And((one.namespaces, namespaces))
    return PodGroup(
        one.namespace or two.namespace, namespaces, And((one.pods, two.pods)), within=two.within, endpoints=True
    )


def _of_name(plain: Draft, port: NamedPort) -> Iterator[Draft]:
    """Only destinations that have this port of this name and number."""
    match: tuple[PortMatch, ...] = ((protocol_number(port.protocol), port.number, 0xFFFF),)
    key = f"{plain.key} {port.name}={port.number}/{port.protocol}"
    if plain.direction == INGRESS:
        yield replace(plain, key=key, subject=replace(plain.subject, named=port), ports=match)
        return
    peers: tuple[Peer, ...] = (PodGroup("", ANY, ANY),) if plain.peers is None else plain.peers
    having = (replace(p, of=_having(p.of, port)) if isinstance(p, Others) else _having(p, port) for p in peers)
    yield replace(plain, key=key, peers=tuple(having), ports=match)


def _having(peer: Block | PodGroup, port: NamedPort) -> PodGroup:
    """Those of them that have the port: pods alone, for other addresses have no names for their ports."""
    return replace(peer, named=port) if isinstance(peer, PodGroup) else PodGroup("", ANY, ANY, port, peer)


def _matches(protocol: str, first: int, last: int) -> Iterator[PortMatch]:
    numbers = (protocol_number(protocol),) if protocol else (6, 17, 132)
    for number in numbers:
        if (first, last) == (0, 65535) or number not in (1, 6, 17, 132):
            yield number, 0, 0
        elif number == 1:
            yield from ((1, value, mask) for value, mask in _icmp(first, last))
        else:
            yield from ((number, value, mask) for value, mask in cover(first, last))


def _icmp(first: int, last: int) -> Iterator[tuple[int, int]]:
    """A type with every code, or a type and a code: the switch has no masks for them."""
    while first <= last:
        whole = not first & 0xFF and first + 0xFF <= last
        yield first, 0xFF00 if whole else 0xFFFF
        first += 0x100 if whole else 1


@lru_cache(maxsize=65536)
def cover(first: int, last: int) -> tuple[tuple[int, int], ...]:
    """The fewest (value, mask) of 16 bits that match exactly first..last."""
    found = []
    while first <= last:
        size = first & -first or 1 << 16
        while first + size - 1 > last:
            size >>= 1
        found.append((first, 0xFFFF & ~(size - 1)))
        first += size
    return tuple(found)


def ranked(every: Iterable[Draft]) -> dict[str, Place]:
    """Key -> place among the rules of one tier and direction.

    Neighbours with one action share a rank, for whichever of them is met the outcome is the same; so most changes leave
    other rules where they are. Log rules have a rank each. The rank 0 is that of NetworkPolicies, whether there is one
    or not.
    """
    groups: dict[tuple[str, str], list[Draft]] = {}
    for draft in every:
        groups.setdefault((draft.tier, draft.direction), []).append(draft)
    places: dict[str, Place] = {}
    for group in groups.values():
        ordered = sorted(group, key=lambda d: d.order)
        middle = (*UNORDERED, 0)
        logs = {order: i for i, order in enumerate(dict.fromkeys(d.order for d in ordered if d.action == LOG), start=1)}
        for side, step in ((reversed([d for d in ordered if d.order < middle]), -1), (ordered, 1)):
            rank, last = 0, ("", middle)
            for draft in side:
                if draft.order < middle and step == 1:
                    continue
                same = draft.order == last[1] or (draft.action == last[0] != LOG and last[1] != middle)
                rank, last = rank if same else rank + step, (draft.action, draft.order)
                places[draft.key] = rank, logs.get(draft.order, 0) if draft.action == LOG else 0
    return places


def priority(conjunction: Conjunction) -> int:
    """Of its flows. A rule of one clause takes the next higher number."""
    return _MIDDLE - _STEP * conjunction.rank


@lru_cache(maxsize=65536)
def networks(peer: Block) -> tuple[str, ...]:
    """The block as networks to match."""
    return peer.covering()

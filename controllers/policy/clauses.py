"""From policies to conjunctions: each rule as sets of which a connection must be in one member each.

One conjunction costs the sum of its clauses (subjects + peers + ports), not their product (ovs-fields(7), "Conjunctive
Match"). A port's name means another number in every destination, so a rule with names becomes one conjunction a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from controllers.policy.model import (
    ADMIN,
    ANY,
    BASELINE,
    DIRECTIONS,
    INGRESS,
    LOG,
    PROTOCOLS,
    Block,
    NamedPort,
    Peer,
    PodGroup,
    Policy,
    Rule,
)

# (protocol number, port, mask); mask 0: every port of the protocol.
PortMatch = tuple[int, int, int]
# Which numbers the container ports of a name have: (name, protocol) -> numbers.
Named = Mapping[tuple[str, str], Iterable[int]]
# Priorities of rules that have an order: the first rule has the highest. Two each, for a rule without clauses.
_STEP = 2
# Of a NetworkPolicy's rules, which are one set of permissions; as an order that Calico gives them, too.
UNORDERED = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class Conjunction:
    """One rule, or the part of it that concerns one number of a named port. The same object while nothing changes.

    key: unique, and how people know it; rank: place among the rules of its tier and direction that have an order, -1 if
    none; peers, ports: None for any.
    """

    key: str
    number: int
    policy: str
    rule: int
    tier: str
    direction: str
    action: str
    rank: int
    subject: PodGroup
    peers: tuple[Peer, ...] | None
    ports: tuple[PortMatch, ...] | None

    @property
    def clauses(self) -> int:
        """How many there are; with one alone no conjunction is needed."""
        return 1 + (self.peers is not None) + (self.ports is not None)


@dataclass(frozen=True, slots=True)
class Draft:
    """A conjunction before it has a number and a rank. order: sorts the rules of a tier, None for no order."""

    key: str
    policy: str
    rule: int
    tier: str
    direction: str
    action: str
    order: tuple[float, str, int] | None
    subject: PodGroup
    peers: tuple[Peer, ...] | None
    ports: tuple[PortMatch, ...] | None

    def made(self, number: int, rank: int) -> Conjunction:
        """With number and rank."""
        return Conjunction(
            *(self.key, number, self.policy, self.rule, self.tier, self.direction, self.action, rank),
            *(self.subject, self.peers, self.ports),
        )


def drafts(policy: Policy, named: Named) -> Iterator[Draft]:
    """Every conjunction of a policy. Pure."""
    for direction in DIRECTIONS:
        for number, rule in enumerate(policy.rules(direction) or ()):
            if rule.action != LOG:
                yield from _of_rule(policy, direction, number, rule, named)


def _of_rule(policy: Policy, direction: str, number: int, rule: Rule, named: Named) -> Iterator[Draft]:
    order = None if policy.order is None else (*policy.order, number)
    plain = Draft(
        *(f"{policy.key} {direction} {number + 1}", policy.key, number, policy.tier, direction, rule.action, order),
        *(policy.subject, rule.peers, None),
    )
    if rule.ports is None:
        yield plain
        return
    numbers = [m for p in rule.ports if not p.name for m in _matches(p.protocol, p.first, p.last)]
    if numbers:
        yield replace(plain, ports=tuple(dict.fromkeys(numbers)))
    for name, protocol in dict.fromkeys((p.name, p.protocol) for p in rule.ports if p.name):
        for each in (protocol,) if protocol else ("TCP", "UDP", "SCTP"):
            for port in sorted(named.get((name, each), ())):
                yield from _of_name(plain, NamedPort(name, each, port))


def _of_name(plain: Draft, port: NamedPort) -> Iterator[Draft]:
    """Only destinations that have this port of this name and number."""
    match: tuple[PortMatch, ...] = ((PROTOCOLS[port.protocol], port.number, 0xFFFF),)
    key = f"{plain.key} {port.name}={port.number}/{port.protocol}"
    if plain.direction == INGRESS:
        yield replace(plain, key=key, subject=replace(plain.subject, named=port), ports=match)
        return
    peers = (PodGroup("", ANY, ANY),) if plain.peers is None else plain.peers
    # Of a block, the pods whose addresses are in it: other addresses have no names for their ports.
    groups = tuple(
        replace(p, named=port) if isinstance(p, PodGroup) else PodGroup("", ANY, ANY, port, p) for p in peers
    )
    yield replace(plain, key=key, peers=groups, ports=match)


def _matches(protocol: str, first: int, last: int) -> Iterator[PortMatch]:
    for number in (PROTOCOLS[protocol],) if protocol else (6, 17, 132):
        for value, mask in cover(first, last):
            yield number, value, mask


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


def ranked(every: Iterable[Draft]) -> dict[str, int]:
    """Key -> rank, from 0, among the rules of one tier and direction that have an order."""
    groups: dict[tuple[str, str], list[Draft]] = {}
    for draft in every:
        if draft.order is not None:
            groups.setdefault((draft.tier, draft.direction), []).append(draft)
    ranks: dict[str, int] = {}
    for group in groups.values():
        places = {order: i for i, order in enumerate(sorted({d.order for d in group if d.order is not None}))}
        ranks |= {d.key: places[d.order] for d in group if d.order is not None}
    return ranks


def priority(conjunction: Conjunction, normal: int) -> int:
    """Of its flows. normal: of rules without an order. A rule of one clause takes the next higher number.

    The baseline's stay below what isolates a pod.
    """
    if conjunction.rank < 0:
        return normal
    top = {ADMIN: 60000, BASELINE: normal - _STEP}.get(conjunction.tier, 60000)
    return top - _STEP * conjunction.rank


@lru_cache(maxsize=65536)
def networks(peer: Block) -> tuple[str, ...]:
    """The block as networks to match."""
    return tuple(str(n) for n in peer.covering())

"""A routing information base: announcements in, best paths out, decided as BGP decides; pure.

Source: RFC 4271, section 3.1 (what a speaker keeps) and 9.1 (the decision process); RFC 4456, section 9 (reflected
paths); RFC 1997 (communities). Every function is one of the paths held now, whatever the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from ipaddress import IPv4Network

Community = tuple[int, int]

# RFC 1997, "Well-known Communities": to no other AS, and to nobody at all.
NO_EXPORT: Community = (0xFFFF, 0xFF01)
NO_ADVERTISE: Community = (0xFFFF, 0xFF02)
DEFAULT_LOCAL_PREFERENCE = 100


class Origin(IntEnum):
    """RFC 4271, section 5.1.1; the lower is preferred."""

    IGP = 0
    EGP = 1
    INCOMPLETE = 2


@dataclass(frozen=True, slots=True)
class Announcement:
    """One path to a prefix. Addresses and router IDs are IPv4 numbers.

    speaker: the peer that told us of it; it has one path to a prefix. as_path: nearest AS first. router_id: of who
    brought it into our AS (the ORIGINATOR_ID of a reflected path), 0 for the speaker's own address. clusters: the
    reflectors it passed. external: learnt from another AS. metric: what the way to next_hop costs inside our AS.
    """

    prefix: str
    next_hop: int
    speaker: int
    local_preference: int = DEFAULT_LOCAL_PREFERENCE
    as_path: tuple[int, ...] = ()
    med: int = 0
    origin: Origin = Origin.IGP
    communities: frozenset[Community] = frozenset()
    router_id: int = 0
    clusters: tuple[int, ...] = ()
    external: bool = False
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A speaker's word that it has no path to a prefix any more, or ("" for the prefix) its end: it has none at all."""

    speaker: int
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with paths that it fits: to drop them, or to keep them with changes.

    prefix: the paths' prefix lies in it ("" for any); shortest, longest: bounds of their length. community: they carry
    it. local_preference: set it. add: communities put onto them.
    """

    accept: bool
    prefix: str = ""
    shortest: int = 0
    longest: int = 32
    community: Community | None = None
    local_preference: int | None = None
    add: frozenset[Community] = frozenset()

    def fits(self, path: Announcement) -> bool:
        """Whether the path is one that this rule is about."""
        network = IPv4Network(path.prefix)
        if not self.shortest <= network.prefixlen <= self.longest:
            return False
        if self.prefix and not network.subnet_of(IPv4Network(self.prefix)):
            return False
        return self.community is None or self.community in path.communities

    def apply(self, path: Announcement) -> Announcement:
        """The path with what the rule sets."""
        preference = path.local_preference if self.local_preference is None else self.local_preference
        return replace(path, local_preference=preference, communities=path.communities | self.add)


Filter = Sequence[Rule]
ACCEPT_ALL: Filter = (Rule(accept=True),)


def judge(path: Announcement, rules: Filter) -> Announcement | None:
    """The path as the first rule that fits it leaves it; None if that drops it, or none fits."""
    for rule in rules:
        if rule.fits(path):
            return rule.apply(path) if rule.accept else None
    return None


def learn(messages: Iterable[Announcement | Withdrawal]) -> tuple[Announcement, ...]:
    """What is held after these messages, in their order.

    A speaker's later announcement of a prefix replaces its earlier one, even by a worse (RFC 4271, section 3.1).
    """
    held: dict[tuple[str, int], Announcement] = {}
    for message in messages:
        if isinstance(message, Announcement):
            held[message.prefix, message.speaker] = message
        elif message.prefix:
            held.pop((message.prefix, message.speaker), None)
        else:
            held = {key: path for key, path in held.items() if path.speaker != message.speaker}
    return tuple(held.values())


def best_of(paths: Iterable[Announcement]) -> tuple[Announcement, ...]:
    """The equally good ones among paths to one prefix, the best one first. Raises ValueError if there is no path.

    Steps of RFC 4271: 9.1.1 local preference; 9.1.2.2 a AS path length, b origin, c MED (only among paths from the
    same neighbouring AS), d external before internal, e metric of the next hop. What is left is equally good
    (multipath); their order is by f the lowest router ID, then the shorter list of clusters (RFC 4456, section 9),
    g the lowest speaker.
    """
    left = list(paths)
    for key in (lambda p: -p.local_preference, lambda p: len(p.as_path), lambda p: p.origin):
        left = _least(left, key)
    least: dict[tuple[int, ...], int] = {}
    for path in left:
        neighbour = path.as_path[:1]
        least[neighbour] = min(path.med, least.get(neighbour, path.med))
    left = [p for p in left if p.med == least[p.as_path[:1]]]
    for key in (lambda p: not p.external, lambda p: p.metric):
        left = _least(left, key)
    return tuple(sorted(left, key=lambda p: (p.router_id or p.speaker, len(p.clusters), p.speaker)))


def _least(paths: list[Announcement], key: Callable[[Announcement], int]) -> list[Announcement]:
    least = min(map(key, paths))
    return [p for p in paths if key(p) == least]


def best_paths(
    announcements: Iterable[Announcement], rules: Filter = ACCEPT_ALL, own_as: int = 0
) -> Mapping[str, tuple[Announcement, ...]]:
    """For each prefix its best paths, of those that the import rules let in.

    own_as: paths that passed it already are left out (RFC 4271, section 9.1.2: loops); 0 for none.
    """
    by_prefix: dict[str, list[Announcement]] = {}
    for path in learn(announcements):
        kept = judge(path, rules)
        if kept is not None and not (own_as and own_as in kept.as_path):
            by_prefix.setdefault(kept.prefix, []).append(kept)
    return {prefix: best_of(paths) for prefix, paths in by_prefix.items()}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Somebody to tell of routes. client: we reflect to it and for it (RFC 4456)."""

    address: int
    asn: int
    client: bool = False


def told(
    best: Announcement,
    to: Neighbour,
    own: Neighbour,
    rules: Filter = ACCEPT_ALL,
    from_client: bool = False,
    cluster: int = 0,
) -> Announcement | None:
    """The best path as a neighbour hears it of us; None if it does not.

    Source: RFC 4271, section 9.2 (not back to who told it; what is internal stays among those that it was told to),
    5.1.2 (own AS in front), 5.1.3 (next hop), 5.1.4 and 5.1.5 (MED and local preference stay in the AS); RFC 4456,
    section 8 (reflection). own: ourselves. from_client: its speaker is a client. cluster: our cluster ID as reflector.
    A path of our own has us as its speaker.
    """
    is_own, internal = best.speaker == own.address, to.asn == own.asn
    if best.speaker == to.address or NO_ADVERTISE in best.communities:
        return None
    if not internal and NO_EXPORT in best.communities:
        return None
    reflected = internal and not is_own and not best.external
    if reflected and not (cluster and (to.client or from_client)):
        return None
    kept = judge(best, rules)
    if kept is None:
        return None
    if not internal:
        return replace(
            kept,
            speaker=own.address,
            next_hop=own.address,
            as_path=(own.asn, *kept.as_path),
            med=0,
            local_preference=DEFAULT_LOCAL_PREFERENCE,
            external=True,
            router_id=0,
            clusters=(),
        )
    if reflected:
        origin = kept.router_id or kept.speaker
        return replace(kept, speaker=own.address, router_id=origin, clusters=(cluster, *kept.clusters))
    hop = own.address if is_own else kept.next_hop
    return replace(kept, speaker=own.address, next_hop=hop, external=False)

"""A routing information base: announcements in, best paths out, decided as BGP decides (RFC 4271, section 9.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Announcement:
    """One path to a prefix. speaker: who announced it, an IPv4 number that also breaks ties (router ID)."""

    prefix: str
    next_hop: int
    speaker: int
    local_preference: int = 100
    as_path: tuple[int, ...] = ()
    med: int = 0


def best_of(paths: Iterable[Announcement]) -> tuple[Announcement, ...]:
    """The equally good ones among paths to one prefix, the lowest speaker first.

    Steps of RFC 4271: 9.1.1 local preference; 9.1.2.2 a AS path length; c MED, only among paths from the same
    neighbouring AS. What step f (lowest identifier) would choose alone comes first, and the others are kept: multipath.
    """
    left = list(paths)
    top = max(p.local_preference for p in left)
    left = [p for p in left if p.local_preference == top]
    shortest = min(len(p.as_path) for p in left)
    left = [p for p in left if len(p.as_path) == shortest]
    least: dict[tuple[int, ...], int] = {}
    for path in left:
        neighbour = path.as_path[:1]
        least[neighbour] = min(path.med, least.get(neighbour, path.med))
    return tuple(sorted((p for p in left if p.med == least[p.as_path[:1]]), key=lambda p: p.speaker))


def best_paths(announcements: Iterable[Announcement]) -> Mapping[str, tuple[Announcement, ...]]:
    """For each prefix its best paths.

    One speaker's later announcement of a prefix replaces its earlier one (RFC 4271, section 3.1).
    """
    latest = {(a.prefix, a.speaker): a for a in announcements}
    by_prefix: dict[str, list[Announcement]] = {}
    for path in latest.values():
        by_prefix.setdefault(path.prefix, []).append(path)
    return {prefix: best_of(paths) for prefix, paths in by_prefix.items()}

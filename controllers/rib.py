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


def preference(path: Announcement) -> tuple[int, int, int]:
    """Smaller is better: local preference, AS path length, MED (RFC 4271, 9.1.1 and 9.1.2.2 a to c)."""
    return -path.local_preference, len(path.as_path), path.med


def best_paths(announcements: Iterable[Announcement]) -> Mapping[str, tuple[Announcement, ...]]:
    """For each prefix the equally good paths, the one that a single-path speaker would take first (9.1.2.2 f).

    One speaker's later announcement of a prefix replaces its earlier one (RFC 4271, section 3.1).
    """
    latest = {(a.prefix, a.speaker): a for a in announcements}
    by_prefix: dict[str, list[Announcement]] = {}
    for path in latest.values():
        by_prefix.setdefault(path.prefix, []).append(path)
    out = {}
    for prefix, paths in by_prefix.items():
        top = min(map(preference, paths))
        out[prefix] = tuple(sorted((p for p in paths if preference(p) == top), key=lambda p: p.speaker))
    return out

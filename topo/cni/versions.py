"""Versions of the specification: which there are, and which one a configuration, a runtime and plugins agree on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

# What our runtime and our plugins speak, oldest first. 0.3.0 brought lists, 0.4.0 CHECK, 1.1.0 STATUS and GC.
SUPPORTED = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST = SUPPORTED[-1]
CHECK_SINCE, NO_IP_VERSION_SINCE, GC_SINCE = "0.4.0", "1.0.0", "1.1.0"

_FORM = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def is_version(text: object) -> bool:
    """Whether it is three numbers, as 1.0.0."""
    return isinstance(text, str) and _FORM.fullmatch(text) is not None


def number(version: str) -> tuple[int, ...]:
    """By which versions are compared (Semantic Versioning 2.0, section 11)."""
    return tuple(map(int, version.split(".")))


def at_least(version: str, since: str) -> bool:
    """Whether the version has what came with `since`."""
    return number(version) >= number(since)


def highest(offered: Iterable[str], spoken: Iterable[Collection[str]]) -> str | None:
    """The highest of the configuration's versions that all others speak too; None if there is none."""
    common = [version for version in offered if all(version in each for each in (SUPPORTED, *spoken))]
    return max(common, key=number, default=None)

"""What --option says of a scenario: merged with its defaults, and read as numbers or names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from topo.cluster.errors import InputError


def merge(scenario: str, defaults: Mapping[str, str], given: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE texts over the scenario's defaults. Raises InputError for a key that it does not have."""
    found = dict(defaults)
    for text in given:
        key, equals, value = text.partition("=")
        if key not in defaults or not equals:
            known = ", ".join(f"{k}={v}" for k, v in defaults.items()) or f"scenario {scenario} has none"
            raise InputError(f"--option {text}", "no such option", known)
        found[key] = value
    return found


def numbers(options: Mapping[str, str], key: str, least: int) -> tuple[int, ...]:
    """A list of whole numbers: "10,100". Raises InputError."""
    words = options[key].split(",")
    if not all(word.isdigit() and int(word) >= least for word in words):
        raise InputError(f"--option {key}={options[key]}", "is no list of numbers", f"{least} or more each: 10,100")
    return tuple(map(int, words))


def number(options: Mapping[str, str], key: str, least: int) -> int:
    """One whole number. Raises InputError."""
    text = options[key]
    if not text.isdigit() or int(text) < least:
        raise InputError(f"--option {key}={text}", "is no number", f"{least} or more")
    return int(text)


def names(options: Mapping[str, str], key: str, known: Collection[str]) -> tuple[str, ...]:
    """A list of some of the known names; "all" for all of them. Raises InputError."""
    if options[key] == "all":
        return tuple(known)
    words = tuple(options[key].split(","))
    for word in words:
        if word not in known:
            raise InputError(f"--option {key}={options[key]}", f"unknown: {word!r}", f"some of: {', '.join(known)}")
    return words

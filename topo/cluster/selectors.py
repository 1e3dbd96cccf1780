"""Calico's selector language: which labels an expression chooses.

Source: Calico, "Network policy", "Selectors". `&&` binds closer than `||`; `!` negates what follows it; string literals
are in single or double quotes and know no escapes; a selector that is empty chooses everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

Labels = Mapping[str, str]
_KEY = r"[a-zA-Z0-9_./-]{1,512}"
_TOKEN = re.compile(
    rf"""[ \t]*(?:(?P<sign>==|!=|&&|\|\||[!(){{}},])|"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<word>{_KEY}))"""
)
_CALLS = ("all", "global", "has")
# A label that every namespace has (Calico, "Calico automatic labels"), by which those are told from what is in none.
NAMESPACE_NAME = "projectcalico.org/name"
# Operators between a key and a string: whether (the label's value, the string) hold.
_TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "==": lambda have, text: have == text,
    "contains": lambda have, text: text in have,
    "starts with": lambda have, text: have.startswith(text),
    "ends with": lambda have, text: have.endswith(text),
}


class BadSelector(ValueError):
    """The text is no selector; the message says where and what was expected."""


class Selector(Protocol):
    """What chooses by labels, of whichever language: hashable, and equal if it says the same."""

    @property
    def equal(self) -> tuple[tuple[str, str], ...]:
        """Labels that everything it chooses has, as far as that is plain."""

    def __hash__(self) -> int:
        """Of what it says."""

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is chosen."""


class _Part:
    """Part of a selector, or the whole of one."""

    __slots__ = ()

    @property
    def equal(self) -> tuple[tuple[str, str], ...]:
        """Nothing is plain."""
        return ()


@dataclass(frozen=True, slots=True)
class Everything(_Part):
    """all(): whatever there is."""

    def matches(self, labels: Labels) -> bool:
        """Always."""
        return True

    def __str__(self) -> str:
        return "all()"


@dataclass(frozen=True, slots=True)
class Has(_Part):
    """has(key)"""

    key: str

    def matches(self, labels: Labels) -> bool:
        """Whether the key is there, whatever its value."""
        return self.key in labels

    def __str__(self) -> str:
        return f"has({self.key})"


@dataclass(frozen=True, slots=True)
class Is(_Part):
    """key OPERATOR 'text'; false where the key is missing."""

    key: str
    operator: str
    text: str

    def matches(self, labels: Labels) -> bool:
        """Whether the label's value stands so to the text."""
        have = labels.get(self.key)
        return have is not None and _TESTS[self.operator](have, self.text)

    @property
    def equal(self) -> tuple[tuple[str, str], ...]:
        """The label itself, if it must be equal."""
        return ((self.key, self.text),) if self.operator == "==" else ()

    def __str__(self) -> str:
        return f"{self.key} {self.operator} {_quoted(self.text)}"


@dataclass(frozen=True, slots=True)
class In(_Part):
    """key in {...}; false where the key is missing."""

    key: str
    values: frozenset[str]

    def matches(self, labels: Labels) -> bool:
        """Whether the label's value is one of them."""
        return labels.get(self.key) in self.values

    def __str__(self) -> str:
        return f"{self.key} in {{{', '.join(_quoted(v) for v in sorted(self.values))}}}"


@dataclass(frozen=True, slots=True)
class Not(_Part):
    """Whatever the other does not choose: `!=` and `not in` hold where the key is missing."""

    other: Selector

    def matches(self, labels: Labels) -> bool:
        """The opposite."""
        return not self.other.matches(labels)

    def __str__(self) -> str:
        return f"!({self.other})"


@dataclass(frozen=True, slots=True)
class And(_Part):
    """All of them."""

    parts: tuple[Selector, ...]

    def matches(self, labels: Labels) -> bool:
        """Whether all hold."""
        return all(part.matches(labels) for part in self.parts)

    @property
    def equal(self) -> tuple[tuple[str, str], ...]:
        """Those of its parts."""
        return tuple(pair for part in self.parts for pair in part.equal)

    def __str__(self) -> str:
        return " && ".join(f"({p})" if isinstance(p, Or) else str(p) for p in self.parts)


@dataclass(frozen=True, slots=True)
class Or(_Part):
    """One of them at least."""

    parts: tuple[Selector, ...]

    def matches(self, labels: Labels) -> bool:
        """Whether one holds."""
        return any(part.matches(labels) for part in self.parts)

    def __str__(self) -> str:
        return " || ".join(map(str, self.parts))


EVERYTHING = Everything()


def _quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


@lru_cache(maxsize=65536)
def parse(text: str) -> Selector:
    """The selector that the text is. Raises BadSelector."""
    return _Parser(text, {"all": EVERYTHING}).whole()


@lru_cache(maxsize=65536)
def parse_namespaces(text: str) -> Selector:
    """The namespaceSelector that the text is: all() are the namespaces, global() is what is in none.

    Raises BadSelector.
    """
    return _Parser(text, {"all": Has(NAMESPACE_NAME), "global": Not(Has(NAMESPACE_NAME))}).whole()


class _Parser:
    """Reads one selector from left to right. calls: what those without an argument mean."""

    def __init__(self, text: str, calls: Mapping[str, Selector]) -> None:
        self.text, self.calls = text, calls
        self.tokens = list(_tokens(text))

    def whole(self) -> Selector:
        if not self.tokens:
            return EVERYTHING
        found = self.either()
        if self.tokens:
            raise self.wrong("&&, || or the end")
        return found

    def either(self) -> Selector:
        parts = [self.both()]
        while self.take("||"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def both(self) -> Selector:
        parts = [self.one()]
        while self.take("&&"):
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def one(self) -> Selector:
        if self.take("!"):
            return Not(self.one())
        if self.take("("):
            found = self.either()
            self.need(")")
            return found
        key = self.word("a label's key, all(), has(KEY), ! or (")
        if key in _CALLS and self.take("("):
            if key != "has" and key not in self.calls:
                raise BadSelector(f"{key}() is only for the namespaceSelector of a source or destination")
            found = Has(self.word("a label's key")) if key == "has" else self.calls[key]
            self.need(")")
            return found
        if self.take("!="):
            return Not(Is(key, "==", self.literal()))
        for operator in _TESTS:
            if self.take(*operator.split()):
                return Is(key, operator, self.literal())
        if self.take("not", "in"):
            return Not(In(key, self.values()))
        if self.take("in"):
            return In(key, self.values())
        raise self.wrong("==, !=, in, not in, contains, starts with or ends with")

    def values(self) -> frozenset[str]:
        self.need("{")
        found = []
        while not self.take("}"):
            found.append(self.literal())
            if not self.take(","):
                self.need("}")
                break
        return frozenset(found)

    def literal(self) -> str:
        if not self.tokens or self.tokens[0][0] != "text":
            raise self.wrong("a string in quotes")
        return self.tokens.pop(0)[1]

    def word(self, expected: str) -> str:
        if not self.tokens or self.tokens[0][0] != "word":
            raise self.wrong(expected)
        return self.tokens.pop(0)[1]

    def take(self, *values: str) -> bool:
        """Go past these tokens, if they come next."""
        there = [value for kind, value, _ in self.tokens[: len(values)] if kind != "text"]
        if there != list(values):
            return False
        del self.tokens[: len(values)]
        return True

    def need(self, value: str) -> None:
        if not self.take(value):
            raise self.wrong(value)

    def wrong(self, expected: str) -> BadSelector:
        place = self.tokens[0][2] if self.tokens else len(self.text)
        return BadSelector(f"at character {place + 1}: expected {expected}")


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """Kind ("sign", "word" or "text"), value and place of each."""
    found, place, end = [], 0, len(text.rstrip(" \t"))
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            rest = text[place:].lstrip(" \t")
            raise BadSelector(f"at character {len(text) - len(rest) + 1}: {rest[:8]!r} is no part of a selector")
        kind = match.lastgroup or ""
        found.append(("text" if kind in ("double", "single") else kind, match[kind], match.start(kind)))
        place = match.end()
    return found

"""Which objects bear a mark, such as a label or an owner, without a look at all the others."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Index(Generic[Name]):
    """Names and the marks they bear; found in the order in which the names were first put here."""

    def __init__(self) -> None:
        self._bearers: dict[Hashable, set[Name]] = {}
        self._marks: dict[Name, frozenset[Hashable]] = {}
        self._numbers: dict[Name, int] = {}
        self._next = 0

    def put(self, name: Name, marks: Iterable[Hashable]) -> None:
        """From now on it bears these marks and no others."""
        before, now = self._marks.get(name), frozenset(marks)
        if before is None:
            self._numbers[name], self._next = self._next, self._next + 1
        self._drop(name, (before or frozenset()) - now)
        self._marks[name] = now
        for mark in now - (before or frozenset()):
            self._bearers.setdefault(mark, set()).add(name)

    def take(self, name: Name) -> None:
        """It is there no more."""
        self._drop(name, self._marks.pop(name, frozenset()))
        self._numbers.pop(name, None)

    def find(self, marks: Iterable[Hashable]) -> list[Name]:
        """Those that bear all of these marks; there must be one at least."""
        fewest, *others = sorted((self._bearers.get(mark, set()) for mark in set(marks)), key=len)
        return sorted(fewest.intersection(*others), key=self._numbers.__getitem__)

    def _drop(self, name: Name, marks: Iterable[Hashable]) -> None:
        for mark in marks:
            there = self._bearers[mark]
            there.discard(name)
            if not there:
                del self._bearers[mark]

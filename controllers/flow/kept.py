"""What is made once for equal inputs, or for one object, and kept for as long as somebody has it.

Not for longer, as functools.lru_cache would: a lab that runs for weeks has other pods every day.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, TypeVarTuple
from weakref import WeakValueDictionary, ref

Inputs = TypeVarTuple("Inputs")
Made = TypeVar("Made")


def kept(make: Callable[[*Inputs], Made]) -> Callable[[*Inputs], Made]:
    """For equal inputs give the same fragment (or what one is made of), as long as there is a program that has it."""
    known: WeakValueDictionary[tuple[*Inputs], Made] = WeakValueDictionary()

    @wraps(make)
    def made(*inputs: *Inputs) -> Made:
        found = known.get(inputs)
        if found is None:
            found = known[inputs] = make(*inputs)
        return found

    return made


class _Numbered(ref[Any]):
    """A weak reference that knows whose it was."""

    __slots__ = ("number",)
    number: int


def by_identity(make: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Keep what was made for an object as long as there is that object: all nodes are sent the same ones, and to hash
    what is in them would take longer than to make their bytes."""
    known: dict[int, tuple[_Numbered, bytes]] = {}

    def forget(gone: _Numbered) -> None:
        del known[gone.number]  # which another object may have from now on

    @wraps(make)
    def made(thing: Any) -> bytes:
        number = id(thing)
        found = known.get(number)
        if found is None:
            out, one = make(thing), _Numbered(thing, forget)
            one.number = number
            known[number] = one, out
            return out
        return found[1]

    return made

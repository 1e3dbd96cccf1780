"""Numbers for names: stable, and the same for whoever asks."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32


def assign_numbers(keys: Iterable[str], bits: int = 30) -> dict[str, int]:
    """A number in 1..2^bits-1 for each key, stable under other keys coming and going unless two hashes collide.

    Pure: a function of the set of keys, so a controller that starts anew gives the same numbers.
    """
    taken: dict[int, str] = {}
    most = (1 << bits) - 1
    for start, key in sorted((crc32(key.encode()) & most or 1, key) for key in keys):
        number = start
        while number in taken:
            number = number % most + 1
        taken[number] = key
    return {key: number for number, key in taken.items()}

"""Doing the same to many things, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Thing = TypeVar("Thing")


def at_once(work: Callable[[Thing], None], things: Iterable[Thing]) -> None:
    """Do it to all, and raise what the first that failed raised.

    Nobody waits for the others then: a lab that is interrupted may be waiting for a switch that was killed.
    """
    pool = ThreadPoolExecutor(max_workers=4)
    try:
        for _ in pool.map(work, things):
            pass
    finally:
        pool.shutdown(wait=False, cancel_futures=True)

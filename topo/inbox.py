"""Work for one thread: what other threads hand to it, and what is to be done later."""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable

LOG = logging.getLogger("mininetes")

Call = Callable[[], None]


class Inbox:
    """Calls to make, in order; those for later when their time has come."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._later: list[tuple[float, int, Call]] = []
        self._numbers = itertools.count()

    def put(self, call: Call) -> None:
        """Have it done soon. From any thread."""
        self._queue.put(call)

    def after(self, seconds: float, call: Call) -> None:
        """Have it done in so many seconds. From any thread."""
        moment = time.monotonic() + seconds
        self._queue.put(lambda: heapq.heappush(self._later, (moment, next(self._numbers), call)))

    def run(self, then: Callable[[], bool]) -> None:
        """Do what comes, for ever. then: called when nothing waits; True if it wants to be called again soon.

        A call that fails is logged and stops no other.
        """
        again = False
        while True:
            patience = max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
            self._do_waiting(0.0 if again else patience)
            while self._later and self._later[0][0] <= time.monotonic():
                _guarded(heapq.heappop(self._later)[2])
            again = then()

    def _do_waiting(self, patience: float | None) -> None:
        try:
            _guarded(self._queue.get(timeout=patience) if patience != 0 else self._queue.get_nowait())
            while True:
                _guarded(self._queue.get_nowait())
        except queue.Empty:
            pass


def _guarded(call: Call) -> None:
    try:
        call()
    except Exception:
        LOG.exception("kubelet")


class Confirmer:
    """A thread that waits until switches hold the flows of a revision, once for all who ask meanwhile."""

    def __init__(self, wait: Callable[[set[str], int], None], name: str) -> None:
        """wait(nodes, revision): returns when those nodes' switches hold it."""
        self._wait = wait
        self._queue: queue.SimpleQueue[tuple[set[str], int, Call]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def ask(self, nodes: set[str], revision: int, then: Call) -> None:
        """Call `then`, from the confirmer's thread, once those nodes hold that revision."""
        self._queue.put((nodes, revision, then))

    def _run(self) -> None:
        while True:
            jobs = [self._queue.get()]
            while not self._queue.empty():
                jobs.append(self._queue.get())
            try:
                self._wait(set().union(*(nodes for nodes, _, _ in jobs)), max(revision for _, revision, _ in jobs))
            except Exception:
                LOG.exception("waiting for switches")
            for _, _, then in jobs:
                _guarded(then)

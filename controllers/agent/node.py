"""One node's agent: its parts, kept as the newest view wants them by a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from controllers.proxy import NodePart
from controllers.state import NodeView

LOG = logging.getLogger("mininetes")
# Seconds after which what failed is tried again: a port may be free by then, a switch back.
RETRY = 1.0

# Gets a store revision and the errors, empty for none.
Report = Callable[[int, list[str]], None]


class NodeAgent:
    """One node's parts, worked by a thread of its own: a slow node holds up no other. pid: of the node's process.

    Until the node is ready for the first time there is nothing to do: its interfaces and rules are being made.
    after: the agent of the node that had this name before. It goes first, for the folder of its programs is this one's
    too: one of the two would take the other's BIRD for its own.
    """

    def __init__(
        self,
        name: str,
        pid: int,
        parts: Sequence[NodePart],
        report: Report,
        retry: float = RETRY,
        after: NodeAgent | None = None,
    ) -> None:
        self.name, self.pid = name, pid
        self._parts, self._report, self._retry = parts, report, retry
        self._wanted: tuple[NodeView, int] | None = None
        self._wake = threading.Condition()
        self._was_ready = self._ended = False
        self._errors: list[str] = []
        self._thread = threading.Thread(target=self._run, args=(after,), name=name, daemon=True)
        self._thread.start()

    def want(self, view: NodeView, revision: int) -> None:
        """The view as of this store revision."""
        with self._wake:
            self._wanted = view, revision
            self._wake.notify()

    def end(self) -> None:
        """Close everything; the node is gone."""
        with self._wake:
            self._ended = True
            self._wake.notify()

    def _run(self, after: NodeAgent | None) -> None:
        if after is not None:
            after._thread.join()
            after = None  # who follows keeps us, and must not keep all before us
        current: tuple[NodeView, int] | None = None
        while True:
            with self._wake:
                self._wake.wait_for(
                    lambda: self._wanted is not None or self._ended, self._retry if self._errors else None
                )
                if self._ended:
                    break
                current, self._wanted = self._wanted or current, None
            if current is not None:
                errors = self._sync(current[0])
                if errors != self._errors:
                    LOG.info("%s: %s", self.name, "; ".join(errors) or "all is well again")
                self._errors = errors
                self._report(current[1], errors)
        self._each(lambda part: part.close())

    def _sync(self, view: NodeView) -> list[str]:
        self._was_ready |= view.node.ready
        return self._each(lambda part: part.sync(view)) if self._was_ready else []

    def _each(self, act: Callable[[NodePart], None]) -> list[str]:
        """Every part, whatever became of those before it; what went wrong."""
        errors = []
        for part in self._parts:
            try:
                act(part)
            except (OSError, RuntimeError) as error:
                errors.append(str(error))
            except Exception as error:  # a part of a researcher's own; a dead thread would leave the lab waiting
                LOG.exception("%s: %s", self.name, type(part).__name__)
                errors.append(f"{type(part).__name__}: {type(error).__name__}: {error}")
        return errors

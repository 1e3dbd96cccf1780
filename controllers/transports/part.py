"""What parts of a node with a program of their own share: the program that ended by itself is told everything again."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from pathlib import Path

from controllers.state import NodeView
from controllers.transports.lasting import LastingProgram

LOG = logging.getLogger("mininetes")


class ProgramPart(ABC):
    """A node's part around one program. run: the node's own folder; name: of the program's files in it."""

    def __init__(self, pid: int, run: Path, name: str) -> None:
        self._program = LastingProgram(pid, run, name, self._again)
        self._view: NodeView | None = None
        self._lock = threading.Lock()

    def sync(self, view: NodeView) -> None:
        """Make the program, and what is around it, as the view wants. Raises OSError or RuntimeError."""
        with self._lock:
            self._view = view
            self._sync(view)

    def close(self) -> None:
        """End the program, and what ends with it."""
        with self._lock:
            self._view = None
            self._program.close()

    @abstractmethod
    def _sync(self, view: NodeView) -> None:
        """As `sync`; never twice at once."""

    def _again(self) -> None:
        with self._lock:
            if self._view is not None:
                try:
                    self._sync(self._view)
                except (OSError, RuntimeError) as error:
                    LOG.warning("%s", error)

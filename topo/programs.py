"""Programs of this machine that run in pods in place of a container's: their signals, and how their end is noticed."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LOG = logging.getLogger("mininetes")

Program = subprocess.Popen[Any]


def terminate(program: Program) -> None:
    """SIGTERM to the program alone, as a container runtime sends it to the first process of a container."""
    program.terminate()


def kill(program: Program) -> None:
    """SIGKILL to it and what it started, which has its process group; returns when it has ended."""
    with suppress(ProcessLookupError):  # nothing of it is left
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()


class Reaper:
    """One thread that waits for the ends of all programs."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._watched: dict[int, tuple[Program, Callable[[int], None]]] = {}
        threading.Thread(target=self._run, name="reaper", daemon=True).start()

    def watch(self, program: Program, then: Callable[[int], None]) -> None:
        """Call `then` with the program's exit status (negative: a signal), from the reaper's thread, when it ends."""
        fd = os.pidfd_open(program.pid)
        self._watched[fd] = program, then
        self._poll.register(fd, select.EPOLLIN)

    def _run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                self._poll.unregister(fd)
                os.close(fd)
                program, then = self._watched.pop(fd)
                try:
                    then(program.wait())
                except Exception:
                    LOG.exception("reaper")

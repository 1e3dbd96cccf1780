"""A program of a node that outlives the agent: the next agent finds it by its pid file and goes on with it.

So the node's traffic does not stop with the agent, and there is never a second one.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from topo.system import wait_end

LOG = logging.getLogger("mininetes")
# Seconds between the end of a program and its next start.
_PAUSE = 0.5
# The program has the shell's pid, and its pid file is there before anything of it.
_SCRIPT = 'echo $$ > "$0" && exec "$@"'


class LastingProgram:
    """One program in the namespaces of process `pid`. name: of its pid file and log in the folder.

    ended: called, from a thread, when it has ended by itself; whoever it is calls `ensure` again.
    """

    def __init__(self, pid: int, folder: Path, name: str, ended: Callable[[], None]) -> None:
        self._pid, self._name, self._ended = pid, name, ended
        self._pid_file, self._log = folder / f"{name}.pid", folder / f"{name}.log"
        self._number = 0
        self._closed = False

    def ensure(self, argv: Sequence[str]) -> bool:
        """Have it run; whether it had to be started. Raises OSError."""
        if self._number and _alive(self._number):
            return False
        found = self._find(argv)
        process = None if found else self._start(argv)
        self._number = process.pid if process is not None else found
        arguments = (self._number, process)
        threading.Thread(target=self._watch, args=arguments, name=f"{self._name} {self._number}", daemon=True).start()
        return process is not None

    def close(self) -> None:
        """End it."""
        self._closed = True
        if self._number:
            with suppress(ProcessLookupError):
                os.kill(self._number, signal.SIGKILL)
            wait_end(self._number)

    def _find(self, argv: Sequence[str]) -> int:
        """The pid of one that another agent started, or 0. A pid alone may be another program's by now."""
        try:
            number = int(self._pid_file.read_text())
            running = Path(f"/proc/{number}/cmdline").read_bytes()
        except (OSError, ValueError):
            return 0
        return number if running == b"".join(f"{word}\0".encode() for word in argv) and _alive(number) else 0

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        command = ["mnexec", "-a", str(self._pid), "sh", "-c", _SCRIPT, str(self._pid_file), *argv]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def _watch(self, number: int, process: subprocess.Popen[bytes] | None) -> None:
        wait_end(number)
        if process is not None:
            process.wait()
        if not self._closed:
            LOG.warning("%s ended (see %s) and is started again", self._name, self._log)
            time.sleep(_PAUSE)
            self._ended()


def _alive(number: int) -> bool:
    """Whether it runs; one that ended and whose end nobody has asked for yet does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

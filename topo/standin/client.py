"""The lab's side of the stand-in server: starts the process and asks it to open and close pods."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

Server = subprocess.Popen[str]


class StandIn:
    """One server process, and another when it has ended; calls from several threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: list[Callable[[Server], None]] = []
        self.process = _start()

    def each(self, tell: Callable[[Server], None]) -> None:
        """Have the process told, and each that comes after it."""
        with self._lock:
            self._told.append(tell)
            tell(self.process)

    def open(self, key: str, pid: int, who: dict[str, Any], ports: Sequence[tuple[str, int]]) -> list[list[Any]]:
        """Serve these ports of a pod; returns [protocol, port, reason] of each that could not be opened."""
        answer = self._ask({"open": key, "pid": pid, "who": who, "ports": [list(p) for p in ports]})
        return list(answer["failed"])

    def restart(self, key: str, pid: int, who: dict[str, Any], ports: Sequence[tuple[str, int]]) -> list[list[Any]]:
        """Close these ports of a pod, with their connections, and open them again; as `open` otherwise."""
        answer = self._ask({"restart": key, "pid": pid, "who": who, "ports": [list(p) for p in ports]})
        return list(answer["failed"])

    def drain(self, keys: Sequence[str]) -> dict[str, int]:
        """Let these pods take no more connections; how many each still has, 0 for a pod that is not open."""
        return dict(self._ask({"drain": list(keys)})["drain"])

    def close(self, key: str) -> None:
        """Close a pod's ports and connections; a pod that is not open is no error."""
        self._ask({"close": key})

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Have a command answered. Raises RuntimeError if two servers end of it."""
        with self._lock:
            line = self._say(command)
            if not line:  # it had ended, or was killed just now
                self.process = _start()
                for tell in self._told:
                    tell(self.process)
                line = self._say(command)
        if not line:
            raise RuntimeError(f"the stand-in server ended with status {self.process.wait()}")
        return dict(json.loads(line))

    def _say(self, command: dict[str, Any]) -> str:
        """The answer, or "" if the server has ended."""
        server = self.process
        assert server.stdin is not None and server.stdout is not None
        if server.stdin.closed:  # it ended of the command before
            return ""
        line = ""
        with suppress(BrokenPipeError):
            server.stdin.write(json.dumps(command) + "\n")
            server.stdin.flush()
            line = server.stdout.readline()
        if not line:
            server.stdout.close()
            with suppress(BrokenPipeError):  # what it did not read is still to be written
                server.stdin.close()
        return line


def _start() -> Server:
    return subprocess.Popen(
        [sys.executable, "-m", "topo.standin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )

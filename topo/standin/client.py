"""The lab's side of the stand-in server: starts the process and asks it to open and close pods."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any


class StandIn:
    """One server process; calls from several threads take turns."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "topo.standin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        self._lock = threading.Lock()

    def open(self, key: str, pid: int, who: dict[str, Any], ports: Sequence[tuple[str, int]]) -> list[list[Any]]:
        """Serve these ports of a pod; returns [protocol, port, reason] of each that could not be opened."""
        answer = self._ask({"open": key, "pid": pid, "who": who, "ports": [list(p) for p in ports]})
        return list(answer["failed"])

    def restart(self, key: str, pid: int, ports: Sequence[tuple[str, int]]) -> list[list[Any]]:
        """Close these ports of a pod, with their connections, and open them again; as `open` otherwise."""
        answer = self._ask({"restart": key, "pid": pid, "ports": [list(p) for p in ports]})
        return list(answer["failed"])

    def drain(self, keys: Sequence[str]) -> dict[str, int]:
        """Let these pods take no more connections; how many each still has, 0 for a pod that is not open."""
        return dict(self._ask({"drain": list(keys)})["drain"])

    def close(self, key: str) -> None:
        """Close a pod's ports and connections; a pod that is not open is no error."""
        self._ask({"close": key})

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        with self._lock:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the stand-in server ended with status {self.process.wait()}")
        return dict(json.loads(line))

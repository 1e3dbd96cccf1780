"""The lab's side of the prober: starts the process and asks it to probe."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType

from scenarios.netpol.cases import Probe

# Seconds without any further answer after which what has not answered is taken for refused; and the longest wait.
QUIET, LIMIT = 0.15, 1.5


class Prober:
    """The process that sends the probes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scenarios.netpol.prober"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def probe(
        self,
        ends: Mapping[str, tuple[int, str]],
        probes: Mapping[Probe, bool],
        quiet: float = QUIET,
        limit: float = LIMIT,
    ) -> dict[Probe, bool]:
        """Which were reached. ends: a process in the namespace, and the address, of each end; probes: as expected."""
        assert self._process.stdin is not None and self._process.stdout is not None
        wanted = [[p.source, p.target, p.protocol, p.port, expected] for p, expected in probes.items()]
        request = {"ends": ends, "probes": wanted, "quiet": quiet, "limit": limit}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the prober ended with status {self._process.wait()}")
        return dict(zip(probes, json.loads(line)["reached"], strict=True))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

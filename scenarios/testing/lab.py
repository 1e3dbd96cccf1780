"""A lab of a test's own: started for it, asked as the command line asks, ended after it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from scenarios.lab.socket import LabError, ask
from scenarios.measure.regression import Beside
from topo import manifests
from topo.cluster.errors import UserError

_KINDS = {kind.lower(): kind for kind in manifests.KINDS}


class LabFailure(AssertionError):
    """What was asked of the lab did not succeed; the message has its output."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A running lab, by its name."""

    name: str

    def apply(self, manifest: str | Path, wait: float = 30) -> None:
        """Put manifests (YAML, or a path to some) into the lab and wait until all is ready."""
        text = manifest if isinstance(manifest, str) else manifest.read_text()
        objects = manifests.load_text(text, "manifest" if isinstance(manifest, str) else str(manifest)).objects
        self._ask({"verb": "apply", "objects": list(objects), "wait": wait})

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """Remove an object ("pod", "Service" ...), and wait until it is gone."""
        key = [_KINDS.get(kind.lower(), kind), namespace, name]
        self._ask({"verb": "delete", "keys": [key], "grace": None, "wait": True})

    def exec(self, target: str, *command: str, check: bool = True) -> str:
        """What a program of this machine prints in a pod (or its workload's first), on a node or on a switch."""
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as problems,
            Path("/dev/null").open("rb") as none,
        ):
            streams = (none.fileno(), out.fileno(), problems.fileno())
            status = self._ask({"verb": "exec", "target": target, "command": list(command)}, streams)["status"]
            if check and status:
                text = _text(out) + _text(problems)
                raise LabFailure(f"{' '.join(command)} in {target}: exit status {status}: {text.strip()[-400:]}")
            return _text(out)

    def wait(self, seconds: float = 30) -> None:
        """Until everything in the lab is ready."""
        self._ask({"verb": "wait", "timeout": seconds})

    def status(self) -> dict[str, Any]:
        """Nodes, pods, Services: what `mininetes status --json` shows."""
        found: dict[str, Any] = self._ask({"verb": "status"})
        return found

    def measure(
        self,
        kind: str,
        client: str,
        server: str,
        *,
        address: str = "",
        beside: tuple[str, str] | None = None,
        repeats: int = 9,
        seconds: float = 0.15,
    ) -> Beside:
        """tcp_rr, tcp_crr, udp_rr, icmp_rtt or tcp_throughput between two pods, in turn with another path.

        address: asked instead of the server's own, a Service's in front of it. beside: client and server of the other
        path; None for a plain veth pair outside the lab.
        """
        wanted = {"kind": kind, "path": [client, server, address], "beside": [*beside, ""] if beside else None}
        found = self._ask({"verb": "measure", **wanted, "repeats": repeats, "seconds": seconds})
        return Beside(kind, found["unit"], tuple(found["path"]), tuple(found["beside"]), found["datapath"])

    def _ask(self, request: dict[str, Any], fds: Sequence[int] = ()) -> Any:
        try:
            return ask(self.name, request, fds)
        except (LabError, UserError) as error:
            raise LabFailure(f"{request['verb']}: {error}") from error


@contextmanager
def started(*arguments: str) -> Iterator[Lab]:
    """A lab as `mininetes up ARGUMENTS` makes it; gone after the block."""
    lab = Lab(f"test-{uuid.uuid4().hex[:8]}")
    command = [sys.executable, "-m", "scenarios", "up", "--detach", "--lab", lab.name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise LabFailure(f"mininetes up {' '.join(arguments)}: {(done.stderr or done.stdout).strip()[-800:]}")
    try:
        yield lab
    finally:
        with suppress(LabFailure):  # it may have ended already
            lab._ask({"verb": "down"})


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")

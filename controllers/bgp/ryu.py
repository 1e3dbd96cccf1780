"""Runs Ryu's BGP speaker on a node, a process of its own, and feeds it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from controllers.bgp import bird
from controllers.bgp.options import of
from controllers.flow.fields import ip_text
from controllers.state import NodeView
from topo.cluster.patience import patience

LOG = logging.getLogger("mininetes")
# Seconds that a node waits for its first session with a node that is ready, and before a speaker is started again.
_FIRST_SESSION, _STEP, _PAUSE = patience(20.0), 0.05, 0.5


def wanted(view: NodeView) -> dict[str, Any]:
    """What the speaker is told: whom to speak to and what to announce; pure."""
    bgp = of(view.lab)
    chosen = bird.reflectors(view, bgp)
    neighbours = {
        ip_text(node.ip): {
            "asn": bgp.asn,
            "client": view.node.name in chosen and node.name not in chosen,
            "calls": view.node.ip < node.ip,
        }
        for node in bird.sessions(view)
    }
    neighbours |= {address: {"asn": asn, "client": False, "calls": True} for address, asn in bird.peers(view, bgp)}
    pods, services = bird.own_prefixes(view, bgp)
    return {
        "asn": bgp.asn,
        "address": ip_text(view.node.ip),
        "cluster": bird.CLUSTER_ID if chosen else ip_text(view.node.ip),
        "interface": "br-ex",
        "prefixes": [*pods, *services, *(one.prefix for one in bgp.own(view.node.name))],
        "hidden": [net for net in (view.lab.service_subnet, view.lab.load_balancer_pool) if net],
        "neighbours": neighbours,
    }


def state(folder: Path) -> dict[str, Any]:
    """What the speaker of that folder knows; nothing while it starts."""
    try:
        return dict(json.loads((folder / "state.json").read_text()))
    except FileNotFoundError:
        return {"sessions": {}, "routes": {}}


class RyuSpeaker:
    """The program of one node. It ends with the agent that started it; the routes in the kernel stand meanwhile."""

    def __init__(self, pid: int, run: Path) -> None:
        self._pid, self._run = pid, run
        self._process: subprocess.Popen[str] | None = None
        self._line = ""
        self._met: set[str] = set()
        self._closed = False
        self._lock = threading.Lock()

    def sync(self, view: NodeView) -> None:
        """Have it do what the view asks. Raises OSError or RuntimeError."""
        line = json.dumps(wanted(view)) + "\n"
        if line != self._line:
            with self._lock:
                self._line = line
                if self._process is None:
                    self._start()
                else:
                    self._tell()
        self._await(view)

    def close(self) -> None:
        """End it; the node may be gone already."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def _start(self) -> None:
        self._run.mkdir(parents=True, exist_ok=True)
        program = [sys.executable, "-m", "controllers.programs.ryu_speaker", str(self._run / "state.json")]
        with (self._run / "speaker.log").open("ab") as log:
            self._process = process = subprocess.Popen(
                ["mnexec", "-a", str(self._pid), *program],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._tell()
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def _tell(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(self._line)
        self._process.stdin.flush()

    def _watch(self, process: subprocess.Popen[str]) -> None:
        """Start it again when it ends."""
        process.wait()
        time.sleep(_PAUSE)
        with self._lock:
            if not self._closed:
                LOG.warning("Ryu's speaker ended (see %s) and is started again", self._run / "speaker.log")
                self._start()

    def _await(self, view: NodeView) -> None:
        """Until there was a session with every node that is ready.

        Raises RuntimeError that names those that are missing, and if the node is gone.
        """
        ready = {ip_text(node.ip): node.name for node in bird.sessions(view) if node.ready and view.node.ready}
        deadline = time.monotonic() + _FIRST_SESSION
        while missing := ready.keys() - self._met:
            if not Path(f"/proc/{self._pid}").exists():
                raise RuntimeError(f"{view.node.name} is gone")
            self._met |= state(self._run)["sessions"].keys()
            if missing - self._met and time.monotonic() > deadline:
                self._met |= missing
                raise RuntimeError(f"no BGP session of {view.node.name} with {', '.join(ready[m] for m in missing)}")
            time.sleep(_STEP if missing - self._met else 0)

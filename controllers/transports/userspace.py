"""A tunnel in userspace on a node: the program controllers/programs/tunnel.py behind a TUN device."""

from __future__ import annotations

import json
import logging
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

from controllers.agent.commands import run
from controllers.flow.fields import ip_text
from controllers.state import NodeView
from controllers.transports.routes import DeviceRoutes

LOG = logging.getLogger("mininetes")
_PROGRAM = Path(__file__).parents[1] / "programs" / "tunnel.py"
# Seconds that the program may take until its device is there, and the least between two starts.
_PATIENCE, _PAUSE = 10.0, 0.5


class UserspaceTunnel:
    """The program of one node, its device and the routes through it. framing: as the program's arguments have it.

    The program ends with the agent that started it, and its device with it; the next agent starts both again.
    """

    def __init__(self, pid: int, device: str, mtu: int, framing: tuple[str, ...]) -> None:
        self._pid, self._device, self._mtu, self._framing = pid, device, mtu, framing
        self._routes = DeviceRoutes(pid, device)
        self._process: subprocess.Popen[str] | None = None
        self._view: NodeView | None = None
        self._told = ""
        self._lock = threading.Lock()

    def sync(self, view: NodeView) -> None:
        """Tell the program where each peer's pods are. Raises OSError or RuntimeError."""
        with self._lock:
            self._view = view
            self._sync(view)

    def close(self) -> None:
        """End the program; its device goes with it."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _sync(self, view: NodeView) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            process, self._told = self._start(ip_text(view.node.ip)), ""
        line = json.dumps({"routes": {peer.pod_cidr: ip_text(peer.ip) for peer in view.peers}}) + "\n"
        if line != self._told:
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()
            self._told = line
        self._routes.sync(view)

    def _start(self, address: str) -> subprocess.Popen[str]:
        command = ["mnexec", "-a", str(self._pid), sys.executable, str(_PROGRAM), self._device, address, *self._framing]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._process = process
        assert process.stdout is not None
        is_there = select.select([process.stdout], [], [], _PATIENCE)[0] and process.stdout.readline() == "ready\n"
        if not is_there:
            process.kill()
            raise RuntimeError(f"the tunnel program of {self._device} does not start")
        run(self._pid, "ip", "link", "set", self._device, "mtu", str(self._mtu), "up")
        threading.Thread(target=self._watch, args=(process,), name=f"{self._device} {process.pid}", daemon=True).start()
        return process

    def _watch(self, process: subprocess.Popen[str]) -> None:
        """Start it again when it ends."""
        process.wait()
        time.sleep(_PAUSE)
        with self._lock:
            if self._process is process and self._view is not None:
                LOG.warning("the tunnel program of %s ended with status %d", self._device, process.returncode)
                try:
                    self._sync(self._view)
                except (OSError, RuntimeError) as error:
                    LOG.warning("%s", error)

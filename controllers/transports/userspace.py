"""A tunnel in userspace on a node: the program controllers/programs/tunnel.py behind a TUN device."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from controllers.flow.fields import ip_text
from controllers.state import NodeView
from controllers.transports.part import ProgramPart
from controllers.transports.routes import Behind, DeviceRoutes, everyone
from topo.cluster.patience import patience

_PROGRAM = Path(__file__).parents[1] / "programs" / "tunnel.py"
# Seconds that the program may take until its device is there, and between two looks at it.
_PATIENCE, _STEP = patience(10.0), 0.02


class UserspaceTunnel(ProgramPart):
    """The program of one node, its device and the routes through it. framing: as the program's arguments have it.

    run: the node's own folder. behind: the peers that it leads to.
    """

    def __init__(
        self, pid: int, run: Path, device: str, mtu: int, framing: tuple[str, ...], behind: Behind = everyone
    ) -> None:
        super().__init__(pid, run, device)
        self._device, self._framing, self._behind = device, framing, behind
        self._socket = run / f"{device}.sock"
        self._routes = DeviceRoutes(pid, device, mtu)
        self._told: Mapping[str, str] | None = None

    def _sync(self, view: NodeView) -> None:
        argv = [sys.executable, str(_PROGRAM), self._device, ip_text(view.node.ip), str(self._socket), *self._framing]
        if self._program.ensure(argv):
            self._told = None
        peers = self._behind(view)
        wanted = {peer.pod_cidr: ip_text(peer.ip) for peer in peers}
        if wanted != self._told:
            self._tell(wanted)
            self._told = wanted
        self._routes.sync(view.node, peers)

    def _tell(self, routes: Mapping[str, str]) -> None:
        """Also while it is just starting. Raises RuntimeError."""
        deadline = time.monotonic() + _PATIENCE
        while not tell(self._socket, routes):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"the tunnel program of {self._device} does not answer; see its log beside its socket"
                )
            time.sleep(_STEP)


def tell(path: Path, routes: Mapping[str, str]) -> bool:
    """Give a program its routes; whether it took them."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PATIENCE)
        try:
            sock.connect(str(path))
            sock.sendall(json.dumps(routes).encode())
            sock.shutdown(socket.SHUT_WR)
            return sock.recv(2) == b"ok"
        except OSError:
            return False

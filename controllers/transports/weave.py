"""A node's Weave Net peer: the program controllers/programs/weave.py, which is told of peers and tells of the mesh."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from controllers.flow.fields import ip_text
from controllers.state import NodeView
from controllers.transports.part import ProgramPart
from topo.cluster.patience import patience
from topo.cluster.wiring import RELAYS

_PROGRAM = Path(__file__).parents[1] / "programs" / "weave.py"
# Seconds that the program may take until it answers, and between two tries.
_PATIENCE, _STEP = patience(10.0), 0.02


class WeavePeer(ProgramPart):
    """The program of one node. run: the node's own folder. device: of the sleeve, "" if the switch carries the frames.

    annotate: set by the agent; notes on the node's object through which peers the program says others are reached.
    """

    def __init__(self, pid: int, run: Path, device: str, password: str) -> None:
        super().__init__(pid, run, "weave")
        self._device, self._socket = device, run / "weave.sock"
        self._key = sha256(password.encode()).hexdigest() if password else ""
        self.annotate: Callable[[str, str], None] = lambda key, value: None
        self._line: socket.socket | None = None
        self._told = ""

    def _sync(self, view: NodeView) -> None:
        own = [view.node.name, ip_text(view.node.ip), str(self._socket)]
        if self._program.ensure([sys.executable, str(_PROGRAM), *own, *([self._device] if self._device else [])]):
            self._line = None
        peers = {peer.name: ip_text(peer.ip) for peer in view.peers}
        line = json.dumps({"peers": peers, "key": self._key}) + "\n"
        if self._line is None or line != self._told:
            self._line = self._line or self._connected()
            self._line.sendall(line.encode())
            self._told = line

    def _connected(self) -> socket.socket:
        """The line to the program, which may just be starting. Raises RuntimeError."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            line = socket.socket(socket.AF_UNIX)
            try:
                line.connect(str(self._socket))
                break
            except OSError as error:
                line.close()
                if time.monotonic() > deadline:
                    raise RuntimeError("the Weave program does not answer; see its log beside its socket") from error
                time.sleep(_STEP)
        threading.Thread(target=self._listen, args=(line,), name="weave", daemon=True).start()
        return line

    def _listen(self, line: socket.socket) -> None:
        """Until the program ends, note what it says of the mesh."""
        try:
            with line.makefile("rb") as said:
                for text in said:
                    self.annotate(RELAYS, json.dumps(json.loads(text)["via"]))
        except OSError:
            pass  # it ended; the program's watcher starts another

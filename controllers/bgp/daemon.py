"""Runs BIRD on a node, as Calico's node container does: feeds it, and starts it again when it dies.

BIRD is no child that ends with this process: an agent that is started anew finds it at its control socket and goes on
(the routes in the kernel stand meanwhile).
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from controllers.bgp import bird, control
from controllers.state import NodeView
from topo.cluster.patience import patience
from topo.system import wait_end

LOG = logging.getLogger("mininetes")
# Seconds that a node waits for its first session with a node that is ready.
_FIRST_SESSION = patience(20.0)
_STEP = 0.05
# Seconds before a BIRD that died at once is started again.
_PAUSE = 0.5
# Seconds that it has for telling its neighbours that it ends.
_GOODBYE = 2.0


class Bird:
    """BIRD of one node. run: a folder of its own, for its configuration, control socket, pid and log."""

    def __init__(self, pid: int, run: Path) -> None:
        self._pid, self._run = pid, run
        self.control = run / "bird.ctl"
        self._config, self._pid_file = run / "bird.conf", run / "bird.pid"
        self._held = ""
        # Sessions that were up once, or waited for in vain.
        self._met: set[str] = set()
        self._closed = False
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def sync(self, view: NodeView) -> None:
        """Have BIRD do what the view asks. Raises OSError or RuntimeError."""
        text = bird.node_config(view)
        if text != self._held:
            with self._lock:
                self._feed(text, view.node.name)
        self._await(view)

    def close(self) -> None:
        """End it, and what it has in its folder; the node may be gone already.

        It removes its pid file and its control socket when it ends, and those may be another's by then.
        """
        with self._lock:
            self._closed = True
            number = self._number()
            if number is not None:
                for asked in (signal.SIGTERM, signal.SIGKILL):
                    with suppress(ProcessLookupError):
                        os.kill(number, asked)
                    if wait_end(number, _GOODBYE):
                        break
            for path in (self._pid_file, self.control):
                path.unlink(missing_ok=True)
            if self._process is not None:  # nobody may have waited for the one that was started last
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_GOODBYE)

    def _feed(self, text: str, name: str) -> None:
        self._run.mkdir(parents=True, exist_ok=True)
        self._config.write_text(text)
        is_first, runs = not self._held, self._number() is not None
        if is_first and not runs:
            self._start(again=False)
        else:
            self._ask("configure")
        if is_first:
            threading.Thread(target=self._keep, name=f"bird of {name}", daemon=True).start()
        self._held = text

    def _start(self, again: bool) -> None:
        """again: it ran before, so it may find its routes in the kernel and in its neighbours (RFC 4724)."""
        command = ["mnexec", "-a", str(self._pid), "bird", "-f", "-c", str(self._config)]
        command += ["-s", str(self.control), "-P", str(self._pid_file), *(["-R"] if again else [])]
        with (self._run / "bird.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _keep(self) -> None:
        """Start it again whenever it ends, until we close."""
        while not self._closed:
            number = self._process.pid if self._process is not None else self._number()
            if number is not None:
                wait_end(number)
            if self._process is not None:
                self._process.wait()
            with self._lock:
                if self._closed:
                    return
                LOG.warning("BIRD ended (see %s) and is started again", self._run / "bird.log")
                try:
                    self._start(again=True)
                except OSError:
                    LOG.exception("BIRD does not start")
            time.sleep(_PAUSE)

    def _number(self) -> int | None:
        """The pid of the BIRD that runs here, also if another agent started it."""
        try:
            number = int(self._pid_file.read_text())
            return number if Path(f"/proc/{number}/comm").read_text().strip() == "bird" else None
        except (OSError, ValueError):
            return None

    def _ask(self, command: str) -> list[str]:
        """Also while it is just starting. Raises OSError, Refused."""
        deadline = time.monotonic() + patience(5)
        while True:
            try:
                return control.ask(self.control, command)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_STEP)

    def _await(self, view: NodeView) -> None:
        """Until there was a session with every node that is ready: before, this node is not connected with it.

        Raises RuntimeError that names those that are missing, once, and if the node is gone.
        """
        ready = bird.expected(view)
        deadline = time.monotonic() + _FIRST_SESSION
        while missing := ready.keys() - self._met:
            if not Path(f"/proc/{self._pid}").exists():
                raise RuntimeError(f"{view.node.name} is gone")
            shown = control.sessions(self._ask("show protocols"))
            self._met |= {name for name, one in shown.items() if one.state == "Established"}
            if missing - self._met and time.monotonic() > deadline:
                self._met |= missing
                raise RuntimeError(f"no BGP session of {view.node.name} with {', '.join(ready[m] for m in missing)}")
            time.sleep(_STEP if missing - self._met else 0)

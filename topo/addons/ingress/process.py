"""nginx as a process of this one's own: started, given new files without losing a request, ended with it."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from topo.addons.ingress.nginx import HEALTH_PORT, Files
from topo.cluster.patience import patience

LOG = logging.getLogger("ingress")
_TIMEOUT = patience(10.0)  # seconds
# nginx lets its old workers take connections for so long after the new ones began (ngx_master_process_cycle), seconds.
_OVERLAP = 0.1


class NginxError(Exception):
    """nginx refused its configuration or did not start; the message has its own words."""


class Nginx:
    """One master and one worker. All that they write lies in `folder`, which must be theirs alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def is_running(self) -> bool:
        """Whether the master runs."""
        return self._process is not None and self._process.poll() is None

    def load(self, files: Files) -> None:
        """Serve these from now on; returns when only they are served. Raises NginxError, and then the old ones stay."""
        for name, text in files.certificates.items():
            _write(self.folder / name, text)
        new = self.folder / "new.conf"
        _write(new, files.configuration)
        self._check(new)
        new.replace(self.folder / "nginx.conf")
        if self._process is not None and self.is_running():
            self._process.send_signal(signal.SIGHUP)
        else:
            self._start()
        self._wait(files.generation)
        for old in set(self.folder.glob("certificate-*.pem")) - {self.folder / name for name in files.certificates}:
            old.unlink()

    def _command(self, configuration: str) -> list[str]:
        # Without -e it would open the distribution's log before it has read a line of ours.
        return ["nginx", "-e", "stderr", "-p", str(self.folder), "-c", str(self.folder / configuration)]

    def _check(self, configuration: Path) -> None:
        done = subprocess.run([*self._command(configuration.name), "-t", "-q"], capture_output=True, check=False)
        if done.returncode != 0:
            raise NginxError(done.stderr.decode(errors="replace").strip())

    def _start(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):  # a worker outlives a master that was killed, and holds its ports
                os.killpg(self._process.pid, signal.SIGKILL)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard >= 0 else 65536, hard))
        # A pod's program is ended by SIGKILL; its nginx must not hold the ports after that.
        command = ["setpriv", "--pdeathsig", "TERM", *self._command("nginx.conf")]
        with (self.folder / "stderr.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _wait(self, generation: str) -> None:
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            if _generation() == generation:
                time.sleep(_OVERLAP)
                return
            if not self.is_running():
                break
            time.sleep(0.01)
        state = "does not serve its new configuration" if self.is_running() else "ended"
        raise NginxError(f"nginx {state}; {self.folder}/error.log and stderr.log may say why")


def _generation() -> str:
    """Which configuration a worker serves, or nothing if none answers."""
    connection = HTTPConnection("127.0.0.1", HEALTH_PORT, timeout=1)
    try:
        with suppress(OSError, HTTPException):
            connection.request("GET", "/generation")
            return connection.getresponse().read().decode()
    finally:
        connection.close()
    return ""


def _write(path: Path, text: str) -> None:
    """A file that only its owner reads: it may hold a private key."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)

"""A program in a machine's namespaces, on the standard streams of who asked the lab for it."""

from __future__ import annotations

import select
import socket
import subprocess
from collections.abc import Sequence

from scenarios.lab.socket import LabError
from topo.system import here_or_root


def attached(fds: Sequence[int], caller: socket.socket, pid: int, command: Sequence[str]) -> dict[str, int]:
    """Run it until it ends, or until the caller goes away; its status as shells have it. Raises LabError.

    fds: standard input, output and error. pid: of a process of the machine.
    """
    stdin, stdout, stderr = fds
    try:
        process = subprocess.Popen(
            ["mnexec", "-a", str(pid), *command],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            cwd=here_or_root(pid),
        )
    except OSError as error:
        raise LabError(f"cannot run {command[0]}: {error.strerror}", 127) from error
    while process.poll() is None:
        if select.select([caller], [], [], 0.01)[0]:
            process.terminate()
            return {"status": process.wait()}
    return {"status": process.returncode if process.returncode >= 0 else 128 - process.returncode}

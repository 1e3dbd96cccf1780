"""Places inside a lab, and starting, awaiting and ending programs there, each by its own pid.

mnexec (Mininet's helper) enters the namespaces and then execs, so a program's pid is the pid that was started and
no process is left between. A program is ended by that pid only.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from topo.cluster.errors import PlatformError
from topo.cluster.patience import patience
from topo.system import here_or_root


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere to run a program.

    name: how to call it ("default/measure-a"). pid: a process whose network and mount namespaces to enter.
    address: its IPv4 address.
    """

    name: str
    pid: int
    address: str


class ProgramError(RuntimeError):
    """A program failed, did not end in time or did not get ready; the message has the end of its output."""


def script(name: str, *arguments: object) -> list[str]:
    """The command line of a script beside this file.

    -I -S: neither the environment, the current folder nor site-packages are looked at, which halves the start time.
    """
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name(name)), *map(str, arguments)]


def start(place: Place, argv: Sequence[str], *, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a program in a place; standard output and standard error come back as one pipe."""
    command = ["mnexec", "-a", str(place.pid), *argv]
    with _mnexec_needed():
        return subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=here_or_root(place.pid)
        )


def run(place: Place, argv: Sequence[str], timeout: float, *, check: bool = True) -> str:
    """Run a program in a place to its end and return its standard output.

    subprocess.run kills the program (by its pid) and waits for it on a time-out and on KeyboardInterrupt.
    check: a non-zero exit status is an error.
    """
    command = ["mnexec", "-a", str(place.pid), *argv]
    try:
        with _mnexec_needed():
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=patience(timeout),
                cwd=here_or_root(place.pid),
            )
    except subprocess.TimeoutExpired:
        raise ProgramError(f"{_title(argv)} in {place.name}: no end within {patience(timeout):g} s") from None
    if check and done.returncode:
        tail = (done.stderr or done.stdout).strip()[-400:]
        raise ProgramError(f"{_title(argv)} in {place.name}: exit status {done.returncode}: {tail}")
    return done.stdout


@contextlib.contextmanager
def serving(place: Place, argv: Sequence[str], ready: str, timeout: float = 5.0) -> Iterator[str]:
    """Run a server around the body: yields its first line that has `ready` in it, and ends it by its pid after.

    The server holds the read end of a pipe as its standard input, so one that looks at it (rr.py) ends even when
    this process is killed outright.
    """
    process = start(place, argv, stdin=subprocess.PIPE)
    try:
        yield _await_line(process, f"{_title(argv)} in {place.name}", ready, timeout)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program by its pid: its standard input is closed, then SIGTERM, and SIGKILL after two seconds."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.terminate()  # Popen sends nothing to a process it has already waited for.
    try:
        process.wait(2)
    except BaseException as problem:  # An impatient second Ctrl-C must not leave it running either.
        process.kill()
        process.wait()
        if not isinstance(problem, subprocess.TimeoutExpired):
            raise


def _await_line(process: subprocess.Popen[bytes], title: str, ready: str, timeout: float) -> str:
    assert process.stdout is not None
    descriptor, output, deadline = process.stdout.fileno(), "", time.monotonic() + patience(timeout)
    while True:
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise ProgramError(f"{title}: not ready within {patience(timeout):g} s: {output.strip()[-400:]}")
        chunk = os.read(descriptor, 4096)
        output += chunk.decode(errors="replace")
        whole_lines = output.splitlines() if not chunk else output.split("\n")[:-1]
        for line in whole_lines:
            if ready in line:
                return line
        if not chunk:
            raise ProgramError(f"{title}: ended before it was ready: {output.strip()[-400:]}")


@contextlib.contextmanager
def _mnexec_needed() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise PlatformError("mnexec is not installed", "apt-get install mininet") from None


def _title(argv: Sequence[str]) -> str:
    return " ".join(Path(word).name for word in argv)

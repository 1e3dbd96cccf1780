"""Whatever is killed, and whenever: nothing is left behind, and the next lab works. Ctrl-C ends any phase at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import MANIFESTS, ROOT

ROUNDS = 30
LAB = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}, {role: worker}]
mininetes: {fabric: {shape: star}}
"""


def marked(mark: str) -> list[int]:
    """Processes that were started with this mark in their environment, in whichever namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"MININETES_TEST={mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended meanwhile
    return found


def outside() -> tuple[str, ...]:
    """What a lab must leave as it was: interfaces, mounts, run files, sockets."""
    interfaces = sorted(p.name for p in Path("/sys/class/net").iterdir())
    mounts = sorted(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    files = sorted(str(p) for p in Path("/run").glob("mininetes*"))
    return (*interfaces, *mounts, *files)


def gone(mark: str, seconds: float = 2) -> bool:
    deadline = time.monotonic() + seconds
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not marked(mark)


@pytest.fixture
def mark() -> Iterator[str]:
    """A mark for a test's processes; whatever a failing test leaves is ended."""
    value = uuid.uuid4().hex
    yield value
    for pid in marked(value):
        os.kill(pid, signal.SIGKILL)


def start(mark: str, *arguments: str) -> subprocess.Popen[str]:
    """A lab in the foreground, in a process group of its own; it waits for commands on standard input."""
    return subprocess.Popen(
        [sys.executable, "-m", "scenarios", *arguments],
        cwd=ROOT,
        env={**os.environ, "MININETES_TEST": mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_thirty_random_kills_leave_nothing(mark: str, tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(LAB)
    rng, before = random.Random(7), outside()
    for number in range(ROUNDS):
        process = start(mark, "up", "--lab", f"kill-{os.getpid()}", str(file), str(MANIFESTS / "guestbook.yaml"))
        time.sleep(rng.uniform(0, 3))
        victims = marked(mark)
        victim = rng.choice(victims) if victims else process.pid
        name = Path(f"/proc/{victim}/cmdline").read_bytes().replace(b"\0", b" ")[:80] if victims else b"?"
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
        finally:
            if process.poll() is None:
                # A controller, switch or pod that dies does not end the lab; closing its input does.
                process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired as error:
                raise AssertionError((number, name, marked(mark))) from error
        assert gone(mark), (number, name, marked(mark))
        assert outside() == before, (number, name)
    assert "frontend" in run_to_end(mark, file)


def run_to_end(mark: str, file: Path) -> str:
    process = start(mark, "up", "--lab", f"kill-{os.getpid()}", str(file), str(MANIFESTS / "guestbook.yaml"))
    out = process.communicate("exit\n", timeout=60)[0]
    assert process.returncode == 0, out
    return out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.3, 0.9, 1.4, 1.9, 2.6, 6.0])
def test_ctrl_c_and_sigterm_end_a_run_within_two_seconds(
    mark: str, tmp_path: Path, number: signal.Signals, after: float
) -> None:
    process = start(mark, "run", "quickstart", "--lab", f"stop-{os.getpid()}", "--results", str(tmp_path / "results"))
    time.sleep(after)
    # A terminal sends Ctrl-C to the whole group; other signals come to one process.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    begun = time.monotonic()
    out = process.communicate(timeout=20)[0]
    assert time.monotonic() - begun < 2, out
    assert process.returncode != 0 or number == signal.SIGTERM
    assert "Traceback" not in out
    assert gone(mark)
    assert not list(tmp_path.glob("results/*-quickstart"))

"""Labs for tests: each is started and asked through the command line, as a user does."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo.cluster.patience import patience

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "scenarios" / "data" / "manifests"
COMMAND = (sys.executable, "-m", "scenarios")


def mininetes(*arguments: str, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command; its result with text output."""
    options = {"capture_output": True, "text": True, "cwd": ROOT} | options
    return subprocess.run([*COMMAND, *arguments], timeout=patience(timeout), check=False, **options)


def as_ordinary_user(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program so, whoever runs the tests; its result with text output."""
    become = [sys.executable, str(ROOT / "tests" / "ordinary_user.py")]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # the checkout may be another's
    options: dict[str, Any] = {"capture_output": True, "text": True, "cwd": ROOT, "env": environment}
    return subprocess.run([*become, *command], timeout=patience(90), check=False, **options)


def where_changed(change: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script as an ordinary user of a machine that was changed, as root of a user namespace may do."""
    then = f"exec unshare --user --map-user=1000 --map-group=1000 sh -ec {shlex.quote(script)}"
    return as_ordinary_user("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", f"{change}\n{then}")


def scenario(folder: Path, name: str, *options: str, words: Sequence[str] = ("--no-dns",)) -> Any:
    """What a scenario found, as data, with one repeat of each thing; it must be as expected."""
    chosen = [word for option in options for word in ("--option", option)]
    lab = f"test-{uuid.uuid4().hex[:8]}"  # others may run it beside
    command = ("run", name, *words, "--lab", lab, "--json", "--repeats", "1", "--results", str(folder), *chosen)
    done = mininetes(*command, timeout=180)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return json.loads(done.stdout)


@dataclass
class RunningLab:
    """A lab of a test's own, reached through its command line."""

    name: str

    def ask(self, verb: str, *arguments: str, timeout: float = 60, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """One verb; fails the test if it does not succeed, unless ok is false."""
        done = mininetes(verb, "--lab", self.name, *arguments, timeout=timeout)
        assert not ok or done.returncode == 0, f"{verb} {arguments}: {done.stderr}{done.stdout}"
        return done

    def json(self, verb: str, *arguments: str) -> Any:
        """One verb's data."""
        return json.loads(self.ask(verb, "--json", *arguments).stdout)

    def status(self) -> Any:
        """Nodes, pods, Services."""
        return self.json("status")

    def exec(self, pod: str, *command: str, ok: bool = True, timeout: float = 60) -> str:
        """A program's output in a pod."""
        return self.ask("exec", pod, "--", *command, ok=ok, timeout=timeout).stdout

    def apply(self, text: str, tmp_path: Path, wait: float = 30) -> None:
        """Put a manifest into the lab and wait until all of it is ready."""
        file = tmp_path / f"{uuid.uuid4().hex}.yaml"
        file.write_text(text)
        self.ask("apply", "-f", str(file), "--wait", str(patience(wait)), timeout=wait + 30)

    def service(self, name: str) -> str:
        """A Service's cluster IP."""
        return str(next(s["clusterIP"] for s in self.status()["services"] if s["name"] == name))

    def pod(self, prefix: str) -> dict[str, Any]:
        """The first pod whose name begins so."""
        return dict(next(p for p in self.status()["pods"] if p["name"].startswith(prefix)))

    def eventually(self, holds: Callable[[], bool], seconds: float = 10) -> None:
        """Wait until something holds; fails the test if it does not in time."""
        deadline = time.monotonic() + patience(seconds)
        while not holds():
            assert time.monotonic() < deadline, f"did not hold within {seconds} s"
            time.sleep(0.05)


StartLab = Callable[..., RunningLab]

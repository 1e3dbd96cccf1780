"""Running a node's own tools in its namespaces."""

from __future__ import annotations

import subprocess


def run(pid: int, *argv: str, text: str = "") -> str:
    """Run a program in the namespaces of process `pid`; its output. Raises RuntimeError with what it said."""
    command = ["mnexec", "-a", str(pid), *argv]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv[:3])}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout

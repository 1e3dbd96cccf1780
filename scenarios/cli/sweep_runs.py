"""Runs of a sweep as processes: one after the other, or some side by side."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Run:
    """One run. words: arguments of `mininetes run` but for --results; folder: where its results belong."""

    name: str
    words: tuple[str, ...]
    folder: Path


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended: its exit status, and its last words."""

    run: Run
    status: int
    said: str = ""


def command(words: Sequence[str], folder: Path) -> list[str]:
    """What one run is as a process."""
    return [sys.executable, "-m", "scenarios", "run", *words, "--results", str(folder)]


def here(runs: Sequence[Run], at_once: int, begins: Callable[[Run], None]) -> Generator[End, None, None]:
    """Each run's end, as they end; closing this early interrupts those that run, and each cleans up its lab."""
    running: set[subprocess.Popen[str]] = set()
    ending = threading.Event()

    def one(run: Run) -> End:
        if ending.is_set():
            return End(run, INTERRUPTED)
        begins(run)
        pipe = subprocess.PIPE
        process = subprocess.Popen(command(run.words, run.folder), stdout=pipe, stderr=pipe, text=True)
        running.add(process)
        if ending.is_set():
            process.send_signal(signal.SIGINT)
        out, problems = process.communicate()
        running.discard(process)
        return End(run, process.returncode, (problems or out).strip()[-400:])

    with ThreadPoolExecutor(at_once) as pool:
        try:
            for end in as_completed([pool.submit(one, run) for run in runs]):
                yield end.result()
        finally:
            ending.set()
            for process in tuple(running):
                process.send_signal(signal.SIGINT)

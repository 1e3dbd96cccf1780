"""Whether the CPU was the limit of a measurement: what the lab took of the machine, and its threads that never slept.

How long a thread waited for a CPU the kernel tells in schedstat (Linux, Documentation/scheduler/sched-stats.rst); where
it does not, only how long it ran counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from scenarios.measure.environment import cpu_times, shares
from scenarios.measure.usage import parse_stat

# Percent of a machine, or of a thread's time, from which nothing is left. Not 100: CPU time is counted in ticks.
SATURATED = 95.0
LIMITED, UNSURE, FREE = "yes", "unsure", "no"


@dataclass(slots=True)
class Load:
    """Percent, filled when the watch ends. machine: of all CPUs' time, with what the hypervisor gave away; own: the
    lab's part of it; thread: of the time, that the lab's busiest thread ran or waited for a CPU.
    """

    machine: float = 0.0
    own: float = 0.0
    thread: float = 0.0

    @property
    def details(self) -> dict[str, float]:
        """For a measurement's details."""
        return {"machine_percent": self.machine, "own_percent": self.own, "thread_percent": self.thread}


@dataclass(frozen=True, slots=True)
class Thread:
    """Seconds of CPU that it used, and that it ran or waited for a CPU."""

    used: float
    runnable: float


@dataclass(frozen=True, slots=True)
class Reading:
    """machine: its CPU times in ticks. threads: by number. children: CPU seconds of programs that ended before."""

    at: float
    machine: tuple[int, ...]
    threads: Mapping[int, Thread] = field(default_factory=dict)
    children: float = 0.0


def verdict(machine: float, own: float, thread: float) -> str:
    """LIMITED if a thread never slept, or the machine was full and the lab had most of it. UNSURE if others had most:
    then the lab may have lacked what they took.
    """
    if thread >= SATURATED or (machine >= SATURATED and 2 * own >= machine):
        return LIMITED
    return UNSURE if machine >= SATURATED else FREE


def load(before: Reading, after: Reading, cpus: int) -> Load:
    """What was in use between two readings, on so many CPUs."""
    busy, steal = shares(before.machine, after.machine)
    spent = after.at - before.at
    used, busiest = after.children - before.children, 0.0
    for number, thread in after.threads.items():
        earlier = before.threads.get(number)
        used += thread.used - (earlier.used if earlier else 0.0)
        if earlier:
            busiest = max(busiest, thread.runnable - earlier.runnable)
    percents = busy + steal, 100 * used / spent / cpus, 100 * busiest / spent
    return Load(*(round(min(100.0, percent), 1) for percent in percents))


def read(proc: Path = Path("/proc")) -> Reading:
    """All threads that can be seen: in a lab's capsule the lab's own."""
    threads: dict[int, Thread] = {}
    for folder in proc.glob("[0-9]*/task/[0-9]*"):
        with suppress(OSError, ValueError):  # it has just ended
            threads[int(folder.name)] = _thread(folder)
    own = proc / str(os.getpid()) / "stat"
    # What the threads of this process used is not its children's.
    with_children, alone = (parse_stat(own.read_text(), children=yes) for yes in (True, False))
    return Reading(time.monotonic(), cpu_times((proc / "stat").read_text()), threads, with_children - alone)


def _thread(folder: Path) -> Thread:
    used = runnable = parse_stat((folder / "stat").read_text(), children=False)
    with suppress(OSError):
        ran, waited = (folder / "schedstat").read_text().split()[:2]
        runnable = (int(ran) + int(waited)) / 1e9
    return Thread(used, runnable)


@contextmanager
def watched() -> Iterator[Load]:
    """Gives a Load that is filled when the block ends."""
    found, before = Load(), read()
    yield found
    after = load(before, read(), os.cpu_count() or 1)
    found.machine, found.own, found.thread = after.machine, after.own, after.thread

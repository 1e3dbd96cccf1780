"""Whether the CPU was the limit: by a thread that never slept, by a full machine, and by whom it is full."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from scenarios.measure import limits
from scenarios.measure.limits import FREE, LIMITED, UNSURE, Reading, Thread


@pytest.mark.parametrize(
    ("machine", "own", "thread", "said"),
    [
        (60, 60, 50, FREE),
        (60, 60, 96, LIMITED),  # the others of the machine's CPUs help it nothing
        (98, 70, 60, LIMITED),
        (98, 30, 60, UNSURE),
        (98, 30, 99, LIMITED),
    ],
)
def test_verdicts(machine: float, own: float, thread: float, said: str) -> None:
    assert limits.verdict(machine, own, thread) == said


def test_load_is_what_came_between_two_readings() -> None:
    # user, nice, system, idle, iowait, irq, softirq, steal
    before = Reading(10.0, (0, 0, 0, 0, 0, 0, 0, 0), {1: Thread(5.0, 6.0), 2: Thread(1.0, 1.0)}, children=1.0)
    after = Reading(12.0, (200, 0, 100, 80, 0, 0, 0, 20), {1: Thread(5.5, 7.5), 3: Thread(0.2, 0.4)}, children=1.3)
    found = limits.load(before, after, cpus=2)
    assert found.machine == pytest.approx(80)  # three quarters busy, and a twentieth stolen
    assert found.own == pytest.approx(100 * (0.5 + 0.2 + 0.3) / 2 / 2)
    assert found.thread == pytest.approx(75)  # it ran half a second and waited one; the new one was not there all along


def test_a_busy_thread_is_seen_and_a_sleeping_one_is_not() -> None:
    with limits.watched() as busy:
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            pass
    assert busy.thread > 80 or not Path("/proc/self/schedstat").exists()
    assert busy.own > 0
    began, before = time.monotonic(), limits.read().threads[os.getpid()]
    time.sleep(0.2)
    after = limits.read().threads[os.getpid()]
    # What it did not sleep it may have waited.
    assert after.runnable - before.runnable < time.monotonic() - began - 0.15

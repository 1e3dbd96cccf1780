"""Whether the machine can be trusted with a measurement: its timer, what others take of its CPUs, and two paths whose
cost is known (loopback, a plain veth pair), before the run and after it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from scenarios.measure import suite
from scenarios.measure.environment import cpu_times
from scenarios.measure.place import Place, ProgramError
from scenarios.measure.stats import median, percentile
from topo.cluster.errors import PlatformError

# What is too much. In a lab every hop is a process that must get a CPU, so others' work shows at once.
OTHERS_PERCENT, STEAL_PERCENT = 10.0, 2.0
TIMER_NS, OVERSHOOT_US = 1000, 1000.0
# Greatest to least of the calibration's runs, and medians after to before (or the other way round).
SPREAD, DRIFT = 1.5, 1.4
RUNS, SECONDS, SLEEPS = 3, 0.03, 30


@dataclass(frozen=True, slots=True)
class Calibration:
    """timer: ns between two readings that differ; overshoot: p90, in us, of how late a sleep of 1 ms ends.

    loopback, veth: the median TCP request and response of each run, in us. problem: why these are missing.
    """

    timer: int
    overshoot: float
    loopback: tuple[float, ...] = ()
    veth: tuple[float, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Ticks:
    """CPU time so far in clock ticks. busy: spent by all processes; own: by those of this PID namespace."""

    total: int
    busy: int
    steal: int
    own: int


@dataclass(slots=True)
class Watch:
    """Filled when the watched block ends."""

    environment: dict[str, object] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@contextmanager
def watched(*, tx_off: bool) -> Iterator[Watch]:
    """Look before and after the block, which measures. Inside a capsule; tx_off: as suite.baseline_places."""
    found = Watch()
    before, start = calibrate(tx_off=tx_off), read_ticks()
    yield found
    end, after = read_ticks(), calibrate(tx_off=tx_off)
    others, steal = shares(start, end)
    found.environment |= described(before, after, others, steal)
    found.warnings += judge(before, after, others, steal)


def calibrate(*, tx_off: bool) -> Calibration:
    """Takes about half a second."""
    timer, overshoot = timer_resolution(), percentile(_oversleeps(), 90)
    loopback: list[float] = []
    veth: list[float] = []
    try:
        with suite.baseline_places(tx_off=tx_off) as (client, server):
            alone = Place(client.name, client.pid, "127.0.0.1")
            for _ in range(RUNS):
                for to, taken in ((alone, loopback), (server, veth)):
                    run = suite.request_response(client, to, "tcp", seconds=SECONDS)
                    taken.append(median(run.values))
    except (ProgramError, PlatformError, ValueError) as problem:
        return Calibration(timer, overshoot, problem=str(problem))
    return Calibration(timer, overshoot, tuple(loopback), tuple(veth))


def timer_resolution() -> int:
    """The least step that is seen of the clock that measures, in ns."""
    readings = [time.perf_counter_ns() for _ in range(2000)]
    return min(b - a for a, b in pairwise(readings) if b > a)


def _oversleeps() -> Iterator[float]:
    for _ in range(SLEEPS):
        began = time.perf_counter_ns()
        time.sleep(1e-3)
        yield (time.perf_counter_ns() - began) / 1e3 - 1e3


def read_ticks(proc: Path = Path("/proc")) -> Ticks:
    """Now. A process's ended children count with it, so that no time of ours is lost when a program ends."""
    times = cpu_times((proc / "stat").read_text())
    return Ticks(sum(times), sum(times[:3]), times[7], sum(_own(proc)))


def _own(proc: Path) -> Iterator[int]:
    for folder in proc.iterdir():
        if folder.name.isdecimal():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue  # it has just ended; whoever waits for it has its time
            # utime, stime, cutime, cstime; the name before them may contain anything (proc_pid_stat(5))
            yield sum(map(int, stat.rpartition(")")[2].split()[11:15]))


def shares(start: Ticks, end: Ticks) -> tuple[float, float]:
    """Percent of the CPUs' time that processes outside this namespace took, and the hypervisor's other guests."""
    total = end.total - start.total or 1
    others = (end.busy - start.busy) - (end.own - start.own)
    return round(max(0.0, 100 * others / total), 1), round(100 * (end.steal - start.steal) / total, 1)


def described(before: Calibration, after: Calibration, others: float, steal: float) -> dict[str, object]:
    """For a result's environment."""
    return {
        "timer_resolution_ns": before.timer,
        "sleep_overshoot_us": [round(one.overshoot, 1) for one in (before, after)],
        "loopback_rr_us": [round(median(one.loopback), 2) for one in (before, after) if one.loopback],
        "veth_rr_us": [round(median(one.veth), 2) for one in (before, after) if one.veth],
        "others_cpu_percent": others,
        "steal_percent": steal,
    }


def judge(before: Calibration, after: Calibration, others: float, steal: float) -> list[str]:
    """What speaks against the figures, as sentences; none on a quiet machine."""
    found = [f"The machine could not be calibrated: {one.problem}." for one in (before, after) if one.problem]
    if others > OTHERS_PERCENT:
        found.append(f"Other programs took {others:g} % of the CPUs meanwhile (more than {OTHERS_PERCENT:g} %).")
    if steal > STEAL_PERCENT:
        found.append(
            f"The hypervisor gave {steal:g} % of the CPUs to others meanwhile (more than {STEAL_PERCENT:g} %)."
        )
    if before.timer > TIMER_NS:
        found.append(f"The clock moves in steps of {before.timer} ns; more than {TIMER_NS} is too coarse.")
    late = max(before.overshoot, after.overshoot)
    if late > OVERSHOOT_US:
        found.append(f"A sleep of 1 ms ended {late:.0f} us late: processes wait for a CPU.")
    for name, runs in (("loopback", (before.loopback, after.loopback)), ("veth pair", (before.veth, after.veth))):
        found += _unsteady(name, [one for one in runs if one])
    return found


def _unsteady(name: str, runs: Sequence[Sequence[float]]) -> Iterable[str]:
    apart = max((max(one) / min(one) for one in runs), default=1.0)
    middles = [median(one) for one in runs]
    moved = max(middles) / min(middles) if middles else 1.0
    if apart > SPREAD:
        yield f"The same request over a {name} took {apart:.2f} times as long at one moment as at another just after."
    if moved > DRIFT:
        yield f"A request over a {name} took {middles[0]:.1f} us before the run and {middles[-1]:.1f} us after it."

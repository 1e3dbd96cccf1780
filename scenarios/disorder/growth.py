"""Whether a lab becomes more the longer it is broken: what it had at each rest, and how that goes on; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt

# What there may be more of at the last rest than at the second, when everything had happened once: a share of what
# there was, and so much beside. It finds what grows fast, in a run that is too short to tell growth from noise.
_SHARE = 0.25
# How many standard deviations a slope must be from the limit (95 %, on one side).
_SURE = 1.645
# The share of the rests, and the steps, in which the lab warms up: allocators find their size, there are as many
# events as are kept.
_WARM, _WARM_STEPS = 0.25, 100
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is counted at rest. spare: see _SHARE; a_step: what a process may grow by in a step, or None."""

    unit: str
    spare: float
    a_step: float | None


# A step makes some five pods and some hundreds of connections. Who keeps one object of each pod keeps some 500 blocks
# of memory, who keeps a thing of each kind of failure has one more in 14 steps, who keeps one connection in a hundred
# has 5 more. Memory tells less than blocks do: Python's allocator gives back only what is empty as a whole, a MiB at
# a time (pymalloc's arenas), and so a lab that kept 25 blocks a step was seen to grow by 11 KiB a step for 400 steps.
# A lab's folder is in memory, too; its logs grow to their greatest length (topo/logs.py), which looks as a leak does.
MEASURES: Mapping[str, Measure] = {
    "blocks": Measure("", 50_000.0, 150.0),
    "memory": Measure("MiB", 16.0, 0.02),
    "open files": Measure("", 16.0, 0.05),
    "processes": Measure("", 0.0, None),
    "flows": Measure("", 100.0, 0.05),
    "connections": Measure("", 5000.0, 5.0),
    "folder": Measure("MiB", 16.0, None),
}


@dataclass(frozen=True, slots=True)
class Rest:
    """What there was after a step, with the manifests of the beginning. had: measure -> whose -> how much."""

    step: int
    had: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Slope:
    """How much it grows a step, and how much at least and at most with 90 % confidence."""

    least: float
    middle: float
    most: float


def slope(points: Points) -> Slope | None:
    """The median of the slopes between any two, which a few wild ones do not move; None of too few points to tell.

    Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau", 1968; its confidence interval is that of the
    ranks by Kendall's variance. Five points are the fewest.
    """
    slopes = sorted((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2))
    count = len(points)
    margin = _SURE * sqrt(count * (count - 1) * (2 * count + 5) / 18)
    first = int((len(slopes) - margin) / 2) - 1
    if first < 0:
        return None
    half = len(slopes) // 2
    middle = slopes[half] if len(slopes) % 2 else (slopes[half - 1] + slopes[half]) / 2
    return Slope(slopes[first], middle, slopes[-1 - first])


def series(rests: Sequence[Rest], measure: str) -> dict[str, Points]:
    """Whose -> (step, how much) at every rest; what was not there counts as nothing."""
    names = sorted({name for rest in rests for name in rest.had[measure]})
    return {name: [(rest.step, rest.had[measure].get(name, 0.0)) for rest in rests] for name in names}


def warm(points: Points) -> Points:
    """Without those of the time in which the lab warms up."""
    return [point for point in points[max(1, int(len(points) * _WARM)) :] if point[0] >= _WARM_STEPS]


def leaks(rests: Sequence[Rest]) -> Iterator[str]:
    """What has grown and should not have, a sentence each."""
    if len(rests) < 3:
        return
    for measure, allowed in MEASURES.items():
        for name, points in series(rests, measure).items():
            yield from _grown(f"{measure} of {name}", points, allowed, rests[-1].had["processes"].get(name, 1.0))


def _grown(what: str, points: Points, allowed: Measure, count: float) -> Iterator[str]:
    """count: of the processes."""
    unit = f" {allowed.unit}" if allowed.unit else ""
    (begin, before), (end, after) = points[1], points[-1]
    share = _SHARE if allowed.spare else 0.0
    if after > before * (1 + share) + allowed.spare:
        yield f"{what} grew from step {begin} to {end}: {before:.0f} to {after:.0f}{unit}"
        return
    found = slope(warm(points))
    limit = None if allowed.a_step is None else allowed.a_step * count
    if found and limit is not None and found.least > limit:
        yield (
            f"{what} grows by {found.middle:.3f}{unit} a step ({found.least:.3f} at least), from step "
            f"{warm(points)[0][0]:.0f} to {end}; {limit:g} may be noise"
        )

"""Summaries of samples and of repeated runs, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """How far values lie apart: the least, the greatest, and the interquartile range (p75 - p25)."""

    low: float
    high: float
    iqr: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One run's samples."""

    count: int
    p50: float
    p90: float
    p99: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RepeatSummary:
    """Several runs of the same measurement.

    p50, p90, p99: the median over the runs of each run's percentile, so one disturbed run does not move them.
    spread: of the runs' medians. That is what tells whether two results differ, not the spread of single samples.
    """

    count: int
    p50: float
    p90: float
    p99: float
    spread: Spread


def percentile(values: Iterable[float], percent: float) -> float:
    """The percentile with linear interpolation between closest ranks, as numpy.percentile's method "linear".

    That is definition 7 of Hyndman and Fan, Sample Quantiles in Statistical Packages (1996).
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    if not 0 <= percent <= 100:
        raise ValueError(f"percent {percent}: expected 0 to 100")
    rank = (len(ordered) - 1) * percent / 100
    below, above = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    # Not below * (1 - f) + above * f, which can be off by a rounding from two equal neighbours.
    return below + (above - below) * (rank - math.floor(rank))


def median(values: Iterable[float]) -> float:
    return percentile(values, 50)


def spread(values: Sequence[float]) -> Spread:
    return Spread(min(values), max(values), percentile(values, 75) - percentile(values, 25))


def summary(values: Sequence[float]) -> Summary:
    """Summarise one run; ValueError without values."""
    ordered = sorted(values)
    p50, p90, p99 = (percentile(ordered, percent) for percent in (50, 90, 99))
    mean = math.fsum(ordered) / len(ordered)
    return Summary(len(ordered), p50, p90, p99, mean, ordered[0], ordered[-1])


def repeat_summary(runs: Sequence[Summary]) -> RepeatSummary:
    """Summarise several runs; ValueError without runs."""
    return RepeatSummary(
        count=len(runs),
        p50=median(run.p50 for run in runs),
        p90=median(run.p90 for run in runs),
        p99=median(run.p99 for run in runs),
        spread=spread([run.p50 for run in runs]),
    )


def chi_square(counts: Sequence[int]) -> float:
    """Probability that equally likely choices would be spread at least as unevenly (Pearson's test, n-1 degrees).

    The upper incomplete gamma function by its continued fraction or, near the origin, by its series
    (Abramowitz and Stegun, 6.5.29 and 6.5.31).
    """
    expected = sum(counts) / len(counts)
    a, x = (len(counts) - 1) / 2, sum((n - expected) ** 2 for n in counts) / expected / 2
    if x == 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for n in range(1, 500):
            term *= x / (a + n)
            total += term
        return max(0.0, 1 - scale * total)
    fraction = x + 1 - a + 2 * 500
    for n in range(500, 0, -1):
        fraction = x + 2 * n - 1 - a - n * (n - a) / fraction
    return scale / fraction

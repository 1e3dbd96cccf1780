"""What can be said of two sets of repeats: intervals, Welch's test, Holm's adjustment, ranks; pure functions.

Times and rates are compared as ratios, so all is done on logarithms: a mean is a geometric one, and the interval of a
ratio is the interval of a difference of logarithms. The unit is a repeat, never a single sample: samples of one repeat
depend on one another, and thousands of them would make any difference significant.

Why Welch's t and not Mann-Whitney's U: with three repeats against three, U's least two-sided probability is 0.1, so it
could never tell any two apart; t assumes that logarithms of repeats' medians are about normal, which medians are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A geometric mean, or a ratio of two, with its confidence interval; low and high are None with one repeat."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """ratio: of the second to the first. p: of a ratio as far from 1 by chance; None where there is one repeat."""

    ratio: Estimate
    p: float | None = None


def mean(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Geometric mean with Student's interval. ValueError unless all are above zero."""
    logs = _logs(values)
    middle = math.fsum(logs) / len(logs)
    if len(logs) < 2:
        return Estimate(math.exp(middle))
    reach = t_quantile((1 + confidence) / 2, len(logs) - 1) * math.sqrt(_variance(logs) / len(logs))
    return Estimate(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach))


def difference(first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE) -> Difference:
    """Welch (1947): unequal variances, Satterthwaite's degrees of freedom. ValueError unless all are above zero."""
    one, two = _logs(first), _logs(second)
    apart = math.fsum(two) / len(two) - math.fsum(one) / len(one)
    if min(len(one), len(two)) < 2:
        return Difference(Estimate(math.exp(apart)))
    of_one, of_two = _variance(one) / len(one), _variance(two) / len(two)
    error = math.sqrt(of_one + of_two)
    if error == 0:  # figures that are counted, not timed
        return Difference(Estimate(*[math.exp(apart)] * 3), 1.0 if apart == 0 else 0.0)
    freedom = (of_one + of_two) ** 2 / (of_one**2 / (len(one) - 1) + of_two**2 / (len(two) - 1))
    reach = t_quantile((1 + confidence) / 2, freedom) * error
    ratio = Estimate(math.exp(apart), math.exp(apart - reach), math.exp(apart + reach))
    return Difference(ratio, 2 * t_tail(abs(apart) / error, freedom))


def holm(probabilities: Sequence[float]) -> tuple[float, ...]:
    """Adjusted so that all of them together err as seldom as one alone (Holm, 1979)."""
    order = sorted(range(len(probabilities)), key=lambda n: probabilities[n])
    adjusted, least = [0.0] * len(probabilities), 0.0
    for place, number in enumerate(order):
        least = max(least, min(1.0, (len(order) - place) * probabilities[number]))
        adjusted[number] = least
    return tuple(adjusted)


def t_tail(t: float, freedom: float) -> float:
    """Probability that Student's t is greater than t, which is 0 or more (DLMF 8.17)."""
    return beta_share(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2


def t_quantile(probability: float, freedom: float) -> float:
    """The t that is not exceeded with this probability, which is above one half; by bisection."""
    if not 0.5 < probability < 1:
        raise ValueError(f"probability {probability}: expected between 0.5 and 1")
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > 1 - probability:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > 1 - probability else (low, middle)
    return (low + high) / 2


def beta_share(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function, by its continued fraction (DLMF 8.17.22), from the last term on."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # there the fraction of the other side converges fast
        return 1 - beta_share(b, a, 1 - x)
    value = 0.0
    for m in range(150, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        value = even / (1 + odd / (1 + value))
    value = -(a + b) * x / (a + 1) / (1 + value)
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logs) / a / (1 + value)


def ranks(values: Sequence[float]) -> tuple[float, ...]:
    """Ranks from 1; equal values share the mean of theirs."""
    return tuple(
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    )


def spearman(one: Sequence[float], two: Sequence[float]) -> float | None:
    """Rank correlation; None where one side has no order at all. ValueError for fewer than two pairs."""
    if len(one) != len(two) or len(one) < 2:
        raise ValueError("expected two or more pairs")
    x, y = ranks(one), ranks(two)
    middle = (len(x) + 1) / 2
    across = math.fsum((a - middle) * (b - middle) for a, b in zip(x, y, strict=True))
    spread = math.sqrt(math.fsum((a - middle) ** 2 for a in x) * math.fsum((b - middle) ** 2 for b in y))
    return across / spread if spread else None


def relative_error(expected: Sequence[float], found: Sequence[float]) -> float:
    """Mean of |found - expected| / |expected|."""
    return math.fsum(abs(f - e) / abs(e) for e, f in zip(expected, found, strict=True)) / len(expected)


def _logs(values: Sequence[float]) -> list[float]:
    if not values or min(values) <= 0:
        raise ValueError("expected values above zero")
    return [math.log(value) for value in values]


def _variance(values: Sequence[float]) -> float:
    middle = math.fsum(values) / len(values)
    return math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1)

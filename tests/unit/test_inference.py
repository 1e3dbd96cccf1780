"""Intervals, tests and ranks, against scipy, worked values and what must hold of any."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from scenarios.measure import inference
from scenarios.measure.inference import Difference, Estimate, beta_share, difference, holm, mean, spearman, t_quantile

REPEATS = st.lists(st.floats(min_value=1e-3, max_value=1e9), min_size=2, max_size=12)


@settings(deadline=None)
@given(st.floats(0.2, 300), st.floats(0.2, 300), st.floats(0, 1))
def test_the_beta_function_is_scipys(a: float, b: float, x: float) -> None:
    assert beta_share(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("freedom", [1, 1.3, 2, 4, 9.7, 30, 400])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.999])
def test_students_quantiles_are_scipys(freedom: float, probability: float) -> None:
    found = t_quantile(probability, freedom)
    assert found == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-8)
    assert inference.t_tail(found, freedom) == pytest.approx(1 - probability, rel=1e-6)


def test_a_quantile_below_one_half_is_refused() -> None:
    with pytest.raises(ValueError, match="expected between"):
        t_quantile(0.4, 3)


@settings(deadline=None)
@given(REPEATS, REPEATS)
def test_welchs_test_is_scipys(first: list[float], second: list[float]) -> None:
    one, two = [math.log(v) for v in first], [math.log(v) for v in second]
    if min(max(one) - min(one), max(two) - min(two)) < 1e-6:
        return  # scipy warns of what it cannot do there; the next test has it
    found, expected = difference(first, second), stats.ttest_ind(two, one, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-5, abs=1e-12)
    interval = expected.confidence_interval(0.95)
    assert (found.ratio.low, found.ratio.high) == pytest.approx((math.exp(interval.low), math.exp(interval.high)), 1e-5)


def test_what_is_counted_needs_no_interval() -> None:
    assert difference([7, 7], [7, 7]) == Difference(Estimate(1, 1, 1), 1.0)
    found = difference([7, 7], [14, 14])
    assert found.p == 0 and found.ratio.low == found.ratio.high == pytest.approx(2)


def test_one_repeat_says_nothing_about_chance() -> None:
    assert mean([5.0]).value == pytest.approx(5) and mean([5.0]).low is None
    found = difference([5.0], [10.0, 11.0, 12.0])
    assert found.p is None and found.ratio.low is None and found.ratio.value > 2


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [1.0, -1.0]])
def test_what_has_no_logarithm_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        mean(values)


def test_a_mean_by_hand() -> None:
    # Logarithms 0, 1, 2: mean 1, deviation 1, error 1/sqrt(3); t of 2 degrees at 0.975 is 4.302653.
    found = mean([1, math.e, math.e**2])
    assert math.log(found.value) == pytest.approx(1)
    assert math.log(found.high or 0) == pytest.approx(1 + 4.302653 / math.sqrt(3), rel=1e-6)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    chance, held, rounds = random.Random(1), 0, 400
    for _ in range(rounds):
        first = [math.exp(chance.gauss(0, 0.1)) for _ in range(4)]
        second = [math.exp(chance.gauss(math.log(1.3), 0.3)) for _ in range(6)]
        ratio = difference(first, second).ratio
        held += (ratio.low or 9) <= 1.3 <= (ratio.high or 0)
    assert held / rounds == pytest.approx(0.95, abs=0.03)


def test_holm_by_hand() -> None:
    # 3 * 0.01, then 2 * 0.03, then 1 * 0.04, which may not be less than the one before.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx((0.06, 0.03, 0.06))
    assert holm([0.5, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12))
def test_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    one, two = [a for a, _ in pairs], [b for _, b in pairs]
    found = spearman(one, two)
    if found is None:
        assert len(set(one)) == 1 or len(set(two)) == 1
    else:
        assert found == pytest.approx(stats.spearmanr(one, two).statistic, abs=1e-9)


def test_ranks_of_equal_values_are_shared() -> None:
    assert inference.ranks([10, 30, 10, 20]) == (1.5, 4, 1.5, 3)
    with pytest.raises(ValueError, match="two or more pairs"):
        spearman([1], [1])


def test_relative_error_by_hand() -> None:
    assert inference.relative_error([2, 4], [3, 4]) == pytest.approx(0.25)

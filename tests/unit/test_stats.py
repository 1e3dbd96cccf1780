"""The statistics, against values worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.measure.stats import Spread, Summary, chi_square, median, percentile, repeat_summary, spread, summary

FINITE = st.floats(min_value=-1e12, max_value=1e12)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([15, 20, 35, 40, 50], 40, 29),  # rank 4 * 0.4 = 1.6: 20 + 0.6 * 15
        ([15, 20, 35, 40, 50], 50, 35),
        ([50, 15, 40, 35, 20], 0, 15),  # unsorted
        ([15, 20, 35, 40, 50], 100, 50),
        ([1, 2, 3, 4], 50, 2.5),  # rank 1.5: 2 + 0.5 * 1
        ([1, 2, 3, 4], 25, 1.75),  # rank 0.75: 1 + 0.75 * 1
        ([1, 2, 3, 4], 90, 3.7),  # rank 2.7: 3 + 0.7 * 1
        ([0, 100], 99, 99),
        ([7], 99, 7),
    ],
)
def test_percentile(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], -1), ([1.0], 101)])
def test_percentile_refuses(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError):
        percentile(values, percent)


@given(st.lists(FINITE, min_size=1), st.floats(0, 100), st.floats(0, 100))
def test_percentiles_lie_within_the_values_and_in_order(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    # The interpolation may be off by a rounding.
    slack = 1e-9 * max(1.0, max(map(abs, values)))
    assert min(values) - slack <= percentile(values, low) <= percentile(values, high) + slack <= max(values) + 2 * slack


def test_median_of_even_and_odd_counts() -> None:
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 3, 2]) == 2.5


def test_spread() -> None:
    # p25 = 2 (rank 1), p75 = 4 (rank 3)
    assert spread([1, 2, 3, 4, 5]) == Spread(low=1, high=5, iqr=2)
    assert spread([7.0]) == Spread(low=7, high=7, iqr=0)


def test_summary() -> None:
    # 0..100: rank and value are the same number.
    assert summary(range(101)) == Summary(count=101, p50=50, p90=90, p99=99, mean=50, low=0, high=100)
    with pytest.raises(ValueError):
        summary([])


def test_repeat_summary_takes_medians_so_one_disturbed_run_does_not_count() -> None:
    runs = [summary([10.0] * 5), summary([12.0] * 5), summary([500.0] * 5)]
    found = repeat_summary(runs)
    assert (found.count, found.p50, found.p90, found.p99) == (3, 12, 12, 12)
    # p25 of 10, 12, 500 is 11 (rank 0.5), p75 is 256 (rank 1.5)
    assert found.spread == Spread(low=10, high=500, iqr=245)


@pytest.mark.parametrize(
    ("counts", "probability"),
    # By the distribution's closed forms: exp(-x/2) for two degrees, erfc(sqrt(x/2)) for one.
    [((100, 100, 100), 1.0), ((128, 102, 70), 2.1605e-4), ((210, 190), 0.31731), ((110, 90, 100), 0.36788)],
)
def test_chi_square_is_the_probability_of_a_spread_as_uneven(counts: tuple[int, ...], probability: float) -> None:
    assert chi_square(counts) == pytest.approx(probability, rel=1e-4)

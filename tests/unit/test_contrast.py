"""Ratios to a first figure say whether chance may have made them."""

from __future__ import annotations

from scenarios.report.contrast import to_first


def test_what_is_within_the_noise_is_in_brackets() -> None:
    found = to_first({"plain": (10.0, 10.2, 9.9), "same": (10.1, 9.8, 10.3), "slow": (20.0, 20.4, 19.9)})
    assert found["same"].startswith("[1.00 (") and found["slow"].startswith("2.00 (1.9")
    assert "plain" not in found


def test_one_repeat_gives_no_interval_and_a_figure_that_is_missing_gives_nothing() -> None:
    assert to_first({"one": (10.0,), "two": (20.0,), "none": ()}) == {"two": "2.00"}
    assert to_first({"none": (), "two": (20.0,)}) == to_first({}) == {}


def test_many_comparisons_are_held_to_more_than_one_is() -> None:
    values = {"first": (10.0, 10.5, 9.6), "second": (11.1, 11.9, 11.3)}
    assert not to_first(values)["second"].startswith("[")
    others = {f"same {n}": (10.0, 10.4, 9.7) for n in range(6)}
    assert to_first(values | others)["second"].startswith("[")

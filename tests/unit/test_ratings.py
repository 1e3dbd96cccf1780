"""Ratings against a baseline: classes, what noise withholds, and places."""

from __future__ import annotations

import pytest

from scenarios.report.ratings import CLASSES, NOISE, ONCE, class_of, ranks, rate, scores


@pytest.mark.parametrize(
    ("score", "word"),
    [
        (1.2, "very good"),
        (0.975, "very good"),
        (0.974, "good"),
        (0.9, "good"),
        (0.7, "fair"),
        (0.69, "poor"),
        (0, "poor"),
    ],
)
def test_thresholds(score: float, word: str) -> None:
    assert class_of(score) == word


def test_no_published_overhead_of_a_shaped_wire_falls_on_a_threshold() -> None:
    """What TCP with timestamps has of packets of 1500 bytes, to what it has of them without a CNI."""
    mtu, headers = 1500, 52
    for overhead in (0, 20, 28, 50, 60, 80):
        score = (mtu - overhead - headers) / (mtu - headers)
        assert all(abs(score - least) > 0.004 for _, least in CLASSES), overhead


def test_scores_are_of_repeats_that_both_have_and_more_is_better() -> None:
    ours, base = {1: 50.0, 2: 80.0, 4: 30.0}, {1: 100.0, 2: 100.0, 3: 100.0, 4: 0.0}
    assert scores(ours, base, "bit/s") == (0.5, 0.8)
    assert scores(ours, base, "us") == (2.0, 1.25)
    assert scores(ours, base, "CPU s/Gbit") == (2.0, 1.25)


def test_a_rating_is_withheld_where_noise_leaves_two() -> None:
    assert rate((0.93, 0.931, 0.932)).word == "good"
    assert rate((0.93, 0.96, 1.0)).word == NOISE
    assert rate((0.93,)).word == ONCE
    assert rate((0.5, 0.5, 0.5)).word == "poor"


def test_places_are_those_that_chance_leaves() -> None:
    apart = {"first": (0.99, 0.991, 0.992), "third": (0.5, 0.501, 0.502), "second": (0.8, 0.801, 0.802)}
    assert ranks(apart) == {"first": "1", "second": "2", "third": "3"}
    noisy = {"a": (0.5, 0.9, 1.4), "b": (0.6, 0.8, 1.2)}
    assert ranks(noisy) == {"a": "-", "b": "-"}
    assert ranks({**apart, "like first": (0.990, 0.9911, 0.9922)})["like first"] == "1-2"
    assert ranks({"a": (0.9,), "b": (0.1,)}) == {"a": "-", "b": "-"}  # one repeat says nothing

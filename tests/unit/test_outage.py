"""What is said of an interruption, from numbers that came and those that did not."""

from __future__ import annotations

import pytest

from scenarios.measure.outage import Outage, outage

SENT = [number / 1000 for number in range(1000)]


def without(*gaps: tuple[int, int]) -> list[int]:
    return [n for n in range(1000) if not any(low <= n < high for low, high in gaps)]


@pytest.mark.parametrize(
    ("came", "expected"),
    [
        (without(), Outage(0, 0.0)),
        (without((10, 11)), Outage(1, 0.002)),
        (without((10, 60)), Outage(50, 0.051)),
        (without((10, 20), (30, 80), (90, 91)), Outage(61, 0.051)),
        (without((0, 5)), Outage(5, 0.005)),
        # The last few were under way.
        (without((995, 1000)), Outage(0, 0.0)),
        (without((500, 1000)), Outage(500, None)),
        ([], Outage(1000, None)),
        (without()[::-1], Outage(0, 0.0)),
    ],
)
def test_the_longest_gap_counts_in_time_and_every_datagram_as_lost(came: list[int], expected: Outage) -> None:
    found = outage(SENT, came)
    assert found.lost == expected.lost
    assert found.seconds == pytest.approx(expected.seconds)


def test_a_sender_that_stalls_loses_nothing() -> None:
    sent = [n / 1000 + (0.5 if n > 100 else 0) for n in range(1000)]
    assert outage(sent, without()) == Outage(0, 0.0)

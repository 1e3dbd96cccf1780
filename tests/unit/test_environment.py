"""How busy the machine was, and where that decides what was measured."""

from __future__ import annotations

from scenarios.measure.environment import BUSY, cpu_bound, cpu_times_now, shares


def test_shares_are_of_the_time_between_two_readings() -> None:
    before, after = (0,) * 8, (30, 0, 20, 40, 0, 0, 0, 10)
    assert shares(before, after) == (50.0, 10.0)
    now = cpu_times_now()
    assert len(now) == 8 and sum(cpu_times_now()) >= sum(now) > 0


def test_what_had_no_cpu_left_is_named() -> None:
    assert cpu_bound({"one": BUSY - 1, "two": 20.0}) == [] == cpu_bound({})
    assert cpu_bound({"one": BUSY, "two": 20.0}) == ["The machine's CPUs were the limit, or waited for, in one (90 %)."]
    assert "everything" in cpu_bound({"one": 95.0, "two": 99.0})[0]

"""What speaks against a measurement is said, and nothing on a quiet machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scenarios.measure import selfcheck
from scenarios.measure.selfcheck import Calibration, Ticks, judge, read_ticks, shares
from topo.cluster.errors import PlatformError

QUIET = Calibration(timer=40, overshoot=80.0, loopback=(14.0, 15.0, 14.5), veth=(18.0, 19.0, 18.5))


def test_a_quiet_machine_has_no_warning() -> None:
    assert judge(QUIET, QUIET, others=3.0, steal=0.1) == []


@pytest.mark.parametrize(
    ("before", "after", "others", "steal", "said"),
    [
        (QUIET, QUIET, 45.0, 0.0, "Other programs took 45 % of the CPUs"),
        (QUIET, QUIET, 0.0, 7.5, "The hypervisor gave 7.5 % of the CPUs to others"),
        (replace(QUIET, timer=4_000_000), QUIET, 0.0, 0.0, "steps of 4000000 ns"),
        (QUIET, replace(QUIET, overshoot=5200.0), 0.0, 0.0, "A sleep of 1 ms ended 5200 us late"),
        (replace(QUIET, veth=(18.0, 30.0, 18.0)), QUIET, 0.0, 0.0, "over a veth pair took 1.67 times as long"),
        (QUIET, replace(QUIET, loopback=(29.0, 30.0, 29.0)), 0.0, 0.0, "took 14.5 us before the run and 29.0 us after"),
        (Calibration(40, 80.0, problem="rr.py ended"), QUIET, 0.0, 0.0, "could not be calibrated: rr.py ended"),
    ],
)
def test_each_doubt_is_one_sentence(
    before: Calibration, after: Calibration, others: float, steal: float, said: str
) -> None:
    (found,) = judge(before, after, others, steal)
    assert said in found


def test_what_others_took_is_what_we_did_not_take() -> None:
    start = Ticks(total=1000, busy=400, steal=10, own=100)
    end = Ticks(total=2000, busy=1100, steal=35, own=500)
    assert shares(start, end) == (30.0, 2.5)  # 700 busy, 400 of them ours, of 1,000
    assert shares(start, replace(end, own=900)) == (0.0, 2.5)  # ticks are rounded by each process: never below 0


def test_ticks_count_processes_with_their_ended_children_whatever_their_name(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  10 2 30 400 5 1 2 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    # Field 14 on: utime, stime, cutime, cstime.
    for pid, name in (("1", "init"), ("7", "a) R (b")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(f"{pid} ({name}) S 0 1 1 0 -1 4194560 1 2 3 4 11 12 13 14 20 0 1 0\n")
    (tmp_path / "self").mkdir()
    assert read_ticks(tmp_path) == Ticks(total=457, busy=42, steal=7, own=100)


def test_a_machine_that_cannot_be_calibrated_is_measured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PlatformError("ethtool is not installed", "apt-get install ethtool")

    monkeypatch.setattr(selfcheck.suite, "baseline_places", refuse)
    found = selfcheck.calibrate(tx_off=True)
    assert found.problem == "ethtool is not installed: apt-get install ethtool" and found.timer > 0
    assert "could not be calibrated" in judge(found, QUIET, others=0.0, steal=0.0)[0]


def test_the_timer_is_read_for_real() -> None:
    assert 0 < selfcheck.timer_resolution() < 10_000_000

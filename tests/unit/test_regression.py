"""A slowed path is caught and an unchanged one is not, ten of ten each: with what labs measured, and with chance."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from scenarios.measure.regression import Beside, judge, known_ratio
from topo.cluster.errors import InputError

# tcp_rr through a ClusterIP between two nodes beside two other pods of the same nodes, on a busy machine; for half of
# them the caller's veth carried 10 kbit/s only (tc-tbf(8)).
RECORDED = json.loads((Path(__file__).parents[1] / "data" / "regression" / "recorded.json").read_text())


def recorded(name: str) -> list[Beside]:
    return [Beside("tcp_rr", "us", tuple(r["path"]), tuple(r["beside"]), "netdev") for r in RECORDED[name]]


def made(ratio: float, spread: float, chance: random.Random, unit: str = "us") -> Beside:
    """Ten repeats of a machine that is up to three times as slow at one moment as at another, which disturbs both."""
    moments = [chance.uniform(100, 300) for _ in range(10)]
    path = tuple(m * ratio * chance.lognormvariate(0, spread) for m in moments)
    return Beside("tcp_rr", unit, path, tuple(m * chance.lognormvariate(0, spread) for m in moments), "netdev")


def test_ten_of_ten_slowed_paths_are_caught_and_no_unchanged_one() -> None:
    slowed, unchanged = recorded("slowed"), recorded("unchanged")
    assert len(slowed) == len(unchanged) == 10
    assert [judge(one, 1.0, 0.25).slower for one in slowed] == [True] * 10
    assert [judge(one, 1.0, 0.25).slower for one in unchanged] == [False] * 10


def test_made_samples_of_a_path_half_as_slow_again() -> None:
    chance = random.Random(5)
    assert all(judge(made(2.7, 0.1, chance), 1.8, 0.25).slower for _ in range(10))
    assert not any(judge(made(1.8, 0.1, chance), 1.8, 0.25).slower for _ in range(200))


def test_of_a_rate_less_is_slower() -> None:
    chance = random.Random(6)
    assert judge(made(0.5, 0.05, chance, "bit/s"), 1.0, 0.25).slower
    assert not judge(made(2.0, 0.05, chance, "bit/s"), 1.0, 0.25).slower


def test_noise_alone_is_no_regression_but_is_said() -> None:
    verdict = judge(Beside("tcp_rr", "us", (900, 100, 300, 2000), (100, 300, 100, 400), "netdev"), 1.0, 0.25)
    assert not verdict.slower and verdict.ratio.value > 1.25
    assert verdict.text.endswith("baseline 1.00, tolerance 25%: no regression") and "95 %" in verdict.text


@pytest.mark.parametrize(("known", "tolerance", "repeats"), [(1.0, 0.25, 2), (0.0, 0.25, 5), (1.0, -0.1, 5)])
def test_what_can_judge_nothing_is_refused(known: float, tolerance: float, repeats: int) -> None:
    with pytest.raises(InputError):
        judge(Beside("tcp_rr", "us", (1.0,) * repeats, (1.0,) * repeats, "netdev"), known, tolerance)


def test_known_ratios_are_by_name_and_datapath(tmp_path: Path) -> None:
    file, now = tmp_path / "ratios.yaml", Beside("tcp_rr", "us", (3.0,) * 3, (2.0,) * 3, "netdev")
    with pytest.raises(InputError, match=r"no baseline 'x' for datapath netdev; expected `x: 1\.50`"):
        known_ratio(file, "x", now)
    file.write_text("x: 1.4\nboth: {netdev: 2.5, system: 1.1}\none: {system: 1.1}\n")
    assert (known_ratio(file, "x", now), known_ratio(file, "both", now)) == (1.4, 2.5)
    with pytest.raises(InputError, match="no baseline 'one' for datapath netdev"):
        known_ratio(file, "one", now)

"""Runs are ordered where chance is unlikely to have made the order, and nowhere else."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from scenarios.cli import main
from scenarios.measure.stats import repeat_summary, summary
from scenarios.report import comparison, results
from scenarios.report.comparison import compare, order
from scenarios.report.results import Measurement, Result
from scenarios.report.tables import BASELINE


def measured(name: str, path: str, unit: str, *medians: float) -> Measurement:
    runs = tuple(summary([middle]) for middle in medians)
    return Measurement(name, path, unit, runs, repeat_summary(runs))


def run(*measurements: Measurement, **environment: object) -> Result:
    machine = {"cpu": "x", "cpus": 2, "kernel": "6.1", "datapath": "netdev"} | environment
    return Result("s", "2024-05-06T07:08:09+00:00", "c", machine, {"cni": "flannel", "shaped": False}, measurements)


def test_a_clear_difference_is_an_order_and_noise_is_none() -> None:
    fast = run(measured("tcp_rr", "a", "us", 100, 102, 98), measured("tcp_crr", "a", "us", 100, 150, 90))
    slow = run(measured("tcp_rr", "a", "us", 150, 155, 149), measured("tcp_crr", "a", "us", 110, 160, 80))
    clear, noise = compare({"fast": fast, "slow": slow}, relative=False).rows
    assert clear.verdict == "best: fast" and [f.rank for f in clear.figures] == [(1, 1), (2, 2)]
    (pair,) = clear.pairs
    assert pair.apart and pair.ratio.low and 1.4 < pair.ratio.low < 1.51 < (pair.ratio.high or 0) < 1.6
    assert noise.verdict == "no order: the difference is within the noise"
    assert [f.rank for f in noise.figures] == [(1, 2), (1, 2)] and not noise.pairs[0].apart


def test_of_a_rate_more_is_better() -> None:
    one, two = (run(measured("tcp_throughput", "a", "bit/s", *v)) for v in ((1e9, 1.1e9, 1.05e9), (4e9, 4.1e9, 4.2e9)))
    (row,) = compare({"one": one, "two": two}, relative=False).rows
    assert row.verdict == "best: two"


def test_one_repeat_is_never_ordered() -> None:
    (row,) = compare({n: run(measured("x", "a", "us", v)) for n, v in (("a", 1), ("b", 100))}, relative=False).rows
    assert row.verdict == "no order: one repeat says nothing about chance"
    assert [f.rank for f in row.figures] == [(1, 2), (1, 2)]


def test_of_several_runs_each_has_the_places_it_can_have() -> None:
    values = {"a": (10.0, 10.1, 9.9, 10.0), "b": (10.05, 10.0, 9.95, 10.1), "c": (20.0, 20.2, 19.9, 20.1)}
    pairs, places = order(values, "us")
    assert places == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    assert [pair.apart for pair in pairs] == [False, True, True]
    (row,) = compare({n: run(measured("x", "p", "us", *v)) for n, v in values.items()}, relative=False).rows
    assert row.verdict == "not told apart: a, b"


def test_equal_runs_are_seldom_ordered() -> None:
    """Four runs of one truth: six pairs, and all of them together err in 5 % of cases at most."""
    chance, wrong = random.Random(3), 0
    for _ in range(150):
        values = {n: [chance.lognormvariate(0, 0.2) for _ in range(5)] for n in "abcd"}
        wrong += any(pair.apart for pair in order(values, "us")[0])
    assert wrong / 150 < 0.1


def test_ratios_to_the_own_baseline_compare_machines() -> None:
    quick = run(measured("rr", BASELINE, "us", 10, 10, 10), measured("rr", "a", "us", 100, 101, 99))
    slow = run(measured("rr", BASELINE, "us", 20, 20, 20), measured("rr", "a", "us", 200, 203, 198), cpu="y")
    assert compare({"q": quick, "s": slow}, relative=False).rows[1].verdict == "best: q"
    compared = compare({"q": quick, "s": slow}, relative=True)
    (row,) = compared.rows
    assert row.verdict.startswith("no order") and row.figures[0].mean.value == pytest.approx(10, rel=0.01)
    assert compared.notes == ("Different cpu: q x; s y",)
    assert "The machines differ" in compare({"q": quick, "s": slow}, relative=False).notes[1]


def test_doubts_and_shaping_are_told() -> None:
    one = replace(run(measured("x", "a", "us", 1, 2)), warnings=("busy",))
    link = {"bandwidth": 100.0, "mtu": 1500}
    one = replace(one, lab={**one.lab, "fabric": {"shape": "star", "link": {**link, "bandwidth": None}}})
    two = replace(one, lab={"cni": "calico", "shaped": True, "fabric": {"shape": "star", "link": link}}, warnings=())
    notes = compare({"one": one, "two": two}, relative=False).notes
    assert "one: busy" in notes and "Different lab: cni: one flannel; two calico" in notes
    assert "Different lab: fabric link bandwidth: one -; two 100.0" in notes and "mtu" not in " ".join(notes)
    assert any(note.startswith("Some runs were shaped") for note in notes)


def test_the_command_prints_the_same_to_people_and_to_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = ((100, 102, 98), (150, 155, 149))
    folders = [str(results.write(run(measured("tcp_rr", "a", "us", *v)), [], tmp_path)) for v in values]
    assert main.run(["compare", *folders]) == 0
    shown = capsys.readouterr().out
    assert main.run(["compare", *folders, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["verdict"] == f"best: {Path(folders[0]).name}" and row["verdict"] in shown
    assert row["pairs"][0]["apart"] is True and f"{row['pairs'][0]['ratio']['value']:.2f}" in shown
    assert comparison.METHOD[:60] in " ".join(shown.split())


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = str(results.write(run(measured("x", "a", "us", 1, 2)), [], tmp_path))
    other = str(results.write(run(measured("y", "a", "us", 1, 2)), [], tmp_path))
    for folders, said in (([one], "1 is too few"), ([one, one], "is named twice"), ([one, other], "in common")):
        assert main.run(["compare", *folders]) == 2
        assert said in capsys.readouterr().err

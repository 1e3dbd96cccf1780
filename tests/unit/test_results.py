"""Result folders: what is written is read back, nothing is overwritten or left half-made."""

from __future__ import annotations

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from scenarios.measure.stats import repeat_summary, summary
from scenarios.measure.suite import Run, combine
from scenarios.report import results, schema
from scenarios.report import tables as report
from scenarios.report.curves import Curves
from scenarios.report.results import Measurement, Result, Samples, TextTable
from topo.cluster.errors import InputError


def measured(name: str, path: str, unit: str, *medians: float) -> Measurement:
    runs = tuple(summary([middle * 0.9, middle, middle * 1.1]) for middle in medians)
    return Measurement(name, path, unit, runs, repeat_summary(runs), details={"mtu": 1500})


RESULT = Result(
    scenario="paths",
    started="2024-05-06T07:08:09+00:00",
    command="mininetes measure",
    environment={"kernel": "6.1", "load_average": [0.5, 0.25, 0.1], "seed": None},
    lab={"shaped": False, "nodes": ["a", "b"]},
    measurements=(
        measured("tcp_rr", report.BASELINE, "us", 20, 21, 22),
        measured("tcp_rr", "other node", "us", 40, 42, 44),
        measured("tcp_throughput", "other node", "bit/s", 5e9),
        Measurement("icmp_rtt", "ClusterIP", "us", note="not measured: a ClusterIP answers no ICMP"),
    ),
    notes=("a note",),
    tables=(TextTable("own", ("a", "b"), (("1", "2"),)),),
    curves=(Curves("growth", "n", "s", {"one": ((1.0, 2.0), (10.0, 3.0))}, {"one": ((1.0, 1.5, 2.5),)}),),
    warnings=("a warning",),
    failed=("a failure",),
)
SAMPLES = [Samples("tcp_rr", "other node", 1, "us", (1.5, 2.0)), Samples("tcp_rr", "other node", 2, "us", (3.0,))]


def test_evidence_lies_in_a_folder_of_its_own_beside_the_report(tmp_path: Path) -> None:
    folder = results.write(RESULT, SAMPLES, tmp_path, {"worker.log": "it ended"})
    assert (folder / "evidence" / "worker.log").read_text() == "it ended"
    assert results.read(folder) == RESULT


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = results.write(RESULT, SAMPLES, tmp_path / "results")
    assert folder.name == "20240506-070809-paths"
    assert results.read(folder) == RESULT
    assert sorted(file.name for file in folder.iterdir()) == [
        "growth.svg",
        "latency.svg",
        "report.html",
        "report.md",
        "result.json",
        "samples.csv",
        "throughput.svg",
    ]
    with (folder / "samples.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["measurement", "path", "repeat", "unit", "value"],
            ["tcp_rr", "other node", "1", "us", "1.5"],
            ["tcp_rr", "other node", "1", "us", "2.0"],
            ["tcp_rr", "other node", "2", "us", "3.0"],
        ]
    for plot in ("latency.svg", "throughput.svg"):
        assert "<svg" in (folder / plot).read_text()
        assert f"]({plot})" in (folder / "report.md").read_text()


def test_no_folder_is_overwritten(tmp_path: Path) -> None:
    bare = replace(RESULT, measurements=())
    names = [results.write(bare, [], tmp_path).name for _ in range(3)]
    assert names == ["20240506-070809-paths", "20240506-070809-paths-2", "20240506-070809-paths-3"]


def test_there_is_no_plot_without_values(tmp_path: Path) -> None:
    folder = results.write(replace(RESULT, measurements=RESULT.measurements[-1:], curves=()), [], tmp_path)
    assert not list(folder.glob("*.svg"))
    assert ".svg" not in (folder / "report.md").read_text()


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "markdown", interrupted)
    with pytest.raises(KeyboardInterrupt):
        results.write(RESULT, SAMPLES, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_scenarios_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    folder = results.write(replace(RESULT, scenario="../up and away", measurements=()), [], tmp_path)
    assert folder.parent == tmp_path
    assert folder.name == "20240506-070809-..-up-and-away"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "unknown schema None"),
        ('{"schema": "mininetes/result/v9"}', "unknown schema 'mininetes/result/v9'; expected mininetes/result/v1"),
        ('{"schema": "mininetes/result/v1"}', "does not fit"),
        (json.dumps({"schema": results.SCHEMA, "measurements": [{"name": "x"}], "notes": []}), "does not fit"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(InputError, match=message):
        results.read(tmp_path)


def test_what_does_not_fit_the_schema_is_named_by_its_place(tmp_path: Path) -> None:
    folder = results.write(RESULT, SAMPLES, tmp_path)
    document = json.loads((folder / "result.json").read_text())
    for change, place in (
        (lambda d: d["measurements"][1].pop("unit"), r"\$\.measurements\[1\]: .*'unit' is a required property"),
        (lambda d: d["measurements"][0].update(lost=-1), r"\$\.measurements\[0\]\.lost"),
        (lambda d: d["measurements"][0].update(repeats=[]), r"\$\.measurements\[0\]\.repeats"),
        (lambda d: d.update(notes="text"), r"\$\.notes"),
    ):
        broken = copy.deepcopy(document)
        change(broken)
        with pytest.raises(InputError, match=place):
            schema.check(broken, "result.json")


def test_keys_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    folder = results.write(RESULT, SAMPLES, tmp_path)
    document = json.loads((folder / "result.json").read_text())
    for part in (document, document["measurements"][0], document["measurements"][0]["repeats"][0]):
        part["later"] = 1
    (folder / "result.json").write_text(json.dumps(document))
    assert results.read(folder) == RESULT


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"result\.json: cannot be read"):
        results.read(tmp_path)


def test_repeats_are_combined() -> None:
    runs = [Run((1.0, 2.0, 3.0), 1, {"mtu": 1500}), Run((), 4, problem="no answer in time"), Run((4.0,), 0)]
    measurement, samples = combine("udp_rr", "same node", "us", runs)
    assert measurement.summary is not None
    assert (measurement.summary.count, measurement.summary.p50, measurement.lost) == (2, 3.0, 5)
    assert measurement.details == {"mtu": 1500}
    assert [(one.repeat, one.values) for one in samples] == [(1, (1.0, 2.0, 3.0)), (3, (4.0,))]


def test_a_measurement_without_values_says_why() -> None:
    measurement, samples = combine("udp_rr", "same node", "us", [Run((), 4, problem="no answer in time")])
    assert (measurement.summary, measurement.note, samples) == (None, "not measured: no answer in time", [])

"""A sweep's matrix, its folder, its table; what is nonsense is refused before anything runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from scenarios.cli import main, sweep, sweep_dask
from scenarios.measure.stats import repeat_summary, summary
from scenarios.report import results, sweeps
from scenarios.report.results import Measurement, Result
from scenarios.report.sweeps import Cell, Sweep
from topo.cluster.errors import InputError

SWEEP = Sweep("quickstart", ("flannel", "calico:mode=vxlan"), ("ovs",), (2, 4), 2, ("quickstart", "--repeats", "3"))


def result(folder: Path, *medians: float) -> Path:
    runs = tuple(summary([middle]) for middle in medians)
    measured = Measurement("tcp_rr", "a", "us", runs, repeat_summary(runs))
    return results.write(Result("s", "2024-05-06T07:08:09+00:00", "c", {}, {}, (measured,)), [], folder)


def test_every_combination_is_run_once_before_any_is_run_again() -> None:
    steps = [(cell.name, run) for cell, run in SWEEP.steps()]
    names = ["flannel+ovs+2-nodes", "flannel+ovs+4-nodes", "calico-mode=vxlan+ovs+2-nodes"]
    assert steps[:3] == [(name, 1) for name in names]
    assert len(steps) == len(set(steps)) == 8 and [run for _, run in steps] == [1] * 4 + [2] * 4


def test_a_cell_is_what_run_is_given() -> None:
    expected = ["--cni", "calico", "--cni-option", "mode=vxlan", "--proxy", "ovs", "--nodes", "4"]
    assert Cell("calico:mode=vxlan", "ovs", 4).arguments() == expected
    assert Cell().arguments() == [] and Cell().name == "lab"
    assert "/" not in Cell("a/../b:x=/etc").name


def test_a_folder_goes_on_with_its_own_sweep_only(tmp_path: Path) -> None:
    folder = tmp_path / "matrix"
    sweeps.begin(SWEEP, folder)
    sweeps.begin(SWEEP, folder)
    other = Sweep("quickstart", ("flannel",), ("ovs",), (2, 4), 2, ("quickstart", "--repeats", "3"))
    with pytest.raises(InputError, match=r"another sweep \(it differs in cni\)"):
        sweeps.begin(other, folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(InputError, match="is no sweep's folder"):
        sweeps.begin(SWEEP, tmp_path / "full")


def test_what_is_done_is_known_by_its_result_and_all_of_it_is_one_table(tmp_path: Path) -> None:
    one, two = list(SWEEP.steps())[:2]
    unfinished = sweeps.place(tmp_path, *two) / ".unfinished-x"
    unfinished.mkdir(parents=True)
    (unfinished / "result.json").write_text("{")
    folder = result(sweeps.place(tmp_path, *one), 10.0, 12.0)
    assert sweeps.done(tmp_path, *one) == folder and sweeps.done(tmp_path, *two) is None
    rows = list(csv.DictReader(sweeps.table({one: folder}).splitlines()))
    assert [(r["cni"], r["nodes"], r["run"], r["repeat"], float(r["p50"])) for r in rows] == [
        ("flannel", "2", "1", "1", 10.0),
        ("flannel", "2", "1", "2", 12.0),
    ]


def test_what_was_not_as_expected_stays_failed_when_nothing_is_left_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, words = tmp_path / "matrix", ["sweep", "quickstart", "--nodes", "2"]
    asked = sweep._sweep(main.parser("sweep").parse_args([*words, "--results", str(folder)]))
    sweeps.begin(asked, folder)
    failed = Result("s", "2024-05-06T07:08:09+00:00", "c", {}, {}, (), failed=("a packet passed",))
    results.write(failed, [], sweeps.place(folder, *next(asked.steps())))
    assert main.run([*words, "--results", str(folder)]) == 1
    assert "2-nodes run 1: not as expected: a packet passed" in capsys.readouterr().out


def test_labs_that_are_equal_are_found() -> None:
    assert sweeps.duplicates({Cell("a"): [1], Cell("b"): [2], Cell("c"): [1]}) == (Cell("a"), Cell("c"))
    assert sweeps.duplicates({Cell("a"): [1], Cell("b"): [2]}) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("quickstart",), "there is no matrix"),
        (("nothing", "--cni", "flannel"), "unknown scenario 'nothing'"),
        (("quickstart", "--cni", "flannel,nope"), "unknown CNI 'nope'"),
        (("quickstart", "--proxy", "nope"), "unknown proxy mode 'nope'"),
        (("quickstart", "--cni", "flannel,flannel"), "'flannel' is twice in it"),
        (("quickstart", "--cni", "flannel,"), "'' is no name"),
        (("quickstart", "--nodes", "2,x"), "is no list of numbers of nodes"),
        (("quickstart", "--nodes", "1,2"), "measures between two nodes"),
        (("quickstart", "--nodes", "0"), "is no list of numbers of nodes"),
        (("quickstart", "--nodes", "2", "--runs", "0"), "nothing would be run"),
        (("quickstart", "--nodes", "2", "--repeats", "0"), "nothing would be measured"),
        (("quickstart", "--nodes", "2", "--option", "x=1"), "no such option"),
        (("quickstart", "--cni", "flannel:backend=pigeon"), "pigeon"),
        (("proxy-modes", "--proxy", "ovs,ipvs"), "ovs and ipvs are the same labs of proxy-modes"),
    ],
)
def test_nonsense_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert main.run(["sweep", *words, "--results", str(tmp_path / "matrix")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "matrix").exists()


def test_a_dry_run_shows_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--results", str(tmp_path / "matrix"), "--dry-run", "--json"]
    assert main.run(["sweep", "quickstart", "--cni", "flannel,calico", "--runs", "2", *where]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(one["cell"], one["run"]) for one in shown] == [(c, n) for n in (1, 2) for c in ("flannel", "calico")]
    assert not (tmp_path / "matrix").exists()


def worker(host: str, threads: int = 1) -> dict[str, object]:
    return {"id": f"tcp://{host}:1", "host": host, "nthreads": threads}


@pytest.mark.parametrize(
    ("workers", "timed", "problem"),
    [
        ([], False, "no worker"),
        ([worker("a", 4), worker("a")], False, ""),
        ([worker("a"), worker("b")], True, ""),
        ([worker("a"), worker("b", 2)], True, "several labs at once"),
        ([worker("a"), worker("a")], True, "several workers"),
    ],
)
def test_workers_that_would_disturb_each_other_are_refused(
    workers: list[dict[str, object]], timed: bool, problem: str
) -> None:
    found = sweep_dask.unfit(workers, timed)
    assert problem in found and bool(problem) == bool(found)


def test_a_worker_gets_all_files_of_a_run_by_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = {
        "lab.yaml": "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nmininetes: {manifests: [m/pod.yaml]}\n",
        "m/pod.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n",
        "plugins/one.py": "",
    }
    for name, text in texts.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    found = sweep_dask.bundle([Path("lab.yaml"), Path("plugins")])
    assert found == {str(tmp_path / name): text.encode() for name, text in texts.items()}
    places = {"lab.yaml": str(tmp_path / "lab.yaml"), "plugins": str(tmp_path / "plugins")}
    words = sweep_dask.moved(["quickstart", "lab.yaml", "--plugins=plugins", "--cni", "x"], places, Path("/there"))
    assert words == ["quickstart", f"/there{tmp_path}/lab.yaml", f"--plugins=/there{tmp_path}/plugins", "--cni", "x"]

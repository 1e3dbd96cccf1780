"""A sweep that is interrupted goes on where it was; its labs can be side by side, and on a dask scheduler's workers."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest
from running import ROOT, mininetes

EXAMPLES = re.findall(r"```python\n(\"\"\"(\w+):.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "handshake.py").write_text(next(text for text, name in EXAMPLES if name == "handshake"))
    folder = tmp_path / "matrix"
    words = ["sweep", "handshake", "--plugins", str(tmp_path), "--cni", "flannel,calico", "--repeats", "1"]
    words += ["--results", str(folder)]
    first = subprocess.Popen(
        [sys.executable, "-m", "scenarios", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (begun := list(folder.glob("flannel/run-1/[!.]*/result.json"))):
        assert time.monotonic() < deadline and first.poll() is None, "the first run did not end"
        time.sleep(0.1)
    # As a terminal does: to all of its processes, the lab of the second run among them.
    os.killpg(first.pid, signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130 and "the same command goes on" in said
    assert not list(folder.glob("calico/run-1/*/result.json"))
    before = begun[0].stat().st_mtime_ns

    again = mininetes(*words, "--json", timeout=180)
    assert again.returncode == 0, again.stderr
    assert "[1/1] calico run 1" in again.stderr and "flannel" not in again.stderr
    assert begun[0].stat().st_mtime_ns == before
    data = json.loads(again.stdout)
    assert [one["cell"] for one in data["runs"]] == ["flannel", "calico"] and data["failed"] == data["absent"] == {}
    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert {row["cni"] for row in rows} == {"flannel", "calico"} and all(float(row["p50"]) > 0 for row in rows)


NOTHING = '''
"""nothing: a lab that comes up, and how many pods it has."""

from scenarios import Outcome
from scenarios.report.results import TextTable
from topo import manifests


class Nothing:
    name = "nothing"
    description = "a lab that comes up"
    timed = False

    def plan(self, config):
        return config, manifests.load_text("", "nothing").objects

    def run(self, context):
        pods = [p["metadata"]["name"] for p in context.lab.store.list("Pod")]
        return Outcome([], [], tables=[TextTable("pods", ("pod",), [(name,) for name in sorted(pods)])])


SCENARIO = Nothing()
'''
POD = """
apiVersion: v1
kind: Pod
metadata: {name: there}
spec: {containers: [{name: c, image: none}]}
"""
LAB = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
mininetes: {dns: false, manifests: [pod.yaml]}
"""


@pytest.fixture
def lab_file(tmp_path: Path) -> Path:
    """A lab that needs two more files: a manifest that it names, and a scenario in a folder."""
    for name, text in (("pod.yaml", POD), ("lab.yaml", LAB), ("plugins/nothing.py", NOTHING.lstrip())):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path / "lab.yaml"


def sweep(lab_file: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    plugins = str(lab_file.parent / "plugins")
    return mininetes(
        "sweep", "nothing", str(lab_file), "--plugins", plugins, "--results", str(folder), "--json", *words, timeout=180
    )


def test_labs_side_by_side(lab_file: Path, tmp_path: Path) -> None:
    done = sweep(lab_file, tmp_path / "matrix", "--cni", "flannel,calico", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert [one["cell"] for one in data["runs"]] == ["flannel", "calico"]
    began = [json.loads((Path(one["folder"]) / "result.json").read_text())["started"] for one in data["runs"]]
    # Each takes some seconds, so had the second waited for the first it would have begun later.
    second = max(datetime.fromisoformat(text) for text in began)
    ended = min((Path(one["folder"]) / "result.json").stat().st_mtime for one in data["runs"])
    assert second.timestamp() <= ended


def test_what_measures_times_is_not_run_side_by_side(tmp_path: Path) -> None:
    words = ["sweep", "quickstart", "--cni", "flannel,calico", "--jobs", "2", "--results", str(tmp_path / "matrix")]
    done = mininetes(*words)
    assert done.returncode == 2 and "quickstart measures times" in done.stderr
    assert not (tmp_path / "matrix").exists()


def test_workers_of_a_dask_scheduler_run_whole_labs(lab_file: Path, tmp_path: Path) -> None:
    scheduler, elsewhere = tmp_path / "scheduler.json", tmp_path / "elsewhere"
    elsewhere.mkdir()  # where files are not found by the names that they have here
    common = ["--scheduler-file", str(scheduler), "--host", "127.0.0.1"]
    programs = {"dask_scheduler": ["--port", "0", "--no-dashboard"], "dask_worker": ["--nthreads", "1", "--no-nanny"]}
    with ExitStack() as stack:
        for name, words in programs.items():
            command = [sys.executable, "-m", f"distributed.cli.{name}", *common, *words]
            process = stack.enter_context(subprocess.Popen(command, cwd=elsewhere, stderr=subprocess.DEVNULL))
            stack.callback(process.terminate)
        deadline = time.monotonic() + 60
        while True:
            done = sweep(lab_file, tmp_path / "matrix", "--cni", "flannel", "--dask", str(scheduler))
            if done.returncode != 2:  # not there yet
                break
            assert not (tmp_path / "matrix").exists()
            assert time.monotonic() < deadline, done.stderr
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["runs"]
    result = json.loads((Path(one["folder"]) / "result.json").read_text())
    assert result["tables"][0]["rows"] == [["there"]]
    assert {p.name for p in Path(one["folder"]).iterdir()} >= {"report.html", "report.md", "samples.csv"}

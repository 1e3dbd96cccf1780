"""A sweep that is interrupted goes on where it was."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

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

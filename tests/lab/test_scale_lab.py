"""The scale scenario in its smallest form: two sizes, every figure of each, and a node that joins both."""

from __future__ import annotations

import json
import os
from pathlib import Path

from running import mininetes


def test_two_small_labs_are_measured_and_compared(tmp_path: Path) -> None:
    words = [
        "--lab",
        f"scale-{os.getpid()}",
        "--repeats",
        "1",
        "--seconds",
        "0.05",
        "--results",
        str(tmp_path),
        "--json",
    ]
    words += ["--option", "nodes=2,1", "--option", "pods-per-node=2"]
    done = mininetes("run", "scale", *words, timeout=240)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    sizes, growths, shares = found["tables"]
    assert [row[0] for row in sizes["rows"]] == ["1", "2"]
    for row in sizes["rows"]:
        of = dict(zip(sizes["columns"], row, strict=True))
        assert all(float(value) > 0 for title, value in of.items() if title != "CPUs at rest"), of
    assert len(growths["rows"]) == len(sizes["columns"]) - 1
    assert {row[0] for row in shares["rows"]} == {"vswitchd", "ovsdb", "pods", "controller", "agent", "lab"}
    flows = {m["path"]: m["summary"]["p50"] for m in found["measurements"] if m["name"] == "flows_per_node"}
    assert flows["2"] > flows["1"]  # it has a peer
    assert (Path(found["folder"]) / "scale-memory.svg").exists()

"""The chaos scenario in its smallest form: a round of failures, and what a lab that stays broken makes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from running import mininetes

# Those that are over soon; BGP's hold time alone would take seconds.
KINDS = "controller killed,agent killed,switch killed,database killed,pod deleted,pod killed,node replaced,link slow"
# Balances well among the pods of the beginning, and refuses to where one of them has another address.
STUBBORN = """
from controllers.flow import tables as t
from controllers.flow.actions import Goto
from controllers.proxy.choosing import to
from controllers.proxy.frontends import FlowProxy


class Stubborn(FlowProxy):
    name = "stubborn"
    description = "knows the first five pods of a node"

    def choose(self, w, chosen, node):
        if any(endpoint.ip & 0xFF > 6 for endpoint in chosen.endpoints):
            return (Goto(t.REJECT),)
        return (to(chosen.endpoints[0]),)


PROXY = Stubborn()
"""


def run(tmp_path: Path, *more: str, status: int) -> dict[str, object]:
    command = [
        "run",
        "chaos",
        "--lab",
        f"chaos-{os.getpid()}",
        "--nodes",
        "2",
        "--no-dns",
        "--seed",
        "3",
        "--results",
        str(tmp_path),
        "--json",
    ]
    done = mininetes(*command, "--option", "lab=own", *more, timeout=120)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_lab_is_whole_after_each_of_ten_failures(tmp_path: Path) -> None:
    found = run(tmp_path, "--option", "steps=10", "--option", f"kinds={KINDS}", status=0)
    assert found["failed"] == []
    table, rest = found["tables"]
    assert sum(int(times) for _, times, *_ in table["rows"]) == 10
    assert {row[0] for row in table["rows"]} == set(KINDS.split(","))
    counted = {row[0]: float(row[2]) for row in rest["rows"]}
    lived = ("memory of lab (MiB)", "open files of python -m topo.standin", "processes of ovs-vswitchd")
    assert all(counted[name] > 0 for name in (*lived, "flows of the controller", "connections of worker"))
    assert 0 < counted["folder of the lab (MiB)"] < 16


def test_a_lab_that_is_not_whole_again_is_said_with_seed_and_step(tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "stubborn.py").write_text(STUBBORN)
    words = ("--plugins", str(plugins), "--proxy", "stubborn", "--option", "steps=3", "--option", "patience=3")
    found = run(tmp_path, *words, "--option", "kinds=pod deleted", status=1)
    (said,) = found["failed"]
    assert said.startswith("seed 3, step 1: pod deleted ")
    evidence = Path(str(found["folder"])) / "evidence"
    # Flows, what the switch remembers, its log, and the objects as they were when it failed.
    assert "table=" in (evidence / "worker.br-int.dump-flows").read_text()
    assert (evidence / "worker.megaflows").exists() and (evidence / "worker.ovs-vswitchd.log").stat().st_size > 0
    store = json.loads((evidence / "store.json").read_text())
    assert {one["metadata"]["name"] for one in store if one["kind"] == "Deployment"} == {"client", "store", "web"}

"""The scenarios about Services in their smallest form: they end well, and their tables hold what packets did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from running import mininetes

QUICK = ["--nodes", "3", "--repeats", "1", "--seconds", "0.05", "--no-dns", "--json"]


def result(tmp_path: Path, scenario: str, *words: str) -> dict[str, Any]:
    done = mininetes("run", scenario, *QUICK, "--results", str(tmp_path), *words, timeout=240)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["failed"] == []
    return found


@pytest.mark.slow
def test_service_types_finds_what_it_expects(tmp_path: Path) -> None:
    found = result(tmp_path, "service-types")
    table = found["tables"][0]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert {row["client"] for row in rows} == {"pod", "node", "outside"}
    assert all(row["observed"] == row["expected client"] for row in rows) and len(rows) > 20


@pytest.mark.slow
def test_proxy_modes_measures_each_mode_that_is_asked_for(tmp_path: Path) -> None:
    found = result(tmp_path, "proxy-modes", "--option", "modes=ovs,kernel-nftables")
    paths = {(one["name"], one["path"]) for one in found["measurements"]}
    kinds, modes = ("tcp_rr", "tcp_crr", "tcp_throughput"), ("ovs", "kernel-nftables")
    assert paths >= {(kind, f"{mode}: {way}") for kind in kinds for mode in modes for way in ("pod", "Service")}
    assert all(one["summary"]["p50"] > 0 for one in found["measurements"])


@pytest.mark.slow
def test_proxy_scaling_has_a_figure_for_every_size_and_mode(tmp_path: Path) -> None:
    found = result(tmp_path, "proxy-scaling", "--option", "modes=ovs,kernel-iptables", "--option", "sizes=10,40")
    paths = {one["path"] for one in found["measurements"] if one["name"] == "tcp_crr"}
    assert paths == {f"{mode}: {size}" for mode in ("ovs", "kernel-iptables") for size in (10, 40)}
    assert {one["name"] for one in found["measurements"]} >= {"program_all", "change_endpoint", "memory"}
    assert found["curves"]


def test_a_comparison_of_nothing_is_no_success(tmp_path: Path) -> None:
    words = ("--option", "cnis=conflist", "--results", str(tmp_path), "--json")
    done = mininetes("run", "cni-traits", *words)
    assert done.returncode == 2 and "none of the labs of cni-traits can be here: conflist" in done.stderr
    assert not list(tmp_path.iterdir())

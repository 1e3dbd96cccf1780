"""Limits of fabric links hold for what crosses them, and Mininet's command line works in a lab."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from running import MANIFESTS, RunningLab, StartLab, mininetes

LAB = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}, {role: worker}]
mininetes:
  cni: calico
  fabric: {shape: star, links: {worker--switch-1: {bandwidth: 50M}}}
"""
COMMANDS = "control-plane ping -c1 -W2 worker\nnet\nexit\n"


@pytest.fixture(scope="module")
def lab(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    file = tmp_path_factory.mktemp("lab") / "lab.yaml"
    file.write_text(LAB)
    return start_lab("--no-dns", str(file), str(MANIFESTS / "guestbook.yaml"))


def bandwidth(lab: RunningLab, client: str, server: str, address: str) -> float:
    """Mbit/s of one TCP connection that arrived."""
    lab.exec(server, "iperf3", "-s", "-D", "-1")
    shown = json.loads(lab.exec(client, "iperf3", "-c", address, "-t", "2", "--json"))
    return float(shown["end"]["sum_received"]["bits_per_second"]) / 1e6


def test_a_link_carries_what_its_bandwidth_allows_and_no_more(lab: RunningLab) -> None:
    pods = lab.status()["pods"]
    here = next(p for p in pods if p["node"] == "control-plane")
    there = next(p for p in pods if p["node"] == "worker")
    # Ethernet, IP and TCP headers are part of the 50 Mbit/s.
    assert 40 < bandwidth(lab, here["name"], there["name"], there["ip"]) < 50


def test_packets_that_stay_on_a_node_are_not_limited_by_its_link(lab: RunningLab) -> None:
    one, two = [p for p in lab.status()["pods"] if p["node"] == "worker"][:2]
    assert bandwidth(lab, one["name"], two["name"], two["ip"]) > 75


def test_mininets_command_line_knows_names_with_hyphens(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(LAB)
    done = mininetes("up", "--lab", f"cli-{os.getpid()}", str(file), input=COMMANDS)
    assert done.returncode == 0, done.stderr
    shown = done.stdout + done.stderr
    assert "1 packets transmitted, 1 received" in shown
    assert "Unknown command" not in shown

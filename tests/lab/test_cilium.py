"""What is particular to CNI cilium: identities in the tunnel's header, seen on the fabric."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT, RunningLab, StartLab

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: one}}
spec: {nodeName: worker, containers: [{name: c, image: x, ports: [{containerPort: 8080, name: web}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, labels: {app: two}}
spec: {nodeName: worker2, containers: [{name: c, image: x, ports: [{containerPort: 8080, name: web}]}]}
"""


@pytest.fixture(scope="module")
def lab(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    file = tmp_path_factory.mktemp("lab") / "pods.yaml"
    file.write_text(PODS)
    return start_lab("--cni", "cilium", "--no-dns", str(file))


def ip(lab: RunningLab, pod: str) -> str:
    return str(lab.pod(pod)["ip"])


def identity(lab: RunningLab, pod: str) -> int:
    every = lab.json("identity", "list")
    return int(next(i["identity"] for i in every if f"default/{pod}" in i["pods"]))


def seen(lab: RunningLab, tmp_path: Path, link: str, wanted: str, *command: str) -> str:
    """What tcpdump prints of two packets on a link while a pod runs a command."""
    file = tmp_path / "fabric.pcap"
    capture = subprocess.Popen(
        [sys.executable, "-m", "scenarios", "capture", "--lab", lab.name, link, "-w", str(file)]
        + ["-c", "2", "--filter", wanted],
        cwd=ROOT,
    )
    lab.eventually(lambda: file.exists() and file.stat().st_size > 0)  # tcpdump writes its header once it listens
    lab.exec(*command)
    assert capture.wait(timeout=10) == 0
    return subprocess.run(
        ["tcpdump", "-nr", str(file), "-T", "vxlan"], capture_output=True, text=True, check=True
    ).stdout


def test_the_vni_of_each_packet_is_its_senders_identity(lab: RunningLab, tmp_path: Path) -> None:
    a, b = ip(lab, "a"), ip(lab, "b")
    assert identity(lab, "a") != identity(lab, "b")
    shown = seen(lab, tmp_path, "worker--leaf-2", "udp port 8472", "a", "ping", "-c", "2", "-W", "2", b)
    pairs = re.findall(r"vni (\d+)\n.*IP ([\d.]+) > [\d.]+: ICMP", shown)
    assert {(int(vni), sender) for vni, sender in pairs} == {(identity(lab, "a"), a), (identity(lab, "b"), b)}, shown


def test_a_nodes_own_packets_are_a_remote_nodes(lab: RunningLab, tmp_path: Path) -> None:
    shown = seen(lab, tmp_path, "worker--leaf-2", "udp port 8472", "worker", "ping", "-c", "2", "-W", "2", ip(lab, "b"))
    assert "vni 6\n" in shown


def test_pods_of_equal_labels_share_an_identity(lab: RunningLab, tmp_path: Path) -> None:
    lab.apply(PODS.replace("name: a,", "name: twin,"), tmp_path)
    assert identity(lab, "twin") == identity(lab, "a")

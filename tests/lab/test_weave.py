"""What is particular to CNI weave: one link for all pods, the peers in the VNI, ways round broken links, seals."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import ROOT, RunningLab, StartLab

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {nodeName: worker, containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b}
spec: {nodeName: worker2, containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
"""
# On leaf-2 alone, to which worker is attached.
SWITCH = "unix:/run/mininetes/leaf-2/br-fabric.mgmt"


@pytest.fixture(scope="module", params=["fastdp", "sleeve", "sealed"])
def lab(request: pytest.FixtureRequest, start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    file = tmp_path_factory.mktemp("lab") / "pods.yaml"
    file.write_text(PODS)
    mode = "sleeve" if request.param == "sleeve" else "fastdp"
    more = [] if request.param == "fastdp" else ["--cni-option", "password=open sesame"]
    lab = start_lab("--cni", "weave", "--cni-option", f"mode={mode}", *more, "--no-dns", str(file))
    lab.mode = request.param  # type: ignore[attr-defined]
    return lab


def mode_of(lab: RunningLab) -> str:
    return str(lab.mode)  # type: ignore[attr-defined]


def ip(lab: RunningLab, pod: str) -> str:
    return str(lab.pod(pod)["ip"])


def answered(lab: RunningLab) -> bool:
    return "1 received" in lab.exec("a", "ping", "-c", "1", "-W", "1", ip(lab, "b"), ok=False)


@contextmanager
def seen(lab: RunningLab, file: Path, wanted: str) -> Iterator[None]:
    """A file of what crosses worker's link meanwhile."""
    capture = subprocess.Popen(
        [sys.executable, "-m", "scenarios", "capture", "--lab", lab.name, "worker--leaf-2", "-w", str(file)]
        + ["--filter", wanted],
        cwd=ROOT,
    )
    lab.eventually(lambda: file.exists() and file.stat().st_size > 0)  # tcpdump writes its header once it listens
    yield
    time.sleep(0.3)
    capture.terminate()
    capture.wait(timeout=10)


def test_a_pods_frames_and_its_arp_reach_the_other_node_as_they_are(lab: RunningLab, tmp_path: Path) -> None:
    port = {"fastdp": 6784, "sleeve": 6783, "sealed": 6785}[mode_of(lab)]
    lab.exec("a", "ip", "neigh", "flush", "all")
    with seen(lab, tmp_path / "pcap", f"udp port {port} or udp port 6784"):
        shown = lab.exec("a", "ping", "-c", "2", "-W", "2", "-p", "6d6e", ip(lab, "b"))
    assert "2 received" in shown and "ttl=64 " in shown
    assert re.search(r"lladdr 0a:58:0a:f4:02:0\d", lab.exec("a", "ip", "neigh", "show", ip(lab, "b")))
    captured, pattern = (tmp_path / "pcap").read_bytes(), b"mn" * 20
    assert len(captured) > 4 * 84
    if mode_of(lab) != "fastdp":
        assert pattern not in captured
        return
    assert pattern in captured
    command = ("tcpdump", "-enr", str(tmp_path / "pcap"), "-T", "vxlan")
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    keys = {
        d: {int(k) for k in re.findall(rf"vni (\d+)\n.*{d}", text)} for d in ("ICMP echo request", "ICMP echo reply")
    }
    assert f"Request who-has {ip(lab, 'b')} tell {ip(lab, 'a')}" in text
    ((there,), (back,)) = keys.values()
    assert (there >> 12, there & 0xFFF) == (back & 0xFFF, back >> 12), text


def test_a_broken_link_between_two_nodes_is_gone_round_within_seconds(lab: RunningLab) -> None:
    assert answered(lab) and not any(node["relays"] for node in lab.status()["nodes"])
    one, two = (next(n["ip"] for n in lab.status()["nodes"] if n["name"] == name) for name in ("worker", "worker2"))
    cut = [f"priority=65000,ip,nw_src={x},nw_dst={y}" for x, y in ((one, two), (two, one))]
    for flow in cut:
        lab.exec("worker", "ovs-ofctl", "-O", "OpenFlow14", "add-flow", SWITCH, f"{flow},actions=drop")
    lab.eventually(lambda: answered(lab), 15)
    relays = {n["name"]: n["relays"] for n in lab.status()["nodes"]}
    assert relays == {
        "control-plane": {},
        "worker": {"worker2": "control-plane"},
        "worker2": {"worker": "control-plane"},
    }
    assert "worker reaches worker2 through control-plane" in lab.ask("status").stdout
    for flow in cut:
        lab.exec("worker", "ovs-ofctl", "-O", "OpenFlow14", "--strict", "del-flows", SWITCH, flow)
    lab.eventually(lambda: not any(node["relays"] for node in lab.status()["nodes"]), 15)
    assert answered(lab)

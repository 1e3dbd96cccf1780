"""Routes between nodes and with routers outside: the controller's RIB, and BIRD and FRR by what they say themselves."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from running import RunningLab, StartLab

LAB = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{{role: control-plane}}, {{role: worker}}, {{role: worker}}]
mininetes:
  cni: {cni}
  bgp: {bgp}
  fabric: {fabric}
"""
PODS = """
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: web}}
spec: {nodeName: control-plane, containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: web}}
spec: {nodeName: worker, containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""
ANYCAST = """
    announce:
    - {prefix: 192.0.2.0/24, nodes: [worker, worker2]}
    - {prefix: 192.0.2.128/25, nodes: [worker2], localPreference: 200}
    - {prefix: 192.0.2.128/25, nodes: [worker]}
    - {prefix: 198.18.0.0/24, nodes: [worker], communities: ["64512:666"]}
    import: [{action: reject, community: "64512:666"}]
"""


def start(start_lab: StartLab, folder: Path, cni: str, bgp: str, fabric: str = "{shape: star}") -> RunningLab:
    (folder / "lab.yaml").write_text(LAB.format(cni=cni, bgp=bgp, fabric=fabric))
    (folder / "pods.yaml").write_text(PODS)
    return start_lab("--no-dns", str(folder / "lab.yaml"), str(folder / "pods.yaml"))


def pings(lab: RunningLab, source: str, address: str) -> bool:
    return "1 received" in lab.exec(source, "ping", "-c1", "-W1", address, ok=False)


@pytest.fixture(scope="module", params=["controller", "bird"])
def anycast(
    request: pytest.FixtureRequest, start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory
) -> RunningLab:
    if request.param == "bird" and shutil.which("bird") is None:
        pytest.skip("bird2 is not installed")
    cni = "{name: calico, speaker: bird, bfd: true}" if request.param == "bird" else "calico"
    return start(start_lab, tmp_path_factory.mktemp("lab"), cni, ANYCAST)


def test_announced_prefixes_are_reached_by_the_best_paths_and_filters_hold(anycast: RunningLab) -> None:
    nodes = {n["name"]: n["ip"] for n in anycast.status()["nodes"]}
    anycast.eventually(lambda: pings(anycast, "near", "192.0.2.1") and pings(anycast, "near", "192.0.2.200"))
    paths = anycast.json("routes", "control-plane")
    best = {(p["prefix"], hop) for p in paths if p["best"] for hop in p["via"]}
    assert ("192.0.2.128/25", nodes["worker2"]) in best and ("192.0.2.128/25", nodes["worker"]) not in best
    assert ("192.0.2.128/25", 200) in {(p["prefix"], p["localPreference"]) for p in paths}
    assert {p["prefix"] for p in paths} >= {"10.244.1.0/24", "10.244.2.0/24", "192.0.2.0/24"}
    assert "198.18.0.0/24" not in {p["prefix"] for p in paths}
    assert "192.0.2.0/24" in anycast.ask("routes", "control-plane").stdout
    assert len(anycast.json("routes", "worker", "--protocols")) == 2


def test_connections_spread_over_equal_next_hops_and_a_dead_one_is_withdrawn(anycast: RunningLab) -> None:
    """Two nodes answer at the same addresses: by their names one sees who did."""
    for node in ("worker", "worker2"):
        served = f"cd $(mktemp -d); echo {node} > who; (python3 -m http.server 8099 >/dev/null 2>&1 &)"
        anycast.exec(node, "sh", "-c", served)
    loop = "for i in $(seq 24); do curl -s -m 2 http://192.0.2.1:8099/who; done"
    anycast.eventually(lambda: set(anycast.exec("near", "sh", "-c", loop, ok=False).split()) == {"worker", "worker2"})
    anycast.ask("switch", "stop", "worker2")
    anycast.eventually(lambda: anycast.exec("near", "sh", "-c", loop, ok=False).split() == ["worker"] * 24, 20)
    anycast.ask("switch", "start", "worker2")

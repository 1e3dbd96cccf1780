"""Every fabric carries pods and Services: over all its ways, round dead links, and between subnets."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from running import RunningLab, StartLab, mininetes

LAB = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{{role: control-plane}}, {{role: worker}}, {{role: worker}}]
mininetes:
  cni: flannel
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
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""
FABRICS = {
    "star": "{shape: star}",
    "routed": "{shape: leaf-spine, routing: l3}",
    "two-sites": "{shape: two-sites, links: {site-1--site-2: {bandwidth: 20M}}}",
}


def start(start_lab: StartLab, folder: Path, fabric: str) -> RunningLab:
    (folder / "lab.yaml").write_text(LAB.format(fabric=FABRICS[fabric]))
    (folder / "pods.yaml").write_text(PODS)
    return start_lab("--no-dns", str(folder / "lab.yaml"), str(folder / "pods.yaml"))


@pytest.fixture(scope="module", params=FABRICS)
def lab(request: pytest.FixtureRequest, start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    found = start(start_lab, tmp_path_factory.mktemp("lab"), request.param)
    found.fabric = request.param  # type: ignore[attr-defined]
    return found


def kind(lab: RunningLab) -> str:
    return str(lab.fabric)  # type: ignore[attr-defined]


def answers(lab: RunningLab, client: str, address: str) -> set[str]:
    """Which of the pods answer this client's connections."""
    said = lab.exec(client, "sh", "-c", f"for i in $(seq 12); do curl -s -m 3 http://{address}/; done")
    return set(re.findall(r"near|far", said))


def test_pods_reach_each_other_and_services_from_everywhere(lab: RunningLab) -> None:
    pods = {name: lab.pod(name)["ip"] for name in ("near", "far")}
    for one, other in (("near", "far"), ("far", "near")):
        assert "2 received" in lab.exec(one, "ping", "-c", "2", "-i", "0.05", "-W", "2", pods[other])
        assert answers(lab, one, lab.service("web")) == {"near", "far"}
    external = next(s["external"] for s in lab.status()["services"] if s["name"] == "web")
    for machine in ("client", "worker2", "worker"):
        assert answers(lab, machine, external[0]) == {"near", "far"}, machine


def test_racks_are_subnets_whose_router_takes_the_ttl(lab: RunningLab) -> None:
    nodes = {n["name"]: n["ip"] for n in lab.status()["nodes"]}
    far, same = (lab.exec("control-plane", "ping", "-c1", "-W2", nodes[n]) for n in ("worker", "worker2"))
    hops = {"star": 64, "routed": 61, "two-sites": 62}
    assert f"ttl={hops[kind(lab)]} " in far and "ttl=64 " in same
    routed = kind(lab) in ("routed", "two-sites")
    shown = json.loads(lab.exec("worker", "ip", "-j", "route", "get", nodes["control-plane"]))
    assert shown[0].get("gateway") == ("172.18.64.1" if routed else None)


def test_every_equal_way_is_used_and_a_dead_link_is_routed_round(lab: RunningLab) -> None:
    if kind(lab) != "routed":
        return

    def sent() -> list[int]:
        shown = (json.loads(lab.exec("leaf-1", "ip", "-j", "-s", "link", "show", f"eth{n}")) for n in (1, 2))
        return [int(one[0]["stats64"]["tx"]["packets"]) for one in shown]

    before = sent()
    lab.exec("near", "sh", "-c", f"for i in $(seq 40); do curl -s http://{lab.pod('far')['ip']}:8080/ >/dev/null; done")
    assert all(b - a > 10 for a, b in zip(before, sent(), strict=True))
    for number in (1, 2):
        lab.exec("leaf-1", "ip", "link", "set", f"eth{number}", "down")
        # Both directions: the other leaf knows of it from the controller alone.
        lab.eventually(lambda: "3 received" in lab.exec("near", "ping", "-c3", "-i0.1", "-W1", lab.pod("far")["ip"]), 5)
        lab.exec("leaf-1", "ip", "link", "set", f"eth{number}", "up")
        time.sleep(0.2)


def test_a_dead_leaf_cuts_off_its_rack_and_no_other(lab: RunningLab) -> None:
    if kind(lab) != "routed":
        return
    far = lab.pod("far")["ip"]
    lab.ask("switch", "stop", "leaf-2")
    lost = lab.exec("near", "ping", "-c1", "-W1", far, ok=False)
    assert "0 received" in lost
    nodes = {n["name"]: n["ip"] for n in lab.status()["nodes"]}
    assert "1 received" in lab.exec("control-plane", "ping", "-c1", "-W1", nodes["worker2"])
    lab.ask("switch", "start", "leaf-2")
    lab.eventually(lambda: "1 received" in lab.exec("near", "ping", "-c1", "-W1", far, ok=False))


def test_the_link_between_sites_is_as_slow_as_it_is_said_to_be(lab: RunningLab) -> None:
    if kind(lab) != "two-sites":
        return
    lab.exec("far", "iperf3", "-s", "-D", "-1")
    shown = json.loads(lab.exec("near", "iperf3", "-c", lab.pod("far")["ip"], "-t", "2", "--json"))
    assert 12 < shown["end"]["sum_received"]["bits_per_second"] / 1e6 < 20


def test_the_scenario_sees_traffic_take_another_way_and_a_dead_controller_lose_nothing(tmp_path: Path) -> None:
    """Its limits depend on the machine, what it sees does not."""
    chosen = ("--repeats", "1", "--option", "modes=flows", "--option", "events=link down,controller dead")
    done = mininetes("run", "routing-convergence", "--json", "--results", str(tmp_path), *chosen, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    rows = {row[1]: row for row in json.loads(done.stdout)["tables"][0]["rows"]}
    assert {rows["link down"][4], rows["link down"][5]} == {"spine-1", "spine-2"}
    assert rows["controller dead"][3] == "0"

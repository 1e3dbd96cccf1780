"""Routes between nodes and with routers outside: the controller's RIB, and BIRD and FRR by what they say themselves."""

from __future__ import annotations

import json
import re
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
    cni = "{name: calico, speaker: bird, holdTime: 6}" if request.param == "bird" else "calico"
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


def test_a_bird_that_dies_comes_back_and_its_neighbours_keep_its_routes_meanwhile(anycast: RunningLab) -> None:
    """Graceful restart (RFC 4724): its kernel forwards on."""
    before = anycast.exec("worker", "cat", "/run/mininetes/worker/bird/bird.pid", ok=False)
    if not before:  # the controller's RIB
        return
    far = anycast.pod("far")["ip"]
    anycast.eventually(lambda: pings(anycast, "near", far))
    anycast.exec("worker", "kill", "-9", before.strip())
    lost = anycast.exec("near", "ping", "-i", "0.02", "-c", "100", "-q", far, ok=False)
    assert " 0% packet loss" in lost, lost
    anycast.eventually(lambda: established(anycast, "worker") == 2, 30)
    assert anycast.exec("worker", "cat", "/run/mininetes/worker/bird/bird.pid") != before


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


def test_a_bird_that_starts_again_while_a_neighbour_leaves_has_new_routes_soon(
    anycast: RunningLab, tmp_path: Path
) -> None:
    """BIRD waits for the one that left as for any other, and until then gives the kernel nothing new."""
    pid = anycast.exec("control-plane", "cat", "/run/mininetes/control-plane/bird/bird.pid", ok=False)
    if not pid:  # the controller's RIB
        return
    (tmp_path / "node.yaml").write_text("{apiVersion: v1, kind: Node, metadata: {name: worker2}}")
    anycast.exec("control-plane", "kill", "-9", pid.strip())
    anycast.ask("delete", "node", "worker2")
    anycast.ask("apply", "-f", str(tmp_path / "node.yaml"))
    (pods,) = {n["podCIDR"] for n in anycast.status()["nodes"] if n["name"] == "worker2"}
    anycast.eventually(lambda: "via" in anycast.exec("control-plane", "ip", "route", "show", pods, ok=False), 20)


@pytest.fixture(scope="module")
def racks(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    if shutil.which("bird") is None or not Path("/usr/lib/frr/bgpd").exists():
        pytest.skip("bird2 or frr is not installed")
    cni, fabric = "{name: calico, speaker: bird, peering: tor, bfd: true}", "{shape: leaf-spine, routing: l3}"
    return start(start_lab, tmp_path_factory.mktemp("lab"), cni, "{outsideRouter: frr}", fabric)


def established(lab: RunningLab, machine: str) -> int:
    return sum(s["state"] == "Established" for s in lab.json("routes", machine, "--protocols"))


def test_nodes_peer_with_their_leaf_and_leaves_with_spines(racks: RunningLab) -> None:
    racks.eventually(lambda: established(racks, "leaf-1") == 5, 20)  # two spines, two nodes, the router outside
    assert [established(racks, name) for name in ("leaf-2", "spine-1", "worker")] == [3, 2, 1]
    path = next(p for p in racks.json("routes", "worker") if p["prefix"] == "10.244.0.0/24")
    assert path["asPath"] == [4200000002, 4200000000, 4200000001, 64512]
    shown = json.loads(racks.exec("leaf-1", "ip", "-j", "route", "show", "10.244.1.0/24"))
    assert {hop["dev"] for hop in shown[0]["nexthops"]} == {"eth1", "eth2"}


def test_pods_and_services_cross_racks_by_the_switches_kernels(racks: RunningLab) -> None:
    far = racks.pod("far")["ip"]
    racks.eventually(lambda: pings(racks, "near", far))
    # Node, leaf, spine, leaf, node.
    assert "ttl=59 " in racks.exec("near", "ping", "-c1", "-W2", far)
    external = next(s["external"] for s in racks.status()["services"] if s["name"] == "web")
    assert racks.exec("far", "curl", "-s", "-m3", f"http://{external[0]}/")
    assert racks.exec("client", "curl", "-s", "-m3", f"http://{external[0]}/")


def test_the_router_outside_says_itself_that_it_learnt_pods_and_services(racks: RunningLab) -> None:
    external = next(s["external"] for s in racks.status()["services"] if s["name"] == "web")[0]
    routes = racks.exec("client", "vtysh", "--vty_socket", "/run/mininetes/client", "-c", "show ip bgp")
    assert all(prefix in routes for prefix in ("10.244.0.0/24", "10.244.1.0/24", external)), routes


def test_a_link_that_dies_silently_is_found_by_bfd(racks: RunningLab) -> None:
    """Its interfaces stay up and nothing passes: only BFD can know."""
    far = racks.pod("far")["ip"]
    for spine in (1, 2):
        racks.exec("leaf-1", "nft", "insert", "rule", "ip", "routers", "prerouting", "iifname", f"eth{spine}", "drop")
        racks.eventually(lambda: established(racks, "leaf-1") == 4, 10)
        assert "5 received" in racks.exec("near", "ping", "-c5", "-i0.05", "-W1", far)
        handle = racks.exec("leaf-1", "nft", "-a", "list", "chain", "ip", "routers", "prerouting")
        number = re.findall(rf'iifname "eth{spine}" drop # handle (\d+)', handle)[0]
        racks.exec("leaf-1", "nft", "delete", "rule", "ip", "routers", "prerouting", "handle", number)
        racks.eventually(lambda: established(racks, "leaf-1") == 5, 20)


def test_a_leaf_that_dies_and_comes_back_takes_its_rack_along(racks: RunningLab) -> None:
    far = racks.pod("far")["ip"]
    racks.ask("switch", "stop", "leaf-2")
    racks.eventually(lambda: "10.244.1.0/24" not in racks.ask("routes", "leaf-1").stdout, 10)
    assert not pings(racks, "near", far)
    racks.ask("switch", "start", "leaf-2")
    racks.eventually(lambda: pings(racks, "near", far), 20)


@pytest.fixture(scope="module")
def ryu(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    if shutil.which("bird") is None:
        pytest.skip("bird2 is not installed")
    section = "{outsideRouter: bird, announce: [{prefix: 192.0.2.0/24, nodes: [worker2]}]}"
    return start(start_lab, tmp_path_factory.mktemp("lab"), "{name: calico, speaker: ryu}", section)


def test_ryus_speakers_give_the_nodes_kernels_their_routes(ryu: RunningLab) -> None:
    assert len(ryu.json("routes", "worker", "--protocols")) >= 2
    ryu.eventually(lambda: pings(ryu, "near", ryu.pod("far")["ip"]) and pings(ryu, "near", "192.0.2.1"))
    best = {path["prefix"]: path["via"] for path in ryu.json("routes", "control-plane")}
    nodes = {n["name"]: n["ip"] for n in ryu.status()["nodes"]}
    assert best["10.244.1.0/24"] == [nodes["worker"]] and best["192.0.2.0/24"] == [nodes["worker2"]]


def test_bird_outside_says_what_ryus_speakers_told_it(ryu: RunningLab) -> None:
    def shown() -> str:
        return ryu.exec("client", "birdc", "-s", "/run/mininetes/client/bird.ctl", "show route")

    external = next(s["external"] for s in ryu.status()["services"] if s["name"] == "web")[0]
    ryu.eventually(lambda: all(p in shown() for p in ("10.244.0.0/24", "10.244.1.0/24", f"{external}/32")), 20)
    # BIRD's table has a route a moment before the kernel has it.
    ask = ("exec", "client", "--", "curl", "-s", "-m3", f"http://{external}/")
    ryu.eventually(lambda: ryu.ask(*ask, ok=False).returncode == 0, 20)


def test_a_killed_speaker_is_started_again_and_has_its_routes_again(ryu: RunningLab) -> None:
    pid = ryu.exec("worker", "pgrep", "-f", "ryu_speaker /run/mininetes/worker/").split()[0]
    ryu.exec("worker", "kill", "-9", pid)
    far = ryu.pod("far")["ip"]
    ryu.eventually(lambda: len(ryu.json("routes", "worker", "--protocols")) == 3 and pings(ryu, "near", far), 30)

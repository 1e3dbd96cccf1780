"""Every pod reaches every pod and every node, as itself, with the right TTL and size, and as nobody else."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import frames
import pytest
from conftest import RunningLab, StartLab
from inside import Listener, ask, capture, ping, send_frames, serve

Pods = dict[str, dict[str, Any]]

HOMES = {"a1": "control-plane", "b1": "worker", "b2": "worker", "c1": "worker2"}
POD = """
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  containers:
  - {{name: main, image: none, ports: [{{containerPort: 80}}, {{containerPort: 53, protocol: UDP}}]}}
"""
LAB = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}, {role: worker}, {role: worker}]
mininetes: {cni: %s, fabric: %s}
"""
FABRICS = {"star": "{shape: star}", "leaf-spine": "{shape: leaf-spine, leaves: 2, spines: 2}"}
JUMBO = "{shape: star, link: {mtu: 9000}}"
VXLAN_PORT = 8472


def up(start_lab: StartLab, folder: Path, cni: str, fabric: str, homes: dict[str, str]) -> RunningLab:
    (folder / "lab.yaml").write_text(LAB % (cni, fabric))
    (folder / "pods.yaml").write_text("".join(POD.format(name=name, node=node) for name, node in homes.items()))
    return start_lab(str(folder / "lab.yaml"), str(folder / "pods.yaml"))


@pytest.fixture(scope="module", params=list(itertools.product(("flannel", "calico"), FABRICS)), ids="-".join)
def lab(
    request: pytest.FixtureRequest, start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningLab]:
    cni, shape = request.param
    started = up(start_lab, tmp_path_factory.mktemp("lab"), cni, FABRICS[shape], HOMES)
    assert (started.status()["cni"], started.status()["fabric"]["shape"]) == (cni, shape)
    yield started
    started.ask("down", ok=False)


@pytest.fixture(scope="module")
def status(lab: RunningLab) -> Any:
    return lab.status()


@pytest.fixture(scope="module")
def pods(status: Any) -> Pods:
    return {pod["name"]: pod for pod in status["pods"]}


@pytest.fixture(scope="module")
def nodes(status: Any) -> Pods:
    return {node["name"]: node for node in status["nodes"]}


@pytest.fixture(scope="module")
def jumbo(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunningLab]:
    """Two labs at once, with equal addresses."""
    return {
        cni: up(
            start_lab, tmp_path_factory.mktemp("jumbo"), cni, JUMBO, {f"{cni}-1": "control-plane", f"{cni}-2": "worker"}
        )
        for cni in ("flannel", "calico")
    }


def mac_in(lab: RunningLab, pod: str) -> str:
    return str(json.loads(lab.exec(pod, "ip", "-json", "link", "show", "eth0"))[0]["address"])


def gateway(node: dict[str, Any]) -> str:
    return str(IPv4Network(node["podCIDR"])[1])


def test_every_pod_pings_every_pod_with_the_ttl_of_its_way(lab: RunningLab, status: Any, pods: Pods) -> None:
    same_node = {"flannel": 64, "calico": 63}[status["cni"]]
    for here in pods.values():
        expected = {
            there["ip"]: 64 if there is here else same_node if there["node"] == here["node"] else 62
            for there in pods.values()
        }
        assert ping(lab, here["name"], list(expected)) == expected, here["name"]


def test_every_pod_sends_datagrams_to_every_pod_as_itself(lab: RunningLab, pods: Pods) -> None:
    for here in pods.values():
        answers = ask(lab, here["name"], [("UDP", there["ip"], 53) for there in pods.values()])
        assert [(a.pod, a.client, a.error) for a in answers] == [(name, here["ip"], "") for name in pods], here["name"]


def test_every_pod_asks_every_pod_by_http_as_itself(lab: RunningLab, pods: Pods) -> None:
    for here in pods:
        shown = lab.exec(here, "curl", "-s", "-m", "3", *(f"http://{there['ip']}/x" for there in pods.values()))
        found = [json.loads(line) for line in shown.splitlines()]
        assert [(one["pod"], one["path"], one["client"]) for one in found] == [
            (name, "/x", pods[here]["ip"]) for name in pods
        ]


def test_pods_ping_their_own_node_and_every_other(lab: RunningLab, pods: Pods, nodes: Pods) -> None:
    addresses = [node["ip"] for node in nodes.values()]
    for name in pods:
        assert None not in ping(lab, name, addresses).values(), name


def test_nodes_ping_all_nodes_and_all_pods(lab: RunningLab, pods: Pods, nodes: Pods) -> None:
    addresses = [thing["ip"] for thing in (*nodes.values(), *pods.values())]
    for name in nodes:
        assert None not in ping(lab, name, addresses).values(), name


def test_a_node_comes_to_pods_from_its_own_pod_subnet(lab: RunningLab, pods: Pods, nodes: Pods) -> None:
    for name, node in nodes.items():
        answers = ask(lab, name, [("TCP", pod["ip"], 80) for pod in pods.values()])
        assert [(a.pod, a.client) for a in answers] == [(pod, gateway(node)) for pod in pods], name


def test_a_pod_comes_to_its_own_node_as_itself(lab: RunningLab, pods: Pods, nodes: Pods) -> None:
    with serve(lab, "worker", 7001) as server:
        assert ask(lab, "b1", [("TCP", nodes["worker"]["ip"], 7001)])[0].error == ""
        assert server.json() == pods["b1"]["ip"]


@pytest.mark.parametrize("there", ["worker", "worker2"])
def test_a_pod_comes_to_another_node_as_its_own_node(lab: RunningLab, nodes: Pods, there: str) -> None:
    with serve(lab, there, 7002) as server:
        assert ask(lab, "a1", [("TCP", nodes[there]["ip"], 7002)])[0].error == ""
        assert server.json() == nodes["control-plane"]["ip"]


def check_mtu(lab: RunningLab, pod: str, others: list[str], mtu: int) -> None:
    """The interface has it, a packet of that size arrives everywhere, and none is larger."""
    assert lab.exec(pod, "cat", "/sys/class/net/eth0/mtu").strip() == str(mtu)
    largest = mtu - 28  # less the headers of IP and ICMP
    for address in others:
        shown = lab.exec(pod, "ping", "-n", "-M", "do", "-c", "2", "-i", "0.01", "-W", "2", "-s", str(largest), address)
        assert "2 received" in shown, address
        more = ("ping", "-n", "-M", "do", "-c", "1", "-W", "0.1", "-s", str(largest + 1), address)
        assert "0 received" in lab.exec(pod, *more, ok=False), address


def test_the_largest_packet_is_the_fabrics_less_the_encapsulation(lab: RunningLab, status: Any, pods: Pods) -> None:
    expected = {"flannel": 1450, "calico": 1500}[status["cni"]]
    check_mtu(lab, "a1", [pods[name]["ip"] for name in ("b1", "c1")], expected)


@pytest.mark.parametrize(("cni", "expected"), [("flannel", 8950), ("calico", 9000)])
def test_jumbo_frames_cross_a_fabric_that_has_them(jumbo: dict[str, RunningLab], cni: str, expected: int) -> None:
    check_mtu(jumbo[cni], f"{cni}-1", [jumbo[cni].pod(f"{cni}-2")["ip"]], expected)


def test_large_answers_are_cut_to_fit(jumbo: dict[str, RunningLab]) -> None:
    for cni, lab in jumbo.items():
        shown = lab.exec(f"{cni}-1", "ping", "-n", "-c", "2", "-i", "0.01", "-s", "20000", lab.pod(f"{cni}-2")["ip"])
        assert "2 received" in shown, cni


def test_labs_with_equal_addresses_do_not_meet(jumbo: dict[str, RunningLab]) -> None:
    flannel, calico = jumbo["flannel"], jumbo["calico"]
    addresses = [lab.pod(f"{cni}-2")["ip"] for cni, lab in jumbo.items()]
    assert addresses[0] == addresses[1]
    with Listener(calico, "calico-2") as listener:
        for cni, lab in jumbo.items():
            assert [a.pod for a in ask(lab, f"{cni}-1", [("TCP", addresses[0], 80)] * 20)] == [f"{cni}-2"] * 20
        ask(flannel, "flannel-1", [("UDP", addresses[0], 53)])
        sources = {frames.parse(frame).source for frame in listener.heard("calico-1")}
    assert sources == {calico.pod("calico-1")["ip"]}


def test_the_fabric_sees_the_cnis_encapsulation(lab: RunningLab, status: Any, pods: Pods, tmp_path: Path) -> None:
    one, two = pods["a1"], pods["b1"]
    nodes = {node["ip"] for node in status["nodes"] if node["name"] in (one["node"], two["node"])}
    first = [s for s in status["fabric"]["switches"] if s.startswith(("switch", "spine"))]
    links = [f"leaf-1--{spine}" if spine.startswith("spine") else f"control-plane--{spine}" for spine in first]
    files = [tmp_path / f"{i}.pcap" for i in range(len(links))]
    captures = [capture(lab, link, str(file), 10, "udp") for link, file in zip(links, files, strict=True)]
    # Connections of many ports, so that some of them take each spine.
    assert {a.pod for a in ask(lab, "a1", [("UDP", two["ip"], 53)] * 100)} == {"b1"}
    for running in captures:
        with running:
            assert running.wait() == 0
    for packet in (frames.parse(frame) for file in files for frame in frames.read(file)):
        inner = packet
        if status["cni"] == "flannel":
            assert {packet.source, packet.target} == nodes
            assert packet.ports()[1] == VXLAN_PORT
            vni, inner = packet.vxlan()
            assert vni == 1
        assert {inner.source, inner.target} == {one["ip"], two["ip"]}
        assert 53 in inner.ports()


def spoofed(lab: RunningLab, node: str) -> int:
    drops = lab.json("flows", node, "--table", "Drop")
    return int(next(flow["packets"] for flow in drops if "Spoofed" in flow["flow"]))


def test_a_pod_cannot_send_from_an_address_it_was_given_by_nobody(lab: RunningLab, pods: Pods) -> None:
    before = spoofed(lab, "worker")
    lab.exec("b2", "ip", "address", "add", "10.244.9.9/32", "dev", "eth0")
    try:
        for there in ("b1", "a1"):
            command = ["ping", "-n", "-I", "10.244.9.9", "-c", "3", "-i", "0.01", "-W", "0.2", pods[there]["ip"]]
            assert "0 received" in lab.exec("b2", *command, ok=False)
    finally:
        lab.exec("b2", "ip", "address", "delete", "10.244.9.9/32", "dev", "eth0")
    lab.eventually(lambda: spoofed(lab, "worker") >= before + 6)


def test_forged_frames_reach_nobody_and_are_counted(lab: RunningLab, pods: Pods) -> None:
    own_mac, other_mac = mac_in(lab, "b2"), mac_in(lab, "b1")
    me, other, node_mate = pods["b2"]["ip"], pods["a1"]["ip"], pods["b1"]["ip"]
    forged = [
        frames.udp(own_mac, other_mac, other, node_mate, 53),  # another pod's address
        frames.udp(other_mac, other_mac, me, node_mate, 53),  # another pod's MAC
        frames.udp(own_mac, other_mac, "172.18.0.3", node_mate, 53),  # the node's address
        frames.udp(own_mac, other_mac, "0.0.0.0", node_mate, 53),
        frames.arp_request(own_mac, node_mate, other),
        frames.arp_request(other_mac, me, other),
    ]
    before = spoofed(lab, "worker")
    with Listener(lab, "b1") as listener:
        send_frames(lab, "b2", forged * 5)
        assert listener.heard("b2") == []
    lab.eventually(lambda: spoofed(lab, "worker") == before + 5 * len(forged))


def test_broadcasts_of_a_pod_reach_no_other_pod(lab: RunningLab, pods: Pods) -> None:
    own_mac, me = mac_in(lab, "b2"), pods["b2"]["ip"]
    unknown = str(IPv4Address(pods["b1"]["ip"]) + 100)
    flooded = [frames.arp_request(own_mac, me, unknown), frames.arp_request(own_mac, me, "10.1.2.3")]
    everybody = ("255.255.255.255", "10.244.1.255", unknown)
    flooded += [frames.udp(own_mac, frames.BROADCAST, me, target, 53) for target in everybody]
    for there in ("b1", "a1"):
        with Listener(lab, there) as listener:
            send_frames(lab, "b2", flooded * 5)
            assert listener.heard("b2") == [], there

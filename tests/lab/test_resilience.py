"""What goes on when the controller, a switch, a link or a node goes: packets decide."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import MANIFESTS, ROOT, RunningLab, StartLab

CNIS = ("flannel", "calico")
CONNECTIONS = """
import socket, sys, time
lost = made = 0
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=0.9) as sock:
            sock.send(b"x")
            made += bool(sock.recv(1000))
    except OSError:
        lost += 1
    time.sleep(0.005)
print(made, lost)
"""


@pytest.fixture(scope="module", params=CNIS)
def lab(request: pytest.FixtureRequest, start_lab: StartLab) -> RunningLab:
    return start_lab("--no-dns", "--cni", request.param, str(MANIFESTS / "guestbook.yaml"))


# What comes to a pod of ARP and ICMP until its input ends, a line for each frame.
HEARD = """
import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("eth0", 3))
print("ready", flush=True)
sys.stdin.read()
wire.setblocking(False)
try:
    while True:
        frame = wire.recv(2048)
        if frame[12:14] == b"\\x08\\x06" or frame[12:14] == b"\\x08\\x00" and frame[23] == 1:
            print(frame.hex())
except BlockingIOError:
    pass
"""


@contextmanager
def running(lab: RunningLab, pod: str, *command: str) -> Iterator[list[str]]:
    """A program in a pod meanwhile; its output is there when the block has ended."""
    argv = [sys.executable, "-m", "scenarios", "exec", "--lab", lab.name, pod, "--", *command]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    out: list[str] = []
    try:
        yield out
        out.append(process.communicate(timeout=30)[0])
    finally:
        process.kill()
        process.wait()


def across(lab: RunningLab) -> tuple[str, str]:
    """A pod on worker and the address of one on another node."""
    pods = lab.status()["pods"]
    here = next(p for p in pods if p["node"] == "worker")
    return here["name"], next(p["ip"] for p in pods if p["node"] == "control-plane")


def lost_packets(output: str) -> int:
    sent, received = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", output)[0])
    return sent - received


def programs(lab: RunningLab) -> dict[str, list[str]]:
    """Every bridge's flows, without counters; fails if a switch holds one that the controller does not want."""
    found = {}
    status = lab.status()
    for machine in [*(n["name"] for n in status["nodes"]), *status["fabric"]["switches"]]:
        flows = lab.json("flows", machine)
        assert not [f["flow"] for f in flows if f["owner"] == "not ours"]
        found[machine] = [f["flow"] for f in flows]
    return found


def test_a_restarted_controller_loses_no_packet_and_no_connection_and_sends_nothing_again(lab: RunningLab) -> None:
    pod, address = across(lab)
    before = programs(lab)
    with (
        running(lab, pod, "ping", "-i", "0.002", "-c", "1500", "-q", address) as ping,
        running(lab, pod, "python3", "-c", CONNECTIONS, lab.service("frontend"), "80", "4") as connections,
    ):
        lab.ask("controller", "restart")
    assert lost_packets(ping[0]) == 0, ping[0]
    made, lost = map(int, connections[0].split())
    assert lost == 0 and made > 100
    assert programs(lab) == before
    for node in lab.status()["nodes"]:
        assert lab.json("flows", node["name"], "--diff")["set"] == 0


def test_without_a_controller_old_and_new_connections_work(lab: RunningLab) -> None:
    pod, address = across(lab)
    with running(lab, pod, "ping", "-i", "0.005", "-c", "600", "-q", address) as ping:
        lab.exec("worker", "kill", "-9", str(lab.status()["controller"]["pid"]))
        lab.eventually(lambda: lab.ask("flows", "worker", "--diff", ok=False).returncode != 0)
        other = next(p["name"] for p in lab.status()["pods"] if p["node"] == "worker2")
        made = lab.exec(other, "python3", "-c", CONNECTIONS, lab.service("frontend"), "80", "1")
    assert lost_packets(ping[0]) == 0
    assert int(made.split()[0]) > 20 and made.split()[1] == "0"
    lab.ask("controller", "restart")
    programs(lab)


def test_a_restarted_switch_comes_back_with_all_its_flows(lab: RunningLab) -> None:
    pod, address = across(lab)
    before = programs(lab)
    with running(lab, pod, "ping", "-i", "0.01", "-w", "5", "-q", address) as ping:
        lab.ask("switch", "restart", "worker")
    # Well under a second: vswitchd's own start, its flows, and its neighbours.
    assert lost_packets(ping[0]) < 100, ping[0]
    assert programs(lab) == before
    assert lab.exec(pod, "curl", "-s", "-m", "3", f"http://{lab.service('frontend')}/")


def test_a_node_whose_switch_is_dead_is_not_ready_and_its_routes_are_withdrawn(lab: RunningLab) -> None:
    cidr = next(n["podCIDR"] for n in lab.status()["nodes"] if n["name"] == "worker2")

    def has_route() -> bool:
        return any(f"nw_dst={cidr} " in f["flow"] for f in lab.json("flows", "worker", "--table", "L3Forwarding"))

    assert has_route()
    lab.ask("switch", "stop", "worker2")
    lab.eventually(lambda: not has_route(), 5)
    lab.ask("switch", "start", "worker2")
    lab.eventually(has_route, 5)


def test_traffic_takes_another_spine_when_a_link_dies(lab: RunningLab) -> None:
    pod, address = across(lab)
    for spine in (1, 2):
        with running(lab, pod, "ping", "-i", "0.01", "-w", "3", "-q", address) as ping:
            lab.exec("leaf-1", "ip", "link", "set", f"eth{spine}", "down")
        assert lost_packets(ping[0]) < 100, ping[0]
        lab.exec("leaf-1", "ip", "link", "set", f"eth{spine}", "up")
        lab.eventually(lambda: "1 received" in lab.exec(pod, "ping", "-c", "1", "-W", "1", address, ok=False))


def test_both_spines_carry_traffic_and_nothing_is_flooded(lab: RunningLab) -> None:
    def packets(machine: str, interface: str) -> int:
        shown = lab.exec(machine, "ip", "-j", "-s", "link", "show", interface)
        return int(json.loads(shown)[0]["stats64"]["tx"]["packets"])

    pod, _ = across(lab)
    before = [packets("leaf-2", f"eth{n}") for n in (1, 2)]
    lab.exec(pod, "python3", "-c", CONNECTIONS, lab.service("frontend"), "80", "1")
    # Connections of a tunnel differ in their outer UDP source port, others in their own ports.
    after = [packets("leaf-2", f"eth{n}") for n in (1, 2)]
    assert all(b - a > 10 for a, b in zip(before, after, strict=True)), (before, after)

    quiet = next(p["name"] for p in lab.status()["pods"] if p["name"] != pod and p["node"] == "worker")
    argv = [sys.executable, "-m", "scenarios", "exec", "--lab", lab.name, quiet, "--", "python3", "-c", HEARD]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None and listener.stdout.readline() == "ready\n"
        lab.exec(pod, "ping", "-c", "2", "-W", "1", "10.244.1.250", ok=False)
        lab.exec(pod, "ping", "-b", "-c", "2", "-W", "1", "10.244.1.255", ok=False)
        assert listener.communicate(timeout=30)[0] == ""


def test_nodes_join_and_leave(lab: RunningLab, tmp_path: Path) -> None:
    lab.apply("{apiVersion: v1, kind: Node, metadata: {name: late, labels: {zone: far}}}", tmp_path)
    spec = "{nodeSelector: {zone: far}, containers: [{name: c, image: x}]}"
    lab.apply(f"{{apiVersion: v1, kind: Pod, metadata: {{name: far}}, spec: {spec}}}", tmp_path)
    far = lab.pod("far")
    assert far["node"] == "late"
    for sender in ("redis-master", "frontend"):
        assert "1 received" in lab.exec(sender, "ping", "-c", "1", "-W", "2", far["ip"])
    lab.ask("delete", "node", "late")
    lab.eventually(lambda: "far" not in [p["name"] for p in lab.status()["pods"]])
    assert "1 received" not in lab.exec("frontend", "ping", "-c", "1", "-W", "1", far["ip"], ok=False)
    programs(lab)


def test_pods_of_a_deleted_node_are_replaced_elsewhere(lab: RunningLab) -> None:
    lab.ask("delete", "node", "worker2")
    lab.eventually(lambda: len(lab.status()["pods"]) == 6 and not lab.status()["waiting"])
    pods = lab.status()["pods"]
    assert {p["node"] for p in pods} == {"control-plane", "worker"}
    assert len({p["ip"] for p in pods}) == 6
    for pod in pods[1:]:
        assert "1 received" in lab.exec(pods[0]["name"], "ping", "-c", "1", "-W", "2", pod["ip"])
    programs(lab)


def test_a_deployment_scales_and_a_deleted_pod_is_replaced_with_another_address(
    lab: RunningLab, tmp_path: Path
) -> None:
    text = (MANIFESTS / "guestbook.yaml").read_text()
    lab.apply(text.replace("replicas: 3", "replicas: 6"), tmp_path)
    service = next(s for s in lab.status()["services"] if s["name"] == "frontend")
    assert len(service["endpoints"]) == 6
    victim = lab.pod("frontend")
    lab.ask("delete", "pod", victim["name"])
    lab.eventually(lambda: not lab.status()["waiting"] and victim["name"] not in json.dumps(lab.status()["pods"]))
    pods = [p for p in lab.status()["pods"] if p["name"].startswith("frontend")]
    assert len(pods) == 6 and victim["ip"] not in {p["ip"] for p in pods}
    lab.apply(text.replace("replicas: 3", "replicas: 1"), tmp_path)
    lab.eventually(lambda: len([p for p in lab.status()["pods"] if p["name"].startswith("frontend")]) == 1)
    programs(lab)


def test_a_pod_that_starts_meanwhile_does_not_hold_the_output_of_exec(lab: RunningLab, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "scenarios", "exec", "--lab", lab.name, "redis-master", "--", "cat"]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("begun\n")
    process.stdin.flush()
    assert process.stdout.readline() == "begun\n"
    spec = "{containers: [{name: c, image: x}]}"
    lab.apply(f"{{apiVersion: v1, kind: Pod, metadata: {{name: meanwhile}}, spec: {spec}}}", tmp_path)
    assert process.communicate(timeout=5)[0] == ""

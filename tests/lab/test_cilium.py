"""What is particular to CNI cilium: identities in the tunnel's header, direct server return, Maglev."""

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

LAB = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}, {role: worker}, {role: worker}]
mininetes:
  dns: false
  cni: {name: cilium, mode: geneve, loadBalancer: {algorithm: maglev, mode: dsr}}
"""
POD = """
---
apiVersion: v1
kind: Pod
metadata: {name: @NAME@, labels: {app: one, name: @NAME@}}
spec:
  nodeName: @NODE@
  containers: [{name: c, image: x, ports: [{containerPort: 8080}, {containerPort: 53, protocol: UDP}]}]
"""
SERVICES = """
---
apiVersion: v1
kind: Service
metadata: {name: far}
spec: {type: NodePort, selector: {name: b}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: all}
spec: {externalIPs: [192.0.2.10], selector: {app: one}, ports: [{port: 53, protocol: UDP}]}
"""
PLACES = {"a": "worker", "b": "worker2", "c": "control-plane", "d": "worker2"}
PODS = "".join(POD.replace("@NAME@", name).replace("@NODE@", node) for name, node in PLACES.items())
# Asks from one port after the other; prints who answered each.
ASK = """
import json, socket, sys
for port in range(41000, 41040):
    for attempt in range(3):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(2)
            sock.bind(("", port))
            sock.connect(("192.0.2.10", 53))
            sock.send(b"hello")
            try:
                print(json.loads(sock.recv(2000))["pod"])
                break
            except TimeoutError:
                continue
"""


@pytest.fixture(scope="module")
def lab(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "lab.yaml").write_text(LAB)
    (folder / "pods.yaml").write_text(PODS + SERVICES)
    return start_lab(str(folder / "lab.yaml"), str(folder / "pods.yaml"))


def ip(lab: RunningLab, pod: str) -> str:
    return str(next(p["ip"] for p in lab.status()["pods"] if p["name"] == pod))


def node_ip(lab: RunningLab, node: str) -> str:
    return str(next(n["ip"] for n in lab.status()["nodes"] if n["name"] == node))


def identity(lab: RunningLab, pod: str) -> int:
    every = lab.json("identity", "list")
    return int(next(i["identity"] for i in every if f"default/{pod}" in i["pods"]))


class Seen:
    """What crossed a link; text: as tcpdump prints it, once the capture is over."""

    text = ""


@contextmanager
def seen(lab: RunningLab, tmp_path: Path, link: str, wanted: str) -> Iterator[Seen]:
    file, found = tmp_path / f"{link}.pcap", Seen()
    command = [sys.executable, "-m", "scenarios", "capture", "--lab", lab.name, link, "-w", str(file)]
    capture = subprocess.Popen([*command, "--filter", wanted], cwd=ROOT)
    lab.eventually(lambda: file.exists() and file.stat().st_size > 0)  # tcpdump writes its header once it listens
    yield found
    time.sleep(0.3)
    capture.terminate()
    capture.wait(timeout=10)
    found.text = subprocess.run(["tcpdump", "-nr", str(file)], capture_output=True, text=True, check=True).stdout


def test_the_vni_of_each_packet_is_its_senders_identity_and_a_node_is_a_remote_node(
    lab: RunningLab, tmp_path: Path
) -> None:
    assert identity(lab, "a") != identity(lab, "b")
    with seen(lab, tmp_path, "worker--leaf-2", "udp port 6081") as packets:
        lab.exec("a", "ping", "-c", "2", "-W", "2", ip(lab, "b"))
        lab.exec("worker", "ping", "-c", "1", "-W", "2", ip(lab, "b"))
    pairs = re.findall(r"vni (0x[0-9a-f]+): IP ([\d.]+) > ([\d.]+): ICMP", packets.text)
    found = {(sender, receiver): int(vni, 16) for vni, sender, receiver in pairs}
    gateway = next(s for s, _ in found if s not in (ip(lab, "a"), ip(lab, "b")))
    assert found[ip(lab, "a"), ip(lab, "b")] == identity(lab, "a")
    assert found[ip(lab, "b"), ip(lab, "a")] == identity(lab, "b")
    assert found[gateway, ip(lab, "b")] == 6


def test_what_crosses_the_fabric_is_sealed_if_that_is_asked_for(start_lab: StartLab, tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text(PODS)
    lab = start_lab("--cni", "cilium", "--cni-option", "encryption=wireguard", "--no-dns", str(tmp_path / "pods.yaml"))
    with seen(lab, tmp_path, "worker--leaf-2", "udp") as packets:
        size = ("-s", "1342", "-M", "do")  # Cilium's MTU: 1500 less 50 for VXLAN and 80 for WireGuard
        answer = lab.exec("a", "ping", "-c", "2", "-W", "5", "-p", "6d6e", *size, ip(lab, "b"))
    assert "2 received" in answer and "ttl=62 " in answer
    assert len(re.findall(r"\.51871: UDP", packets.text)) >= 4 and ".8472" not in packets.text
    assert b"mn" * 20 not in (tmp_path / "worker--leaf-2.pcap").read_bytes()


def test_pods_of_equal_labels_share_an_identity(lab: RunningLab, tmp_path: Path) -> None:
    twin = POD.replace("name: @NAME@, l", "name: twin, l").replace("@NAME@", "a").replace("@NODE@", "worker2")
    lab.apply(twin, tmp_path)
    assert identity(lab, "twin") == identity(lab, "a")
    lab.ask("delete", "pod", "twin")


def test_the_endpoints_node_answers_a_client_of_another_node_itself(lab: RunningLab, tmp_path: Path) -> None:
    asked = node_ip(lab, "worker")
    client = "172.18.0.1"
    with (
        seen(lab, tmp_path, "worker--leaf-2", "tcp or udp port 6081") as first,
        seen(lab, tmp_path, "worker2--leaf-1", "tcp or udp port 6081") as last,
    ):
        answer = lab.exec("client", "curl", "-s", "-m", "5", f"http://{asked}:30080/")
    assert '"pod": "b"' in answer and f'"client": "{client}"' in answer
    # In on one link, on in Geneve with the world's identity, and back on the other link alone.
    assert re.search(rf"vni 0x2: IP {client}\.\d+ > {asked}\.30080: Flags \[S\]", first.text)
    assert re.search(rf" IP {asked}\.30080 > {client}\.\d+: Flags \[S\.\]", last.text)
    assert f"{asked}.30080 > {client}" not in first.text


POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-a}
spec:
  podSelector: {matchLabels: {name: b}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {name: a}}}]}]
"""


def test_a_policy_asks_for_the_identity_that_the_tunnel_brings(lab: RunningLab, tmp_path: Path) -> None:
    lab.apply(POLICY, tmp_path)
    url = f"http://{ip(lab, 'b')}:8080/"
    assert '"pod": "b"' in lab.exec("a", "curl", "-s", "-m", "5", url)
    assert lab.exec("c", "curl", "-s", "-m", "1", url, ok=False) == ""
    asked = [flow["flow"] for flow in lab.json("flows", "worker2", "--table", "IngressPolicy")]
    assert any(f"Identity={identity(lab, 'a')} " in flow for flow in asked) and not any("nw_src" in f for f in asked)
    lab.ask("delete", "networkpolicy", "only-a")


def ask_through(lab: RunningLab, node: str) -> list[str]:
    """Which pod answers the client's ports, one after the other, if it sends its datagrams to this node."""
    lab.exec("client", "ip", "route", "replace", "192.0.2.10", "via", node_ip(lab, node))
    return lab.exec("client", "python3", "-c", ASK).split()


def test_every_node_sends_a_connection_to_the_same_endpoint_and_a_change_moves_few(
    lab: RunningLab, tmp_path: Path
) -> None:
    before = ask_through(lab, "worker")
    assert set(before) == set(PLACES) and len(before) == 40
    assert ask_through(lab, "control-plane") == before
    lab.ask("delete", "pod", "d")
    lab.eventually(lambda: len(next(s for s in lab.status()["services"] if s["name"] == "all")["endpoints"]) == 3)
    # worker2 has not seen these clients yet, so no memory of its own keeps them where they were.
    after = ask_through(lab, "worker2")
    moved = [(x, y) for x, y in zip(before, after, strict=True) if x != y]
    assert moved and {x for x, _ in moved} == {"d"} and "d" not in after

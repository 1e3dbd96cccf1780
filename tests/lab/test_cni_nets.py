"""What is particular to single CNIs, with real packets: what the fabric shows of a tunnel, what an encrypted one hides,
nodes that come and go, and parts of nodes that die.

tests/lab/cni asks of every CNI what all must do.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import ROOT, RunningLab, StartLab

from topo.system import has_device

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec: {{nodeName: {node}, containers: [{{name: c, image: x, ports: [{{containerPort: 8080}}]}}]}}
---
"""
PODS = POD.format(name="one", node="worker") + POD.format(name="two", node="worker2")
# 20 bytes that nothing else has.
SECRET = "6d696e696e65742d706c"
PLAIN = bytes.fromhex(SECRET)


def write(tmp_path: Path, cni: str, shape: str = "star") -> list[str]:
    """Arguments of `up` for three nodes with this CNI on a fabric of that shape."""
    lab, pods = tmp_path / "lab.yaml", tmp_path / "pods.yaml"
    text = f"kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nmininetes:\n  cni: {cni}\n  dns: false\n"
    lab.write_text(text + f"  fabric: {{shape: {shape}}}\n")
    pods.write_text(PODS)
    return [str(lab), str(pods)]


@pytest.fixture(scope="module")
def udp(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    """flannel's backend udp, with leases in an etcd if this machine has one."""
    store = "etcd" if shutil.which("etcd") else "embedded"
    return start_lab(*write(tmp_path_factory.mktemp("udp"), f"{{name: flannel, backend: udp, store: {store}}}"))


@pytest.fixture(scope="module")
def sealed(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    """calico with WireGuard."""
    if not has_device("wireguard") and shutil.which("wireguard-go") is None:
        pytest.skip("neither the kernel's WireGuard nor wireguard-go is here: make install")
    return start_lab(*write(tmp_path_factory.mktemp("wg"), "{name: calico, wireguard: true}"))


@pytest.fixture(scope="module")
def racks(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    """calico's IP in IP between two racks with subnets of their own: control-plane and worker2 in one, worker in the
    other."""
    arguments = write(tmp_path_factory.mktemp("racks"), "{name: calico, mode: crosssubnet}", "two-racks")
    near = Path(arguments[1])
    near.write_text(near.read_text() + POD.format(name="near", node="control-plane"))
    return start_lab(*arguments)


def address(lab: RunningLab, pod: str) -> str:
    return str(lab.pod(pod)["ip"])


def node(lab: RunningLab, name: str) -> str:
    return str(next(n["ip"] for n in lab.status()["nodes"] if n["name"] == name))


def reaches(lab: RunningLab, source: str, target: str) -> bool:
    """Whether an echo comes back."""
    return lab.ask("exec", source, "--", "ping", "-c1", "-W2", target, ok=False).returncode == 0


def frames(lab: RunningLab, link: str, source: str = "one", size: int = 200) -> bytes:
    """What crosses the link, as a capture file, while the pod sends echoes full of SECRET to pod `two`."""
    command = [sys.executable, "-m", "scenarios", "capture", "--lab", lab.name, link, "-w", "-"]
    capture = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert capture.stdout is not None and capture.stderr is not None
    try:
        # tcpdump's words, and without root dumpcap's.
        while not (line := capture.stderr.readline()).startswith((b"tcpdump: listening", b"File: ")):
            assert line, "the capture did not begin"
        said = lab.exec(source, "ping", "-c3", "-i0.2", "-W2", f"-s{size}", "-p", SECRET, address(lab, "two"))
        assert " 3 received" in said
        time.sleep(0.5)
    finally:
        capture.send_signal(signal.SIGINT)
        out, _ = capture.communicate(timeout=20)
    return out


def dissected(capture: bytes, *fields: str) -> list[list[str]]:
    """Fields of every frame as tshark reads them; a test that needs it is skipped where it is not installed."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    command = ["tshark", "-r", "-", "-T", "fields", *(word for field in fields for word in ("-e", field))]
    done = subprocess.run(command, input=capture, capture_output=True, check=True)
    return [line.split("\t") for line in done.stdout.decode().splitlines()]


def test_flannel_udp_wraps_whole_packets_in_datagrams_of_port_8285(udp: RunningLab) -> None:
    assert json.loads(udp.exec("worker", "ip", "-json", "link", "show", "flannel0"))[0]["mtu"] == 1472
    found = frames(udp, "worker--switch-1")
    assert PLAIN in found
    # IPv4 right after the UDP header: version 4, header of 5 words.
    wrapped = [row for row in dissected(found, "udp.dstport", "udp.length", "data.data") if row[0] == "8285"]
    assert len(wrapped) == 6 and all(int(row[1]) == 8 + 20 + 8 + 200 and row[2].startswith("45") for row in wrapped)


def test_calico_ipip_puts_one_header_before_what_leaves_the_subnet_alone_and_says_what_does_it(
    racks: RunningLab,
) -> None:
    assert json.loads(racks.exec("one", "ip", "-json", "link", "show", "eth0"))[0]["mtu"] == 1480
    fields = "ip.src", "ip.proto", "ip.len", "frame.protocols"
    found = frames(racks, "worker2--leaf-1")
    assert PLAIN in found
    outer = f"{node(racks, 'worker')},{address(racks, 'one')}"
    out = [row for row in dissected(found, *fields) if row[0] == outer]
    assert len(out) == 3
    assert all(row[1:3] == ["4,1", "248,228"] and row[3].startswith("eth:ethertype:ip:ip:icmp") for row in out)
    rows = dissected(frames(racks, "worker2--leaf-1", "near"), *fields)
    plain = [row for row in rows if row[0] == address(racks, "near")]
    assert len(plain) == 3 and all(row[1:3] == ["1", "228"] for row in plain)
    assert not any(row[1].startswith("4") for row in rows)
    said = [text for text in racks.status()["warnings"] if "ipip" in text]
    assert bool(said) != has_device("ipip")


def test_wireguard_shows_nothing_of_what_it_carries(sealed: RunningLab) -> None:
    assert reaches(sealed, "one", address(sealed, "two"))  # so that there is a session
    found = frames(sealed, "worker--switch-1")
    assert PLAIN not in found and PLAIN[:8] not in found
    addresses = [bytes(map(int, address(sealed, pod).split("."))) for pod in ("one", "two")]
    assert not any(one in found for one in addresses)
    rows = [row for row in dissected(found, "udp.dstport", "wg.type", "udp.length") if row[0] == "51820"]
    # Type 4 is transport data (WireGuard, "Protocol"): header 16, the packet padded to 16 bytes, tag 16.
    data = [row for row in rows if row[1] == "4" and int(row[2]) > 200]
    assert len(data) == 6 and {row[2] for row in data} == {str(8 + 16 + 240 + 16)}


def test_wireguard_keeps_a_node_out_that_has_no_key_of_the_lab(sealed: RunningLab) -> None:
    shown = sealed.exec("worker", "wg", "show", "wireguard.cali", "allowed-ips").split()
    assert {word for word in shown if word.startswith("10.")} == {"10.244.0.0/24", "10.244.2.0/24"}
    # A node that sends in the clear is not listened to, although it is a node.
    sealed.exec("control-plane", "ip", "route", "add", "10.244.2.0/24", "via", node(sealed, "worker2"), "metric", "1")
    try:
        assert reaches(sealed, "control-plane", address(sealed, "two"))
        sealed.exec("control-plane", "ip", "route", "del", "10.244.2.0/24", "dev", "wireguard.cali")
        assert not reaches(sealed, "control-plane", address(sealed, "two"))
    finally:
        sealed.exec("control-plane", "ip", "route", "del", "10.244.2.0/24", "via", node(sealed, "worker2"), ok=False)


DENY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody}
spec: {podSelector: {matchLabels: {app: two}}, policyTypes: [Ingress], ingress: []}
"""


def test_policies_judge_what_came_through_the_nodes_kernel(racks: RunningLab, tmp_path: Path) -> None:
    target = address(racks, "two")
    assert reaches(racks, "one", target) and reaches(racks, "worker2", target)
    racks.apply(DENY, tmp_path)
    assert not reaches(racks, "one", target) and reaches(racks, "worker2", target)
    racks.ask("delete", "networkpolicy", "nobody")
    racks.eventually(lambda: reaches(racks, "one", target))


def programs(lab: RunningLab, pattern: str) -> dict[int, str]:
    """Processes of the lab whose command line has this: number in the lab -> command line."""
    lines = lab.exec("client", "pgrep", "-af", pattern, ok=False).splitlines()
    return {int(number): command for number, _, command in (line.partition(" ") for line in lines)}


def kill(lab: RunningLab, number: int) -> None:
    """As a crash would."""
    lab.exec("client", "kill", "-9", str(number))


def test_an_agent_that_died_leaves_one_daemon_a_node_and_traffic_goes_on(udp: RunningLab) -> None:
    target = address(udp, "two")
    before = programs(udp, "tunnel.py flannel0")
    assert len(before) == 3
    (agent,) = programs(udp, "controllers.agent")
    kill(udp, agent)
    assert reaches(udp, "one", target)
    udp.eventually(lambda: programs(udp, "controllers.agent").keys() - {agent} != set(), 20)
    # The new agent works: a daemon that dies comes back, and nothing was started beside those that ran.
    assert programs(udp, "tunnel.py flannel0") == before
    victim = next(number for number, command in before.items() if f" {node(udp, 'worker2')} " in command)
    kill(udp, victim)
    udp.eventually(lambda: len(programs(udp, "tunnel.py flannel0").keys() - {victim}) == 3, 20)
    udp.eventually(lambda: reaches(udp, "one", target), 20)
    assert before.keys() - programs(udp, "tunnel.py flannel0").keys() == {victim}


def test_a_node_that_joins_and_leaves_is_known_to_every_daemon(udp: RunningLab, tmp_path: Path) -> None:
    udp.apply(LATE, tmp_path)
    target = address(udp, "three")
    assert reaches(udp, "one", target) and reaches(udp, "three", address(udp, "two"))
    assert "10.244.3.0/24" in udp.exec("worker", "ip", "route", "show", "dev", "flannel0")
    assert len(programs(udp, "tunnel.py flannel0")) == 4
    udp.ask("delete", "node", "late")
    udp.eventually(lambda: "10.244.3.0/24" not in udp.exec("worker", "ip", "route", "show", "dev", "flannel0"))
    udp.eventually(lambda: len(programs(udp, "tunnel.py flannel0")) == 3)


def test_routes_survive_the_death_of_a_nodes_switch(udp: RunningLab) -> None:
    udp.ask("switch", "restart", "worker")
    udp.eventually(lambda: reaches(udp, "one", address(udp, "two")), 20)
    assert reaches(udp, "worker", address(udp, "two"))


def leases(lab: RunningLab) -> dict[str, str]:
    """Every subnet in the lab's etcd, as a program on a node sees it."""
    if shutil.which("etcd") is None or shutil.which("etcdctl") is None:
        pytest.skip("etcd and etcdctl are not installed: make install")
    endpoint = f"--endpoints=http://{CLIENT}:2379"
    said = lab.exec("worker", "etcdctl", endpoint, "get", "--prefix", "/coreos.com/network/subnets/").splitlines()
    return {name.rpartition("/")[2]: value for name, value in zip(said[::2], said[1::2], strict=True)}


CLIENT = "172.18.0.1"
LATE = "apiVersion: v1\nkind: Node\nmetadata: {name: late}\n---\n" + POD.format(name="three", node="late")


def test_leases_in_etcd_follow_the_nodes_and_its_death_stops_no_traffic(udp: RunningLab, tmp_path: Path) -> None:
    expected = {f"10.244.{i}.0-24" for i in range(3)}
    udp.eventually(lambda: leases(udp).keys() == expected, 20)
    lease = {"PublicIP": node(udp, "worker2"), "PublicIPv6": None, "BackendType": "udp"}
    assert json.loads(leases(udp)["10.244.2.0-24"]) == lease
    said = udp.exec("client", "etcdctl", "get", "--print-value-only", "/coreos.com/network/config")
    backend = {"Type": "udp", "Port": 8285}
    assert json.loads(said) == {"Network": "10.244.0.0/16", "SubnetLen": 24, "Backend": backend}
    ((etcd, command),) = programs(udp, "^etcd --name").items()
    kill(udp, etcd)
    assert reaches(udp, "one", address(udp, "two"))
    # Nodes go on joining; that nobody keeps their leases is said.
    udp.apply(LATE, tmp_path)
    assert reaches(udp, "one", address(udp, "three"))
    udp.eventually(lambda: any("etcd at" in error for error in udp.status()["controller"]["errors"]), 20)
    udp.exec("client", "sh", "-c", f"{command} < /dev/null > /dev/null 2>&1 &")
    late = f"10.244.{int(address(udp, 'three').split('.')[2])}.0-24"
    udp.eventually(lambda: not udp.status()["controller"]["errors"] and late in leases(udp), 30)
    udp.ask("delete", "node", "late")
    udp.eventually(lambda: leases(udp).keys() == expected, 20)


@pytest.fixture(scope="module")
def docker(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    """docker, with Services by kube-proxy's own rules."""
    folder = tmp_path_factory.mktemp("docker")
    lab, pods = write(folder, "docker")
    text = Path(pods).read_text().replace("containerPort: 8080", "containerPort: 8080, hostPort: 18080", 1)
    Path(pods).write_text(text + POD.format(name="mate", node="worker") + SERVICE)
    return start_lab(lab, pods, "--proxy", "kernel-iptables")


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: mates}
spec: {selector: {app: mate}, ports: [{port: 80, targetPort: 8080}]}
"""


def answer(lab: RunningLab, source: str, url: str) -> dict[str, str]:
    """What the stand-in there says."""
    return dict(json.loads(lab.exec(source, "curl", "-s", "-m20", f"http://{url}")))


def answers(lab: RunningLab, source: str, url: str) -> bool:
    """Whether anybody does, soon."""
    return lab.ask("exec", source, "--", "curl", "-s", "-m2", f"http://{url}", ok=False).returncode == 0


def test_docker_knows_pods_of_one_node_and_no_way_to_another(docker: RunningLab) -> None:
    assert reaches(docker, "one", address(docker, "mate")) and reaches(docker, "worker", address(docker, "one"))
    for source in ("one", "worker", "client"):
        assert not reaches(docker, source, address(docker, "two"))
    assert "10.244.2." not in docker.exec("worker", "ip", "route")
    # What leaves has the node's address, and answers find their way back.
    assert reaches(docker, "one", "198.51.100.1") and reaches(docker, "two", node(docker, "worker"))


def test_docker_publishes_a_port_to_everybody_even_the_container_itself(docker: RunningLab) -> None:
    published = f"{node(docker, 'worker')}:18080"
    seen = {who: answer(docker, who, published) for who in ("client", "two", "mate", "one", "worker")}
    assert {one["pod"] for one in seen.values()} == {"one"}
    assert seen["client"]["client"] == "172.18.0.1" and seen["two"]["client"] == node(docker, "worker2")
    assert seen["mate"]["client"] == address(docker, "mate") and seen["one"]["client"] == "10.244.1.1"
    assert answer(docker, "worker", "127.0.0.1:18080")["pod"] == "one"
    # Only that port, and only by the node's address.
    assert not answers(docker, "client", f"{node(docker, 'worker')}:8080")


def test_services_reach_only_endpoints_of_the_pods_own_node(docker: RunningLab) -> None:
    assert answer(docker, "one", docker.service("mates"))["pod"] == "mate"
    assert not answers(docker, "two", docker.service("mates"))

"""What packets between pods, nodes and Services meet, on both CNIs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
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
metadata: {name: b, labels: {app: one, dns: served}}
spec:
  nodeName: worker
  containers:
  - {name: c, image: x, ports: [{containerPort: 8080, name: web}, {containerPort: 53, protocol: UDP, name: dns}]}
  - {name: second, image: x, ports: [{containerPort: 9090}]}
---
apiVersion: v1
kind: Pod
metadata: {name: c, labels: {app: one}}
spec: {nodeName: worker2, containers: [{name: c, image: x, ports: [{containerPort: 8088, name: web}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec: {nodeName: worker2, hostNetwork: true, containers: [{name: c, image: x, ports: [{containerPort: 7777}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: one}
  ports: [{name: http, port: 80, targetPort: web}]
---
apiVersion: v1
kind: Service
metadata: {name: dns}
spec:
  selector: {dns: served}
  ports: [{name: dns, port: 53, targetPort: dns, protocol: UDP}, {name: web, port: 53, targetPort: web}]
---
apiVersion: v1
kind: Service
metadata: {name: only-a}
spec: {ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: only-a, labels: {kubernetes.io/service-name: only-a}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [@A@]}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{name: t, port: 80}, {name: u, port: 53, protocol: UDP}]}
"""
CNIS = ("flannel", "calico")
MTU = {"flannel": 1450, "calico": 1500}
TRY = """
import socket, sys, time
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
sock.settimeout(3)
begun = time.monotonic()
try:
    sock.connect((address, port))
    sock.send(b"hello")
    print(sock.recv(2000).decode())
except OSError as error:
    print(type(error).__name__, time.monotonic() - begun)
"""


@pytest.fixture(scope="module", params=CNIS)
def lab(request: pytest.FixtureRequest, start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    file = tmp_path_factory.mktemp("lab") / "pods.yaml"
    # Pods of a node get its addresses in order; "a" is the first on worker.
    file.write_text(PODS.replace("@A@", "10.244.1.2"))
    lab = start_lab("--cni", request.param, str(file))
    lab.cni = request.param  # type: ignore[attr-defined]
    assert ip(lab, "a") == "10.244.1.2"
    return lab


def cni(lab: RunningLab) -> str:
    return str(lab.cni)  # type: ignore[attr-defined]


def ip(lab: RunningLab, pod: str) -> str:
    return str(next(p["ip"] for p in lab.status()["pods"] if p["name"] == pod))


def http(lab: RunningLab, client: str, url: str) -> dict[str, object]:
    return dict(json.loads(lab.exec(client, "curl", "-s", "-m", "3", f"http://{url}/")))


def attempt(lab: RunningLab, client: str, kind: str, address: str, port: int) -> str:
    return lab.exec(client, "python3", "-c", TRY, kind, address, str(port))


@pytest.mark.parametrize(
    ("server", "ttl"), [("b", {"flannel": 64, "calico": 63}), ("c", {"flannel": 62, "calico": 62})]
)
def test_pods_reach_each_other_and_each_node_on_the_way_takes_its_ttl(
    lab: RunningLab, server: str, ttl: dict[str, int]
) -> None:
    shown = lab.exec("a", "ping", "-c", "2", "-W", "2", ip(lab, server))
    assert "2 received" in shown and f"ttl={ttl[cni(lab)]} " in shown


@pytest.mark.parametrize("server", ["b", "c"])
def test_a_pod_sees_its_client_pod_as_it_is(lab: RunningLab, server: str) -> None:
    port = {"b": 8080, "c": 8088}[server]
    answer = http(lab, "a", f"{ip(lab, server)}:{port}")
    assert (answer["pod"], answer["client"]) == (server, ip(lab, "a"))


def test_all_containers_of_a_pod_answer_on_its_one_address_and_loopback(lab: RunningLab) -> None:
    assert http(lab, "a", f"{ip(lab, 'b')}:9090")["port"] == 9090
    assert http(lab, "b", "127.0.0.1:9090")["pod"] == "b"


def test_nodes_reach_pods_and_pods_reach_nodes(lab: RunningLab) -> None:
    for node in ("worker", "control-plane"):
        assert "1 received" in lab.exec(node, "ping", "-c", "1", "-W", "2", ip(lab, "a"))
    for node in lab.status()["nodes"]:
        assert "1 received" in lab.exec("a", "ping", "-c", "1", "-W", "2", node["ip"])


def test_a_pod_is_masqueraded_behind_its_node_towards_other_nodes(lab: RunningLab) -> None:
    nodes = {n["name"]: n["ip"] for n in lab.status()["nodes"]}
    answer = http(lab, "a", f"{nodes['worker2']}:7777")
    assert (answer["pod"], answer["client"]) == ("host", nodes["worker"])


def test_the_largest_packet_that_crosses_is_exactly_the_pods_mtu(lab: RunningLab) -> None:
    size = MTU[cni(lab)]
    assert f"mtu {size} " in lab.exec("a", "ip", "link", "show", "eth0")
    ping = ("ping", "-c", "1", "-W", "2", "-M", "do", "-s")
    assert "1 received" in lab.exec("a", *ping, str(size - 28), ip(lab, "c"))
    assert "1 received" not in lab.exec("a", *ping, str(size - 27), ip(lab, "c"), ok=False)


def test_the_fabric_carries_vxlan_for_flannel_and_plain_packets_for_calico(lab: RunningLab, tmp_path: Path) -> None:
    file = tmp_path / "fabric.pcap"
    capture = subprocess.Popen(
        [sys.executable, "-m", "scenarios", "capture", "--lab", lab.name, "worker--leaf-2", "-w", str(file)]
        + ["-c", "2", "--filter", "udp port 8472 or icmp"],
        cwd=ROOT,
    )
    lab.eventually(lambda: file.exists() and file.stat().st_size > 0)  # tcpdump writes its header once it listens
    lab.exec("a", "ping", "-c", "3", "-W", "2", ip(lab, "c"))
    assert capture.wait(timeout=10) == 0
    decode = ["-T", "vxlan"] if cni(lab) == "flannel" else []
    shown = subprocess.run(["tcpdump", "-nr", str(file), *decode], capture_output=True, text=True, check=True).stdout
    inner = f"{ip(lab, 'a')} > {ip(lab, 'c')}: ICMP echo request"
    assert inner in shown
    assert ("172.18.0.3" in shown and "vni 1" in shown) == (cni(lab) == "flannel"), shown


def test_a_packet_with_anothers_source_address_is_dropped_and_counted(lab: RunningLab) -> None:
    def spoofed() -> int:
        flows = lab.json("flows", "worker", "--table", "Drop")
        return int(next(f["packets"] for f in flows if "DropReason=Spoofed" in f["flow"]))

    before = spoofed()
    lab.exec("a", "ip", "address", "add", "10.244.9.9/32", "dev", "lo")
    lab.exec("a", "ping", "-c", "2", "-W", "1", "-I", "10.244.9.9", ip(lab, "c"), ok=False)
    assert spoofed() >= before + 2


def test_a_service_spreads_connections_evenly_over_named_ports_that_differ(lab: RunningLab) -> None:
    url, times = f"http://{lab.service('web')}/", 300
    script = f"for i in $(seq {times}); do curl -s -m 3 {url}; done"
    answers = [json.loads(line) for line in lab.exec("host", "sh", "-c", script).splitlines()]
    seen = Counter(a["pod"] for a in answers)
    assert sum(seen.values()) == times and set(seen) == {"a", "b", "c"}
    assert {a["port"] for a in answers} == {8080, 8088}
    expected = times / 3
    # Chi-square with two degrees of freedom exceeds 13.82 once in a thousand times by chance.
    assert sum((n - expected) ** 2 / expected for n in seen.values()) < 13.82, seen


def test_one_port_number_serves_udp_and_tcp_each_its_own_way(lab: RunningLab) -> None:
    answers = {kind: json.loads(attempt(lab, "a", kind, lab.service("dns"), 53)) for kind in ("udp", "tcp")}
    assert {kind: (answer["pod"], answer["port"]) for kind, answer in answers.items()} == {
        "udp": ("b", 53),
        "tcp": ("b", 8080),
    }


def test_a_pod_reaches_itself_through_its_service(lab: RunningLab) -> None:
    for _ in range(3):
        answer = http(lab, "a", lab.service("only-a"))
        assert (answer["pod"], answer["client"]) == ("a", "169.254.169.252")


def test_a_service_without_selector_serves_its_hand_made_endpoints(lab: RunningLab) -> None:
    assert http(lab, "c", lab.service("only-a"))["pod"] == "a"


@pytest.mark.parametrize(("kind", "port"), [("tcp", 80), ("udp", 53)])
def test_a_service_without_endpoints_is_rejected_at_once(lab: RunningLab, kind: str, port: int) -> None:
    for address in (lab.service("nobody"), "10.96.200.200"):
        error, seconds = attempt(lab, "a", kind, address, port).split()
        assert error == "ConnectionRefusedError" and float(seconds) < 0.5


def test_a_node_reaches_services_too(lab: RunningLab) -> None:
    assert http(lab, "control-plane", lab.service("only-a"))["pod"] == "a"


def test_readiness_moves_a_pod_out_of_its_service_and_back(lab: RunningLab, tmp_path: Path) -> None:
    lab.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: probed, labels: {app: probed}}
spec:
  containers:
  - name: c
    image: x
    ports: [{containerPort: 80}]
    readinessProbe: {httpGet: {port: 80}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Service
metadata: {name: probed}
spec: {selector: {app: probed}, ports: [{port: 80}]}
""",
        tmp_path,
    )
    assert http(lab, "a", lab.service("probed"))["pod"] == "probed"
    address = ip(lab, "probed")
    lab.exec("a", "curl", "-s", "-m", "2", "-X", "POST", f"http://{address}/unhealthy")
    lab.eventually(lambda: attempt(lab, "a", "tcp", lab.service("probed"), 80).startswith("ConnectionRefused"), 5)
    lab.exec("a", "curl", "-s", "-m", "2", "-X", "POST", f"http://{address}/healthy")
    lab.eventually(lambda: "probed" in attempt(lab, "a", "tcp", lab.service("probed"), 80), 5)


def test_every_bridge_holds_exactly_what_the_controller_wants(lab: RunningLab) -> None:
    for machine in [*(n["name"] for n in lab.status()["nodes"]), *lab.status()["fabric"]["switches"]]:
        flows = lab.json("flows", machine)
        assert flows and not [f for f in flows if f["owner"] == "not ours"]
        assert all(re.match(r"table=\w+, priority=\d+", f["flow"]) for f in flows)


CHURN = ROOT / "scenarios" / "measure" / "churn.py"
CLOSING = f"""
apiVersion: v1
kind: Pod
metadata: {{name: opening}}
spec: {{nodeName: worker, containers: [{{name: c, image: x}}]}}
---
apiVersion: v1
kind: Pod
metadata:
  name: closing
  labels: {{app: closing}}
  annotations: {{mininetes.dev/command: "sh -c 'sleep 600 | {sys.executable} {CHURN} server 0.0.0.0 7080'"}}
spec: {{nodeName: worker2, containers: [{{name: c, image: x}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: closing}}
spec: {{selector: {{app: closing}}, ports: [{{port: 7080}}]}}
"""


# Of one CNI, for it sleeps.
@pytest.mark.parametrize("lab", ["flannel"], indirect=True)
def test_ports_that_come_again_are_served_as_the_first_time(lab: RunningLab, tmp_path: Path) -> None:
    lab.apply(CLOSING, tmp_path)
    lab.exec("opening", "sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40099")
    command = ("opening", sys.executable, str(CHURN), "client", lab.service("closing"), "7080", "200", "0.5", "5")
    assert json.loads(lab.exec(*command))["errors"] == {}
    time.sleep(16)  # what closed is half forgotten by then
    again = json.loads(lab.exec(*command))
    assert again["errors"] == {} and again["ports"] <= 100

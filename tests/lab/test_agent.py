"""What a node does for Services beside flows, in a whole lab: health check ports, announcements, rules that come back.

Proxy mode userspace, so that the node has a process of the mode's own, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import ROOT, RunningLab, StartLab

HEALTH = 32100
OBJECTS = f"""
apiVersion: v1
kind: Pod
metadata: {{name: one, labels: {{app: web}}}}
spec: {{nodeName: worker, containers: [{{name: c, image: x, ports: [{{containerPort: 8080}}]}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: two, labels: {{app: web}}}}
spec: {{nodeName: worker2, containers: [{{name: c, image: x, ports: [{{containerPort: 8080}}]}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: asker}}
spec: {{nodeName: worker, containers: [{{name: c, image: x}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: local}}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: {HEALTH}
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: anywhere}}
spec: {{type: LoadBalancer, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080, nodePort: 30081}}]}}
"""
NODE_PORT = """
apiVersion: v1
kind: Service
metadata: {name: late}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30082}]}
"""
NODES = {"control-plane": "172.18.0.2", "worker": "172.18.0.3", "worker2": "172.18.0.4"}

# Who announces the address on this machine's link, as JSON lines: source MACs of ARP requests for the sender's own.
SNIFF = """
import json, socket, sys, time
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
sock.bind(("eth0", 0x0806))
sock.settimeout(float(sys.argv[2]))
print("ready", flush=True)
address = socket.inet_aton(sys.argv[1])
while True:
    frame = sock.recv(100)
    if frame[20:22] == b"\\0\\1" and frame[28:32] == frame[38:42] == address:
        print(frame[6:12].hex(":"), flush=True)
"""


@pytest.fixture(scope="module")
def lab(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    file = tmp_path_factory.mktemp("agent") / "objects.yaml"
    file.write_text(OBJECTS)
    return start_lab("--no-dns", "--proxy", "userspace", str(file))


def get(lab: RunningLab, machine: str, url: str) -> tuple[str, str]:
    """Status code and body; "000" if there was no answer."""
    out = lab.exec(machine, "curl", "-s", "-m", "2", "-w", "\n%{http_code}", url, ok=False)
    body, _, status = out.rpartition("\n")
    return status, body


def health(lab: RunningLab, node: str) -> tuple[str, int]:
    """Status code and number of local endpoints, as a load balancer outside sees them."""
    status, body = get(lab, "client", f"http://{NODES[node]}:{HEALTH}/healthz")
    return status, json.loads(body)["localEndpoints"] if body else -1


def balanced(lab: RunningLab, name: str) -> str:
    """A Service's LoadBalancer address."""
    return str(next(s["external"][0] for s in lab.status()["services"] if s["name"] == name))


def agent(lab: RunningLab) -> str:
    """The agent's pid, or nothing while there is none. The machine's programs see all the lab's processes."""
    return lab.exec("worker", "pgrep", "-f", "[-]m controllers[.]agent", ok=False).strip()


def served(lab: RunningLab, port: int = 30081) -> bool:
    """Whether the node's own program, a pod and a client outside reach a node port."""
    url = f"http://{NODES['worker']}:{port}/"
    return all(get(lab, machine, url)[0] == "200" for machine in ("worker", "asker", "client"))


def test_the_health_check_port_says_who_has_an_endpoint_and_follows_it(lab: RunningLab, tmp_path: Path) -> None:
    assert health(lab, "worker") == ("200", 1)
    assert health(lab, "worker2") == ("200", 1)
    assert health(lab, "control-plane") == ("503", 0)
    lab.ask("delete", "pod/two")
    lab.eventually(lambda: health(lab, "worker2") == ("503", 0))
    assert health(lab, "worker") == ("200", 1)
    lab.apply(OBJECTS, tmp_path)
    lab.eventually(lambda: health(lab, "worker2") == ("200", 1))


def test_a_killed_agent_comes_back_and_makes_all_right_again(lab: RunningLab, tmp_path: Path) -> None:
    lab.apply(NODE_PORT, tmp_path)
    assert served(lab) and served(lab, 30082)
    before = agent(lab)
    lab.exec("worker", "kill", "-9", before)
    lab.ask("delete", "service/late")  # as it is away, or not quite back
    lab.eventually(lambda: agent(lab) not in ("", before))
    lab.eventually(lambda: health(lab, "worker") == ("200", 1))
    lab.eventually(lambda: served(lab))
    assert "30082" not in lab.exec("worker", "nft", "list", "set", "ip", "mininetes", "nodeports")
    lab.apply(NODE_PORT, tmp_path)
    assert served(lab, 30082)
    assert lab.status()["controller"]["errors"] == []


def test_a_restarted_switch_leaves_node_ports_and_the_proxy_as_they_were(lab: RunningLab) -> None:
    lab.ask("switch", "restart", "worker")
    lab.eventually(lambda: served(lab), 5)
    cluster_ip = lab.service("anywhere")
    found = {json.loads(get(lab, "asker", f"http://{cluster_ip}/")[1])["pod"] for _ in range(4)}
    assert found == {"one", "two"}
    assert lab.status()["controller"]["errors"] == []


def test_a_restarted_controller_leaves_the_agent_alone(lab: RunningLab) -> None:
    before = agent(lab)
    lab.ask("controller", "restart")
    assert agent(lab) == before


def test_a_log_does_not_grow_for_ever(lab: RunningLab) -> None:
    log = "/run/mininetes/worker/chatter.log"
    lab.exec("worker", "sh", "-c", f"yes 'the same again' | head -n 100000 >> {log}")
    lab.eventually(lambda: int(lab.exec("worker", "stat", "-c", "%s", log)) < 600000)
    assert lab.exec("worker", "tail", "-n", "1", log) == "the same again\n"


def test_when_the_announcer_goes_another_announces_itself_on_the_fabric(lab: RunningLab) -> None:
    address = balanced(lab, "anywhere")
    assert get(lab, "client", f"http://{address}/")[0] == "200"
    macs = {f"0a:58:ac:12:00:0{n}": name for n, name in ((2, "control-plane"), (3, "worker"), (4, "worker2"))}
    mac = lab.exec("client", "ip", "neigh", "show", address).split("lladdr ")[1].split()[0]
    first = macs[mac]
    argv = [sys.executable, "-m", "scenarios", "exec", "--lab", lab.name, "client", "--", "python3", "-c", SNIFF]
    sniffer = subprocess.Popen([*argv, address, "10"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert sniffer.stdout is not None and sniffer.stdout.readline() == "ready\n"
        began = time.monotonic()
        lab.ask("switch", "stop", first)
        heard = [sniffer.stdout.readline().strip() for _ in range(2)]
        assert time.monotonic() - began < 8
        assert len(set(heard)) == 1 and macs[heard[0]] != first
        # The client's neighbour entry follows the announcement: it asks nobody, and is served.
        lab.eventually(lambda: get(lab, "client", f"http://{address}/")[0] == "200")
        lab.ask("switch", "start", first)
        while (back := sniffer.stdout.readline().strip()) != mac:
            assert back == heard[0]
    finally:
        sniffer.kill()
        sniffer.communicate()
    lab.eventually(lambda: get(lab, "client", f"http://{address}/")[0] == "200")

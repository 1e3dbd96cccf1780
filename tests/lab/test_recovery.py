"""What a lab makes good by itself: a pod whose namespaces were lost, connections by translations that went unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import RunningLab, StartLab

OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: dns}
spec: {selector: {app: dns}, ports: [{port: 53, targetPort: 5353, protocol: UDP}]}
---
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec: {nodeName: worker, containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec: {restartPolicy: Never, nodeName: worker, containers: [{name: c, image: x}]}
"""
SERVER = """
apiVersion: v1
kind: Pod
metadata: {{name: {0}, labels: {{app: dns}}}}
spec: {{nodeName: control-plane, containers: [{{name: c, image: x, ports: [{{containerPort: 5353, protocol: UDP}}]}}]}}
"""
# The pod is known to the kubelet before its node is there.
NODE = """
apiVersion: v1
kind: Pod
metadata: {name: early}
spec: {nodeName: late, containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Node
metadata: {name: late}
"""
ENDS = """
apiVersion: v1
kind: Pod
metadata: {name: ends}
spec: {restartPolicy: Never, nodeName: worker, containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
"""
# Always by the same port, so that it is one connection to conntrack; who answers.
ASK = """
import json, socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("", 40000))
    sock.settimeout(0.5)
    for attempt in range(4):
        sock.sendto(b"?", (sys.argv[1], 53))
        try:
            print(json.loads(sock.recv(2000))["pod"])
            break
        except OSError:
            pass
"""
# The process that holds this namespace open.
HOLDER = """
for p in /proc/[0-9]*; do
  [ "$(readlink $p/ns/net)" = "$(readlink /proc/self/ns/net)" ] && [ "$(cat $p/comm)" = sleep ] && kill -9 ${p#/proc/}
done; true
"""


@pytest.fixture(scope="module", params=["ovs", "kernel-iptables"])
def lab(request: pytest.FixtureRequest, start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    file = tmp_path_factory.mktemp("recovery") / "objects.yaml"
    file.write_text(f"{OBJECTS}---{SERVER.format('first')}")
    return start_lab("--no-dns", "--nodes", "2", "--proxy", request.param, str(file))


# What no proxy mode has to do with is tried with one.
ONE = pytest.mark.parametrize("lab", ["ovs"], indirect=True)


def agent(lab: RunningLab) -> str:
    return lab.exec("worker", "pgrep", "-f", "[-]m controllers[.]agent", ok=False).strip()


def test_datagrams_leave_an_endpoint_that_went_while_nobody_watched(lab: RunningLab, tmp_path: Path) -> None:
    address = lab.service("dns")
    assert lab.exec("asker", "python3", "-c", ASK, address).strip() == "first"
    # Whoever keeps the translation, the controller or the agent, sees nothing of the change.
    lab.ask("controller", "stop")
    before = agent(lab)
    lab.exec("worker", "kill", "-STOP", before)
    lab.ask("delete", "pod/first", "--grace-period", "0")
    lab.exec("worker", "kill", "-9", before)
    lab.ask("controller", "start")
    lab.eventually(lambda: agent(lab) not in ("", before))
    lab.apply(SERVER.format("second"), tmp_path)
    assert lab.exec("asker", "python3", "-c", ASK, address).strip() == "second"


@ONE
def test_a_pod_whose_namespaces_were_lost_is_made_anew(lab: RunningLab) -> None:
    before = lab.pod("asker")
    lab.exec("asker", "sh", "-c", HOLDER)
    lab.eventually(lambda: lab.pod("asker")["restarts"] == before["restarts"] + 1 and not lab.status()["waiting"])
    after = lab.pod("asker")
    assert after["ready"] and after["ip"] != before["ip"]
    assert '"pod": "asker"' in lab.exec("worker", "curl", "-s", "-m", "3", f"http://{after['ip']}:8080/")
    assert any("the pod is made anew" in note for note in lab.status()["notes"])
    assert lab.exec("worker", "sh", "-c", "ip -br link | grep -c ^veth").strip() == "2"


@ONE
def test_a_pod_that_is_not_to_be_restarted_has_failed_then(lab: RunningLab) -> None:
    lab.exec("once", "sh", "-c", HOLDER)
    lab.eventually(lambda: lab.pod("once")["phase"] == "Failed")
    lab.ask("delete", "pod/once")
    assert lab.exec("worker", "sh", "-c", "ip -br link | grep -c ^veth").strip() == "1"


@ONE
def test_after_a_node_has_joined_all_is_looked_after_until_it_leaves_with_its_programs(
    lab: RunningLab, tmp_path: Path
) -> None:
    lab.apply(NODE, tmp_path)
    assert lab.pod("early")["ready"]
    before = agent(lab)
    lab.exec("worker", "kill", "-9", before)
    lab.eventually(lambda: agent(lab) not in ("", before))
    lab.ask("switch", "stop", "late")
    ready = ["late", "worker"]
    lab.eventually(lambda: _unready(lab, ready) == ["late"])
    lab.ask("switch", "start", "late")
    lab.eventually(lambda: _unready(lab, ready) == [])
    lab.exec("late", "sh", "-c", "setsid sleep 4321 > /dev/null 2>&1 < /dev/null &")
    assert lab.exec("worker", "pgrep", "-f", "^sleep 4321")
    lab.ask("delete", "node", "late")
    assert not lab.exec("worker", "pgrep", "-f", "^sleep 4321", ok=False)
    assert lab.exec("worker", "sh", "-c", "ls /run/mininetes/late/cni 2>&1", ok=False).count("No such file") == 1


@ONE
def test_containers_whose_server_was_killed_are_restarted_as_their_pods_say(lab: RunningLab, tmp_path: Path) -> None:
    lab.apply(ENDS, tmp_path)
    before, asker = lab.pod("asker"), "http://" + lab.pod("asker")["ip"] + ":8080/"
    _kill_server(lab)
    # The first restart follows at once, in the same namespaces (Kubernetes, "Container restart policy").
    lab.eventually(lambda: lab.pod("asker")["restarts"] == before["restarts"] + 1 and lab.pod("asker")["ready"])
    assert lab.pod("asker")["ip"] == before["ip"]
    assert '"pod": "asker"' in lab.exec("worker", "curl", "-s", "-m", "3", asker)
    assert lab.pod("ends")["phase"] == "Failed"
    # The next waits, and pods that come and go meanwhile do not.
    _kill_server(lab)
    lab.eventually(lambda: not lab.pod("asker")["ready"])
    assert any("container c ended with status 137; it is restarted" in said for said in lab.status()["warnings"])
    lab.ask("delete", "pod/ends")
    (tmp_path / "third.yaml").write_text(SERVER.format("third"))
    lab.ask("apply", "-f", str(tmp_path / "third.yaml"))
    lab.eventually(lambda: lab.pod("third")["ready"])


def _kill_server(lab: RunningLab) -> None:
    lab.exec("worker", "kill", "-9", lab.exec("worker", "pgrep", "-f", "[-]m topo[.]standin").strip())


def _unready(lab: RunningLab, names: list[str]) -> list[str]:
    nodes = {n["name"]: n for n in lab.json("status")["nodes"]}
    return [name for name in names if not nodes[name]["ready"]]

"""10,000 Services of 10 endpoints in one node's switch, beside kube-proxy's iptables rules for the same in a kernel."""

from __future__ import annotations

import statistics
import subprocess
import time
from dataclasses import replace

from benchmarks.figure import Figure, in_capsule
from benchmarks.services import ENDPOINTS, change, service
from controllers.kernel import iptables
from controllers.state import ClusterState
from scenarios.lab import assemble, verbs
from scenarios.measure import suite
from scenarios.measure.place import Place
from topo import capsule, labfile, manifests
from topo.config import FabricConfig
from topo.lab import Lab

SERVICES, CHANGES, ROUNDS = 10_000, 20, 11
_ALL, _ONE, _RR, _BYTES = "all", "one", "TCP RR", "time per byte of TCP"
_ADDRESS = "10.96.1.1"
_OBJECTS = f"""
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec: {{containers: [{{name: idle, image: none}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: server, labels: {{app: server}}}}
spec: {{containers: [{{name: idle, image: none}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: measured}}
spec:
  clusterIP: {_ADDRESS}
  selector: {{app: server}}
  ports: [{{name: rr, port: {suite.Ports().rr}}}, {{name: iperf, port: {suite.Ports().iperf}}}]
"""


def figures() -> list[Figure]:
    """Both begin with Services that are there: the lab's part is its controller's start, state, compiling and sending,
    and the switch's own; the other the writing of rules that were made before."""
    restored = in_capsule(lambda: [Figure("", _restore(), "s")])[0].value
    found = {figure.name: figure.value for figure in in_capsule(_measure)}
    what = f"{SERVICES} Services x {ENDPOINTS} endpoints on one node"
    return [
        Figure(f"{what}: iptables-legacy-restore of kube-proxy's rules", restored, "s"),
        Figure(f"{what}: mode ovs, from the controller's start to the last barrier", found[_ALL], "s", restored / 2),
        Figure(
            f"{what}: mode ovs, one endpoint more or less, median of {CHANGES}", found[_ONE] * 1e3, "ms", restored * 10
        ),
        *(
            Figure(f"{name}, Service to pod itself, {n} Services", found[f"{name} {n}"], "", goal)
            for n in (1, SERVICES)
            for name, goal in ((_RR, 1.1), (_BYTES, 1 / 0.95))
        ),
    ]


def _restore() -> float:
    """Seconds that writing all rules into an empty namespace takes (the capsule's own); they are made before."""
    state = ClusterState()
    spec = {"pod_subnet": "10.244.0.0/16", "service_subnet": "10.96.0.0/16", "cni": "flannel", "fabric_mtu": 1500}
    state.apply("Lab", "ADDED", {"kind": "Lab", "metadata": {"name": "lab"}, "spec": spec | {"proxy_mode": "ovs"}})
    notes = {"mininetes.dev/mac": "0a:58:ac:12:00:02", "mininetes.dev/gateway-mac": "0a:58:0a:f4:00:01"}
    node = {"kind": "Node", "metadata": {"name": "node", "annotations": notes}, "spec": {"podCIDR": "10.244.0.0/24"}}
    node["status"] = {"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]}
    state.apply("Node", "ADDED", node)
    for number in range(SERVICES):
        for thing in service(number):
            state.apply(thing["kind"], "ADDED", thing)
    view = state.node_view("node")
    assert view is not None
    text = iptables.restore(iptables.rules(view), {}).encode()
    begun = time.monotonic()
    subprocess.run(["iptables-legacy-restore", "--noflush"], input=text, check=True)
    return time.monotonic() - begun


def _measure() -> list[Figure]:
    config = replace(labfile.default_config(1), fabric=FabricConfig(shape="star"))
    lab = Lab(config, assemble.parts(config, assemble.Choices()), capsule.RUN)
    lab.start()
    verbs.apply_objects(lab, manifests.load_text(_OBJECTS, "benchmark").objects)
    lab.wait_ready(30)
    client, server = (_place(lab, f"default/{name}") for name in ("client", "server"))
    found = _against_pod(client, server, 1)
    lab.controller.stop()
    for number in range(SERVICES):
        for thing in service(number):
            lab.store.create(thing)
    lab.agent.wait_synced([(name, "agent") for name in lab.nodes], lab.store.revision, 300)
    begun = time.monotonic()
    lab.controller.start()
    lab.confirm(300)
    found.append(Figure(_ALL, time.monotonic() - begun, "s"))
    changes = [change(lab, step, SERVICES // 2) for step in range(CHANGES)]
    found.append(Figure(_ONE, statistics.median(changes), "s"))
    return found + _against_pod(client, server, SERVICES)


def _place(lab: Lab, key: str) -> Place:
    sandbox = lab.kubelet.sandboxes[key]
    return Place(key, sandbox.pid, str(sandbox.ip))


def _against_pod(client: Place, server: Place, services: int) -> list[Figure]:
    """Latency and time per byte through the Service to those to the pod, in turn; the first round warms up."""
    latencies, times = [], []
    for _ in range(ROUNDS + 1):
        through, direct = (
            (
                statistics.median(suite.request_response(client, server, "tcp", seconds=0.5, address=to).values),
                1 / suite.iperf3(client, server, "tcp", address=to).values[0],
            )
            for to in (_ADDRESS, None)
        )
        latencies.append(through[0] / direct[0])
        times.append(through[1] / direct[1])
    return [
        Figure(f"{_RR} {services}", statistics.median(latencies[1:]), ""),
        Figure(f"{_BYTES} {services}", statistics.median(times[1:]), ""),
    ]

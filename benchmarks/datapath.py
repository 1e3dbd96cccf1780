"""The lab's pipeline against a minimal one written by hand: one conntrack pass, one forwarding table, same switches."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

from benchmarks.figure import Figure, in_capsule
from scenarios.lab import assemble, verbs
from scenarios.measure import suite
from scenarios.measure.place import Place
from topo import capsule, labfile
from topo.cluster.store import Object
from topo.config import FabricConfig
from topo.fabric import mac_of
from topo.lab import Lab
from topo.pods import Sandbox

ROUNDS = 5


def figures() -> list[Figure]:
    """Round-trip time and time per byte, as ratios to the minimal pipeline, on flannel."""
    return in_capsule(_measure)


def _pod(name: str, node: str) -> Object:
    meta = {"name": name, "namespace": "default"}
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "none"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _measure() -> list[Figure]:
    config = replace(labfile.default_config(2), fabric=FabricConfig(shape="star"))
    lab = Lab(config, assemble.parts(config, assemble.Choices()), capsule.RUN)
    lab.start()
    verbs.apply_objects(lab, [_pod("a", "control-plane"), _pod("b", "control-plane"), _pod("c", "worker")])
    lab.wait_ready(30)
    pods = lab.kubelet.sandboxes
    places = {name: Place(name, pods[f"default/{name}"].pid, str(pods[f"default/{name}"].ip)) for name in "abc"}
    ours: dict[str, list[float]] = {}
    minimal: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for into, install in ((ours, _ours), (minimal, _minimal)):
            install(lab)
            for path, server in (("same node", places["b"]), ("other node", places["c"])):
                for kind, value in _once(places["a"], server).items():
                    into.setdefault(f"{path}, {kind}", []).append(value)
    lab.controller.stop()
    return [
        Figure(
            f"{name}: ratio to a minimal pipeline, median of {ROUNDS}",
            statistics.median(one / two for one, two in zip(ours[name], minimal[name], strict=True)),
            "",
            1.1,
        )
        for name in ours
    ]


def _once(client: Place, server: Place) -> dict[str, float]:
    """Microseconds of a TCP request and response, and seconds a Gbit of a bulk transfer takes."""
    suite.request_response(client, server, "tcp", seconds=0.05)  # flows and neighbours are warm after this
    latency = statistics.median(suite.request_response(client, server, "tcp", seconds=0.5).values)
    (rate,) = suite.iperf3(client, server, "tcp").values
    return {"TCP RR": latency, "time per Gbit of TCP": 1e9 / rate}


def _ours(lab: Lab) -> None:
    """The controller's own flows; it removes none of others', so those go first."""
    for node in lab.nodes.values():
        node.machine.switch.ofctl("del-flows", "br-int")
    if lab.controller.process is not None:
        lab.controller.stop()
    lab.controller.start()
    lab.controller.wait_listening(len(lab.bridges()))
    lab.confirm()


def _minimal(lab: Lab) -> None:
    """One conntrack pass, one forwarding table, nothing else; pods keep the neighbours they know."""
    lab.controller.stop()
    time.sleep(0.1)
    for node in lab.nodes.values():
        flows = [
            "table=0,ip,actions=ct(table=1,zone=1)",
            "table=1,ip,ct_state=+trk+new,actions=ct(commit,zone=1),goto_table:2",
            "table=1,ip,ct_state=+trk+est,actions=goto_table:2",
        ]
        flows += [_deliver(s) for s in lab.kubelet.sandboxes.values() if s.node is node]
        for peer in lab.nodes.values():
            if peer is not node:
                rewrite = f"set_field:{node.gateway_mac}->eth_src,set_field:{peer.gateway_mac}->eth_dst,dec_ttl"
                tunnel = f"set_field:1->tun_id,set_field:{peer.ip}->tun_dst,output:1"
                flows.append(f"table=2,ip,nw_dst={peer.pod_cidr},actions={rewrite},{tunnel}")
        switch = node.machine.switch
        switch.ofctl("del-flows", "br-int")
        file = switch.run / "minimal"
        file.write_text("\n".join(flows) + "\n")
        switch.ofctl("add-flows", "br-int", str(file))


def _deliver(pod: Sandbox) -> str:
    rewrite = f"set_field:{pod.node.gateway_mac}->eth_src,set_field:{mac_of(pod.ip)}->eth_dst,dec_ttl"
    return f"table=2,ip,nw_dst={pod.ip},actions={rewrite},output:{pod.port}"

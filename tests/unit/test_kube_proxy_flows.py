"""kube-proxy's own table of packets and verdicts (tests/data/services) holds for every mode of flows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controllers import cni as cnis
from controllers import proxy as proxies
from controllers.compile import pod_bridge
from controllers.flow.fields import ip_number, ip_text, mac_number
from controllers.registry import discover
from controllers.simulate import Packet, Switch
from controllers.state import ClusterState, NodeView
from topo.cluster.wiring import GATEWAY_PORT, HAIRPIN_IP, NODEPORT_IP, REJECT_MAC, UPLINK_PORT

DATA = Path(__file__).parents[1] / "data" / "services" / "kube-proxy-flows.json"
SETUPS = json.loads(DATA.read_text())["tests"]
PROXIES = {
    name: p for name, p in discover(proxies, "PROXY").items() if p.attachment == "switch" and name != "userspace"
}
CALICO = discover(cnis, "CNI")["calico"]
NODE_IP, GATEWAY_IP = "192.168.0.2", "10.255.0.1"
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
# Cases that say something of the mode or of another set-up than ours; each with the reason.
ELSEWHERE = {
    "packet to unallocated cluster ip": "dropped by kube-proxy's nftables mode alone; here it is rejected, which a "
    "client sees at once",
    "external to nodePort on secondary IP": "a node has one address on the fabric",
    "same node to LB1, SNATted to LB1 (implicitly allowed)": "a cloud load balancer's quirk, says the source",
    "same node to LB2, SNATted to LB2 (implicitly allowed)": "a cloud load balancer's quirk, says the source",
}


def is_ours(flow: dict[str, Any]) -> bool:
    return ":" not in flow["src"] and flow["name"] not in ELSEWHERE


def cases() -> Iterator[Any]:
    for number, setup in enumerate(SETUPS):
        steps = [(setup["flows"], ())]
        if "then" in setup:
            steps.append((setup["then"]["flows"], tuple(setup["then"]["delete"])))
        for flows, deleted in steps:
            for flow in filter(is_ours, flows):
                yield pytest.param(number, deleted, flow, id=f"{number}-{flow['name']}")


def view_of(setup: dict[str, Any], deleted: tuple[str, ...], mode: str) -> NodeView:
    """The view of test-node: endpoints that are on it, and every pod that asks, are its pods; the rest is node2's."""
    config = setup.get("proxy_config", {})
    proxy_options = {k: v for k, v in config.items() if k == "masqueradeAll"}
    if config.get("detectLocalMode") == "none":
        proxy_options["detectLocal"] = False
    state = ClusterState()
    spec = {"pod_subnet": "10.0.0.0/7", "service_subnet": "172.30.0.0/16", "cni": "calico", "proxy_mode": mode}
    state.apply("Lab", "ADDED", _object("Lab", "lab", spec | {"fabric_mtu": 1500, "options": {"proxy": proxy_options}}))
    for name, ip, cidr in (("test-node", NODE_IP, "10.255.0.0/24"), ("node2", "192.168.0.3", "10.0.0.0/8")):
        notes = {"mininetes.dev/mac": "0a:58:c0:a8:00:02", "mininetes.dev/gateway-mac": "ee:ee:ee:ee:ee:ee"}
        node = _object("Node", name, {"podCIDR": cidr}, annotations=notes)
        state.apply("Node", "ADDED", node | {"status": {"addresses": [{"type": "InternalIP", "address": ip}]}})
    spec = {"address": "192.168.0.1", "mac": "0a:58:c0:a8:00:01"}
    state.apply("Outside", "ADDED", _object("Outside", "client", spec))
    local = {f["src"] for f in setup["flows"] if f["src"].startswith("10.")}
    for thing in setup["objects"]:
        meta = thing["metadata"]
        if f"{thing['kind']} {meta['namespace']}/{meta['name']}" in deleted:
            continue
        state.apply(thing["kind"], "ADDED", thing)
        if thing["kind"] == "EndpointSlice":
            local |= {e["addresses"][0] for e in thing["endpoints"] if e.get("nodeName") == "test-node"}
    for port, ip in enumerate(sorted(ip for ip in local if ":" not in ip), start=10):
        notes = {"mininetes.dev/mac": f"0a:58:0a:00:00:{port:02x}", "mininetes.dev/ofport": str(port)}
        pod = _object("Pod", f"pod-{port}", {"nodeName": "test-node"}, annotations=notes, namespace="default")
        state.apply("Pod", "ADDED", pod | {"status": {"podIP": ip}})
    view = state.node_view("test-node")
    assert view is not None
    return view


def _object(kind: str, name: str, spec: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, **meta}, "spec": spec}


def packet_of(view: NodeView, flow: dict[str, Any]) -> Packet:
    """The first packet as it enters br-int; the node's own kernel has sent those to its own address to NODEPORT_IP."""
    packet = {"dl_type": 0x800, "nw_ttl": 64, "nw_proto": PROTOCOLS[flow["protocol"]], "tp_src": 40000}
    packet |= {"nw_src": ip_number(flow["src"]), "nw_dst": ip_number(flow["dst"]), "tp_dst": flow["port"]}
    packet |= {"dl_src": 1, "dl_dst": view.node.gateway_mac}
    if flow["src"].startswith("10."):
        pod = next(p for p in view.pods if p.ip == packet["nw_src"])
        return packet | {"in_port": pod.port, "dl_src": pod.mac}
    if flow["src"] != NODE_IP:
        return packet | {"in_port": UPLINK_PORT}
    packet |= {"in_port": GATEWAY_PORT, "nw_src": view.node.gateway_ip}
    return packet | {"nw_dst": ip_number(NODEPORT_IP)} if flow["dst"] == NODE_IP else packet


@pytest.mark.parametrize("mode", PROXIES)
@pytest.mark.parametrize(("number", "deleted", "flow"), cases())
def test_verdict(mode: str, number: int, deleted: tuple[str, ...], flow: dict[str, Any]) -> None:
    view = view_of(SETUPS[number], deleted, mode)
    switch = Switch(pod_bridge(view, CALICO, PROXIES[mode]))
    reached, masqueraded = set(), set()
    for turn in range(len(flow.get("to", ())) or 1):
        packet = {**packet_of(view, flow), "tp_src": 40000 + turn}
        trace = switch.run(packet, lambda many, _, turn=turn: turn % many)  # type: ignore[misc]
        verdict = verdict_of(trace.outputs, packet)
        if flow["verdict"] != "DNAT":
            assert verdict == flow["verdict"], trace
            return
        ((_, sent),) = trace.outputs
        reached.add(f"{ip_text(sent['nw_dst'])}:{sent['tp_dst']}")
        masqueraded.add(ip_text(sent["nw_src"]) in (GATEWAY_IP, HAIRPIN_IP))
    assert reached == set(flow["to"])
    # The node's own packets bear an address of the node among its pods from the start.
    assert masqueraded == {flow["masquerade"] or flow["src"] == NODE_IP}


def verdict_of(outputs: list[tuple[int, Packet]], packet: Packet) -> str:
    """REJECT: handed to the kernel to be answered; NOT_A_SERVICE: goes on with its own destination."""
    if not outputs:
        return "DROP"
    ((port, sent),) = outputs
    if port == GATEWAY_PORT and sent["dl_src"] == mac_number(REJECT_MAC):
        return "REJECT"
    return "NOT_A_SERVICE" if sent["nw_dst"] == packet["nw_dst"] else "DNAT"


def test_no_case_is_left_out_without_a_reason() -> None:
    every = [flow for setup in SETUPS for flow in setup["flows"]]
    left_out = [flow for flow in every if not is_ours(flow)]
    assert {f["name"] for f in left_out if ":" not in f["src"]} == set(ELSEWHERE)
    # IPv6: Services have one family here.
    assert (len(every), len(left_out)) == (183, 12)

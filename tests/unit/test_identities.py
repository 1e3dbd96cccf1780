"""Security identities: equal labels are one number, whatever the order of events, and readers find them."""

from __future__ import annotations

import random

from views import OVS, A, B, C, cluster, cni_of

from controllers.compile import pod_bridge
from controllers.identities import FIRST, Identities, labels_of
from controllers.policy.model import NAME_LABEL, Pod
from controllers.simulate import Switch


def pod(name: str, ip: int = 1, namespace: str = "default", host_network: bool = False, **labels: str) -> Pod:
    return Pod(f"{namespace}/{name}", labels, ip, "node-1", (), host_network)


def namespace(name: str) -> dict[str, str]:
    return {NAME_LABEL: name}


def told(pods: list[Pod]) -> Identities:
    found = Identities()
    for one in pods:
        found.put(one, namespace(one.namespace))
    return found


def test_pods_of_equal_labels_share_an_identity_and_others_have_their_own() -> None:
    found = told([pod("a", app="x"), pod("b", app="x"), pod("c", app="y"), pod("d", namespace="other", app="x")])
    a, b, c, d = (found.of(key) for key in ("default/a", "default/b", "default/c", "other/d"))
    assert a == b and len({a, c, d}) == 3 and min(a, c, d) >= FIRST
    assert "k8s:app=x" in labels_of(pod("a", app="x"), namespace("default"))


def test_the_node_and_pods_without_an_address_have_none() -> None:
    found = told([pod("a", ip=0), pod("b", host_network=True)])
    assert (found.of("default/a"), found.of("default/b"), found.of("default/nobody")) == (0, 0, 0)


def test_the_order_and_history_of_pods_changes_nothing() -> None:
    pods = [pod(f"p{i}", app=f"app{i % 50}") for i in range(300)]
    expected = told(pods).table()
    assert len(expected) == 50
    mixed = told(random.Random(1).sample(pods, len(pods)))
    mixed.put(pod("p7", app="other"), namespace("default"))
    mixed.put(pod("gone", app="gone"), namespace("default"))
    mixed.take("default/gone")
    mixed.put(pods[7], namespace("default"))
    assert mixed.table() == expected


def test_a_pods_packets_bear_its_identity_in_the_tunnel_and_the_nodes_own_a_remote_nodes() -> None:
    view = cluster("cilium")["node-1"]
    switch = Switch(pod_bridge(view, cni_of(view), OVS))
    packet = {"dl_dst": view.node.gateway_mac, "dl_type": 0x800, "nw_dst": C.ip, "nw_proto": 6, "nw_ttl": 64}
    packet |= {"tp_src": 1000, "tp_dst": 80}
    for who in (A, B):
        [(port, sent)] = switch.run({**packet, "in_port": who.port, "dl_src": who.mac, "nw_src": who.ip}).outputs
        assert (port, sent["tun_id"]) == (1, view.identities[who.key])
    [(_, sent)] = switch.run({**packet, "in_port": 2, "dl_src": 1, "nw_src": view.node.gateway_ip}).outputs
    assert sent["tun_id"] == 6


def test_what_claims_in_a_tunnel_to_be_the_receiving_host_is_dropped() -> None:
    view = cluster("cilium")["node-1"]
    switch = Switch(pod_bridge(view, cni_of(view), OVS))
    packet = {"in_port": 1, "dl_src": 1, "dl_dst": view.node.gateway_mac, "dl_type": 0x800, "nw_src": C.ip}
    packet |= {"nw_dst": A.ip, "nw_proto": 6, "nw_ttl": 64, "tp_src": 1000, "tp_dst": 80}
    assert switch.run({**packet, "tun_id": 1010}).outputs
    trace = switch.run({**packet, "tun_id": 1})
    assert not trace.outputs and trace.steps[-1][0].match_text() == "DropReason=InvalidIdentity"

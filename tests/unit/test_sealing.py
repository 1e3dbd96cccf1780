"""Sealing what goes to other nodes: rules that only packets of the two devices heed, and flows on br-ex."""

from __future__ import annotations

import pytest
from views import cluster, cni_of, node

from controllers.cni.cilium_options import is_encrypted
from controllers.compile import uplink_bridge
from controllers.simulate import Packet, Switch
from controllers.state import NodeView
from controllers.transports.sealing import commands
from controllers.transports.wireguard import configuration
from topo.cluster.errors import InputError

MADE = """10:	from all iif seal0 lookup 400
11:	from all iif cilium_wg0 lookup 401
100:	from all lookup local
32766:	from all lookup main
"""
LOCAL, WIRE, PODS, SEAL = 0xFFFFFFFE, 1, 2, 3
SEAL_MAC = 0x0A5800000003


def test_the_local_table_is_asked_after_what_came_from_either_device_and_rules_are_made_once() -> None:
    first = commands("cilium_wg0", 1420, node(1), "0:	from all lookup local\n")
    assert first[-4:] == [
        "rule add pref 10 iif seal0 lookup 400",
        "rule add pref 11 iif cilium_wg0 lookup 401",
        "rule add pref 100 lookup local",
        "rule del pref 0",
    ]
    again = commands("cilium_wg0", 1420, node(1), MADE)
    assert again == first[:-4] and "link set cilium_wg0 mtu 1420 up" in again


def test_a_peers_own_address_is_behind_the_device_if_nodes_packets_are_sealed_too() -> None:
    pods = configuration(b"1" * 32, node(1), [node(2)], 51871)
    both = configuration(b"1" * 32, node(1), [node(2)], 51871, has_nodes=True)
    assert "AllowedIPs = 10.244.2.0/24\n" in pods and "AllowedIPs = 10.244.2.0/24, 172.18.0.3/32\n" in both


def switch(view: NodeView) -> Switch:
    return Switch(uplink_bridge(view, cni_of(view)))


def udp(view: NodeView, in_port: int, is_outward: bool, port: int) -> Packet:
    here, there = view.node.ip, view.peers[0].ip
    source, target = (here, there) if is_outward else (there, here)
    packet = {"in_port": in_port, "dl_src": 1, "dl_dst": 2, "dl_type": 0x800, "nw_src": source, "nw_dst": target}
    return packet | {"nw_proto": 17, "nw_ttl": 64, "tp_src": 1000, "tp_dst": port}


def test_a_tunnels_packets_go_out_sealed_and_come_in_opened_only() -> None:
    view = cluster("cilium", encryption="wireguard")["node-1"]
    here = switch(view)
    [(port, sent)] = here.run(udp(view, LOCAL, True, 8472)).outputs
    assert (port, sent["dl_dst"]) == (SEAL, SEAL_MAC)
    assert [p for p, _ in here.run(udp(view, LOCAL, True, 51871)).outputs] == [WIRE]
    assert [p for p, _ in here.run(udp(view, WIRE, False, 51871)).outputs] == [LOCAL]
    [(port, got)] = here.run(udp(view, SEAL, False, 8472)).outputs
    assert (port, got["dl_dst"]) == (LOCAL, view.node.mac)
    assert not here.run(udp(view, WIRE, False, 8472)).outputs


def test_pods_packets_go_out_sealed_and_come_in_opened_only() -> None:
    view = cluster("cilium", mode="native", encryption="wireguard")["node-1"]
    here, pod, other = switch(view), view.pods[0].ip, view.peers[0].gateway_ip + 1
    out = {**udp(view, PODS, True, 80), "nw_src": pod, "nw_dst": other}
    back = {**udp(view, SEAL, False, 80), "nw_src": other, "nw_dst": pod}
    assert [(p, sent["dl_dst"]) for p, sent in here.run(out).outputs] == [(SEAL, SEAL_MAC)]
    assert [p for p, _ in here.run(back).outputs] == [PODS]
    assert not here.run({**back, "in_port": WIRE}).outputs


def test_what_cannot_encrypt_here_is_refused_with_the_reason() -> None:
    assert not is_encrypted({}) and is_encrypted({"encryption": "wireguard"})
    with pytest.raises(InputError, match="ESP"):
        is_encrypted({"encryption": "ipsec"})
    with pytest.raises(InputError, match="expected wireguard"):
        is_encrypted({"encryption": "tls"})


def test_mtus_are_what_cilium_gives() -> None:
    cni = cni_of(cluster("cilium")["node-1"])
    sizes = {
        (mode, sealed): cni.plan(1500, {"mode": mode, **({"encryption": "wireguard"} if sealed else {})}).mtu
        for mode in ("vxlan", "native")
        for sealed in (False, True)
    }
    assert sizes == {("vxlan", False): 1450, ("vxlan", True): 1370, ("native", False): 1500, ("native", True): 1420}

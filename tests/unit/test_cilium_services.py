"""Cilium's way with Services: Maglev's fields, direct server return from one node to the other, and its options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from views import DATAGRAMS, NODE_PORT, A, C, cluster, cni_of, proxy_of, typed

from controllers.cni.cilium_options import LoadBalancer, load_balancer
from controllers.compile import pod_bridge
from controllers.flow import fields as f
from controllers.flow.fields import ip_number
from controllers.proxy.cilium import PROXY
from controllers.services import Endpoint
from controllers.simulate import Packet, Switch
from controllers.state import NodeView
from topo.cluster.errors import InputError

CLIENT, ROUTER = ip_number("172.18.0.1"), 0x0A58AC120001
FAR = Endpoint(C.ip, 8080, "node-2")
NEAR = Endpoint(A.ip, 8080, "node-1")
ELSEWHERE = Endpoint(ip_number("192.0.2.9"), 8080)


def view(name: str, *endpoints: Endpoint, **more: Any) -> NodeView:
    """A node of a lab with direct server return, where a Service has these endpoints."""
    made = cluster("cilium", mode="geneve", loadBalancer={"mode": "dsr"})[name]
    from controllers.state import Outside

    port = replace(typed(13, "web:80/tcp", 3, endpoints, node_port=30080), **more)
    outside = (Outside("client", CLIENT, ROUTER),)
    return replace(made, services={port.key: port}, outside=outside, lab=replace(made.lab, proxy_mode="cilium"))


def switch(of: NodeView) -> Switch:
    return Switch(pod_bridge(of, cni_of(of), proxy_of(of)))


def asks(source_port: int = 4000, flags: int = 2) -> Packet:
    """A client outside asks node-1's node port."""
    packet = {"in_port": 3, "dl_src": ROUTER, "dl_dst": 1, "dl_type": 0x800, "nw_src": CLIENT, "nw_proto": 6}
    return (
        packet
        | {"nw_dst": ip_number("172.18.0.2"), "nw_ttl": 64, "tp_src": source_port, "tp_dst": 30080}
        | {"tcp_flags": flags}
    )


def test_the_endpoints_node_answers_the_client_itself_with_the_address_that_was_asked() -> None:
    here, there = switch(view("node-1", FAR)), switch(view("node-2", FAR))
    [(port, sent)] = here.run(asks()).outputs
    assert (port, sent["tun_dst"], sent["tun_id"], sent["dl_dst"]) == (1, ip_number("172.18.0.3"), 2, C.mac)
    assert (sent["nw_src"], sent["nw_dst"], sent["tp_dst"]) == (CLIENT, ip_number("172.18.0.2"), 30080)
    [(port, got)] = there.run({**sent, "in_port": 1}).outputs
    assert (port, got["nw_src"], got["nw_dst"], got["tp_dst"]) == (C.port, CLIENT, C.ip, 8080)
    answer = {"in_port": C.port, "dl_src": C.mac, "dl_dst": 1, "dl_type": 0x800, "nw_src": C.ip, "nw_dst": CLIENT}
    answer |= {"nw_proto": 6, "nw_ttl": 64, "tp_src": 8080, "tp_dst": 4000, "tcp_flags": 0x12}
    [(port, back)] = there.run(answer).outputs
    assert (port, back["nw_src"], back["tp_src"], back["dl_dst"]) == (3, ip_number("172.18.0.2"), 30080, ROUTER)


def test_an_endpoint_of_the_node_that_was_asked_sees_the_client_too() -> None:
    [(port, got)] = switch(view("node-1", NEAR)).run(asks()).outputs
    assert (port, got["nw_src"], got["nw_dst"]) == (A.port, CLIENT, A.ip)


def test_an_endpoint_that_is_no_pod_sees_the_node_as_without_direct_return() -> None:
    [(_, got)] = switch(view("node-1", ELSEWHERE)).run(asks()).outputs
    assert got["nw_dst"] == ELSEWHERE.ip and got["nw_src"] != CLIENT


def test_a_connection_stays_with_its_endpoint_whatever_the_hash_says_next() -> None:
    there = switch(view("node-1", FAR, Endpoint(C.ip + 1, 8080, "node-2")))
    first = [there.run(asks(port), lambda many, packet: packet["tp_src"] % many) for port in (4000, 4001)]
    later = [there.run(asks(port, 0x10), lambda many, packet: 0) for port in (4000, 4001)]
    assert [x.outputs[0][1]["dl_dst"] for x in later] == [x.outputs[0][1]["dl_dst"] for x in first]
    assert len({x.outputs[0][1]["dl_dst"] for x in first}) == 2


def test_policy_local_and_cluster_ips_are_as_with_any_other_mode() -> None:
    local = view("node-1", NEAR, FAR, external_local=True)
    assert not [k for k in (fragment.key for fragment in PROXY.fragments(local)) if k.startswith("dsr")]


@pytest.mark.parametrize(
    ("port", "fields"),
    [
        (NODE_PORT, (f.IP_SRC, f.IP_DST, f.IP_PROTO, f.TCP_SRC, f.TCP_DST)),
        (DATAGRAMS, (f.IP_SRC, f.IP_DST, f.IP_PROTO, f.UDP_SRC, f.UDP_DST)),
        (replace(NODE_PORT, affinity=60), (f.IP_SRC,)),
    ],
)
def test_maglev_hashes_the_connection_or_the_client_of_a_service_with_affinity(
    port: Any, fields: tuple[f.Field, ...]
) -> None:
    assert PROXY.hashed(port) == fields


def test_options_are_in_ciliums_words() -> None:
    assert load_balancer({}, "vxlan") == LoadBalancer("maglev", False)
    chosen = {"loadBalancer": {"algorithm": "random", "mode": "dsr", "dsrDispatch": "geneve"}}
    assert load_balancer(chosen, "native") == LoadBalancer("random", True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("dsr", "mapping"),
        ({"mode": "hybrid"}, "snat or dsr"),
        ({"acceleration": "native"}, "no such option"),
        ({"dsrDispatch": "opt"}, "geneve"),
        ({"mode": "dsr"}, "no VXLAN"),
    ],
)
def test_options_that_there_are_not_are_refused(given: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_balancer({"loadBalancer": given}, "vxlan")


def test_direct_return_over_native_routes_leaves_room_for_geneve() -> None:
    cni = cni_of(cluster("cilium")["node-1"])
    plan = cni.plan(1500, {"mode": "native", "loadBalancer": {"mode": "dsr"}})
    assert plan.mtu == 1450 and plan.tunnel is not None and plan.tunnel.type == "geneve"
    assert cni.plan(1500, {"mode": "native"}).tunnel is None

"""What the compiled programs of nodes do to packets, through the simulator: pods, gateway, ARP and Services."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
from views import OVS, A, B, C, D, cluster, cni_of, service, without

from controllers.compile import pod_bridge, uplink_bridge
from controllers.features.base import HAIRPIN_IP, ROUTER_MAC
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import (
    LOCAL,
    Copy,
    Output,
)
from controllers.flow.fields import ip_number, mac_number
from controllers.flow.program import Writer, match
from controllers.simulate import Packet, Switch, Trace
from controllers.state import NodeView, Pod
from topo.cluster.wiring import GATEWAY_PORT, PATCH_PORT, TUNNEL_PORT, UPLINK_PORT, WIRE_PORT

BROADCAST = 0xFFFFFFFFFFFF
TCP, UDP, ICMP = 6, 17, 1
PORTS = {TUNNEL_PORT: "tunnel", UPLINK_PORT: "uplink", GATEWAY_PORT: "gateway"}
both_cnis = pytest.mark.parametrize("cni", ["flannel", "calico"])


class End(NamedTuple):
    """Where a packet left the pod network, and as what."""

    node: str
    port: int
    packet: Packet


class Net:
    """Two nodes whose switches are joined as the lab joins them."""

    def __init__(self, cni: str) -> None:
        self.views = cluster(cni)
        self.ints = {n: Switch(pod_bridge(v, cni_of(v), OVS)) for n, v in self.views.items()}
        self.exes = {n: Switch(uplink_bridge(v, cni_of(v))) for n, v in self.views.items()}

    def reload(self, node: str, view: NodeView) -> None:
        self.ints[node].load(pod_bridge(view, cni_of(view), OVS))

    def send(self, node: str, packet: Packet, bucket: int = 0) -> End:
        """The one packet that comes out at the end; node: whose pod bridge it enters."""
        (port, out), *rest = self.ints[node].run(packet, lambda *_: bucket).outputs
        assert not rest
        if port == TUNNEL_PORT:
            there = next(n for n, v in self.views.items() if v.node.ip == out["tun_dst"])
            return self.send(there, {**out, "in_port": TUNNEL_PORT})
        if port == UPLINK_PORT:
            ((port, out),) = self.exes[node].run({**out, "in_port": PATCH_PORT}).outputs
            assert port == WIRE_PORT
            there = next(n for n, v in self.views.items() if v.node.mac == out["dl_dst"])
            ((port, out),) = self.exes[there].run({**out, "in_port": WIRE_PORT}).outputs
            assert port == PATCH_PORT
            return self.send(there, {**out, "in_port": UPLINK_PORT})
        return End(node, port, out)

    def home(self, pod: Pod) -> tuple[str, int]:
        return next((n, v.node.gateway_mac) for n, v in self.views.items() if pod in v.pods)

    def from_pod(self, pod: Pod, to: str | int, port: int, proto: int = TCP, **changed: int) -> dict[str, int]:
        """A packet as the pod's stack sends it by its default route."""
        to = ip_number(to) if isinstance(to, str) else to
        sent = {"in_port": pod.port, "dl_src": pod.mac, "dl_dst": self.home(pod)[1], "nw_src": pod.ip, "nw_dst": to}
        kind = {"icmp_type": 8, "icmp_id": port} if proto == ICMP else {"tp_src": 40000, "tp_dst": port}
        return {**sent, "dl_type": 0x800, "nw_proto": proto, "nw_ttl": 64, **kind, **changed}

    def answer(self, end: End, pod: Pod) -> End:
        """Send what the pod answers to the packet that reached it."""
        assert (end.node, end.port, end.packet["dl_dst"]) == (self.home(pod)[0], pod.port, pod.mac)
        packet = dict(end.packet, dl_src=pod.mac, dl_dst=self.home(pod)[1], nw_ttl=64, in_port=pod.port)
        for one, two in (("nw_src", "nw_dst"), ("tp_src", "tp_dst")):
            packet[one], packet[two] = end.packet[two], end.packet[one]
        return self.send(end.node, packet)


def told(trace: Trace) -> str:
    """The reason for which the packet was dropped, and nothing came out."""
    assert not trace.outputs
    (reason,) = trace.drops
    return reason


def ends(packet: Packet) -> tuple[str, int, str, int]:
    """Source and destination as a person writes them."""
    return f.ip_text(packet["nw_src"]), packet["tp_src"], f.ip_text(packet["nw_dst"]), packet["tp_dst"]


def test_flannel_pod_reaches_a_pod_of_its_node_on_their_link_without_losing_ttl() -> None:
    net = Net("flannel")
    end = net.send("node-1", net.from_pod(A, B.ip, 80, dl_dst=B.mac))
    assert (end.node, end.port, end.packet["dl_src"], end.packet["nw_ttl"]) == ("node-1", B.port, A.mac, 64)


def test_calico_pod_reaches_a_pod_of_its_node_through_the_router_which_decrements_ttl_once() -> None:
    net = Net("calico")
    end = net.send("node-1", net.from_pod(A, B.ip, 80))
    assert (end.node, end.port, end.packet["dl_dst"], end.packet["nw_ttl"]) == ("node-1", B.port, B.mac, 63)
    assert end.packet["dl_src"] == mac_number("ee:ee:ee:ee:ee:ee")


def test_flannel_sends_to_another_node_through_its_tunnel() -> None:
    net = Net("flannel")
    peer = net.views["node-2"].node
    ((port, out),) = net.ints["node-1"].run(net.from_pod(A, C.ip, 80)).outputs
    assert (port, out["tun_dst"], out["tun_id"]) == (TUNNEL_PORT, peer.ip, 1)
    assert (out["dl_dst"], out["nw_ttl"]) == (peer.gateway_mac, 63)


def test_calico_sends_to_another_node_as_it_is_to_the_next_hops_mac() -> None:
    net = Net("calico")
    ((port, out),) = net.ints["node-1"].run(net.from_pod(A, C.ip, 80)).outputs
    assert (port, out["dl_src"], out["dl_dst"]) == (
        UPLINK_PORT,
        net.views["node-1"].node.mac,
        net.views["node-2"].node.mac,
    )
    assert out["nw_ttl"] == 63
    assert not {"tun_dst", "tun_id"} & out.keys()


@both_cnis
@pytest.mark.parametrize("proto", [TCP, UDP])
@pytest.mark.parametrize("to", [B, C], ids=["same node", "other node"])
def test_pods_talk_both_ways_with_their_own_addresses(cni: str, proto: int, to: Pod) -> None:
    net = Net(cni)
    for _ in range(2):  # a new connection, and an established one
        there = net.send("node-1", net.from_pod(A, to.ip, 80, proto))
        assert ends(there.packet) == (f.ip_text(A.ip), 40000, f.ip_text(to.ip), 80)
        back = net.answer(there, to)
        assert (back.node, back.port, back.packet["dl_dst"]) == ("node-1", A.port, A.mac)
        assert ends(back.packet) == (f.ip_text(to.ip), 80, f.ip_text(A.ip), 40000)


@both_cnis
def test_ping_crosses_nodes_and_loses_ttl_at_each(cni: str) -> None:
    net = Net(cni)
    there = net.send("node-1", net.from_pod(A, C.ip, 7, ICMP))
    assert (there.node, there.port, there.packet["nw_ttl"]) == ("node-2", C.port, 62)
    back = net.send("node-2", net.from_pod(C, A.ip, 7, ICMP, icmp_type=0))
    assert (back.node, back.port, back.packet["nw_ttl"]) == ("node-1", A.port, 62)


@both_cnis
@pytest.mark.parametrize("to", ["10.244.1.1", "172.18.0.2", "172.18.0.3", "8.8.8.8"])
def test_pod_to_its_node_another_node_or_the_world_goes_to_the_gateway(cni: str, to: str) -> None:
    net = Net(cni)
    end = net.send("node-1", net.from_pod(A, to, 80))
    assert (end.node, end.port) == ("node-1", GATEWAY_PORT)
    assert end.packet["dl_dst"] == net.views["node-1"].node.gateway_mac


@both_cnis
def test_gateway_to_pod_keeps_the_ttl_that_the_kernel_left(cni: str) -> None:
    net = Net(cni)
    own = net.views["node-1"].node
    packet = net.from_pod(A, A.ip, 80, in_port=GATEWAY_PORT, dl_src=own.gateway_mac, nw_src=own.gateway_ip)
    end = net.send("node-1", packet)
    assert (end.node, end.port, end.packet["dl_dst"], end.packet["nw_ttl"]) == ("node-1", A.port, A.mac, 64)
    back = net.answer(end, A)
    assert (back.port, back.packet["dl_dst"]) == (GATEWAY_PORT, own.gateway_mac)


@both_cnis
@pytest.mark.parametrize("lie", [{"dl_src": B.mac}, {"nw_src": B.ip}, {"nw_src": C.ip}, {"in_port": B.port}])
def test_pod_with_a_forged_sender_is_dropped_as_spoofed(cni: str, lie: dict[str, int]) -> None:
    net = Net(cni)
    assert told(net.ints["node-1"].run(net.from_pod(A, C.ip, 80, **lie))) == "Drop: DropReason=Spoofed"


def arp(pod: Pod, target: str | int, **changed: int) -> dict[str, int]:
    """An ARP request as the pod's stack sends it."""
    target = ip_number(target) if isinstance(target, str) else target
    ethernet = {"in_port": pod.port, "dl_src": pod.mac, "dl_dst": BROADCAST, "dl_type": 0x806}
    return {**ethernet, "arp_op": 1, "arp_spa": pod.ip, "arp_sha": pod.mac, "arp_tpa": target, "arp_tha": 0, **changed}


def assert_answered(request: Packet, trace: Trace, mac: int) -> None:
    reply = {"dl_src": mac, "dl_dst": request["dl_src"], "dl_type": 0x806, "arp_op": 2, "arp_sha": mac}
    reply |= {"arp_spa": request["arp_tpa"], "arp_tha": request["arp_sha"], "arp_tpa": request["arp_spa"]}
    assert trace.outputs == [(request["in_port"], reply)]


@pytest.mark.parametrize(
    ("cni", "target", "mac"),
    [
        ("flannel", "10.244.1.1", "0a:58:0a:f4:01:01"),
        ("flannel", "10.244.1.3", "0a:58:0a:f4:01:03"),
        ("calico", "169.254.1.1", "ee:ee:ee:ee:ee:ee"),
    ],
)
def test_arp_of_a_pod_is_answered(cni: str, target: str, mac: str) -> None:
    request = arp(A, target)
    assert_answered(request, Net(cni).ints["node-1"].run(request), mac_number(mac))


@both_cnis
@pytest.mark.parametrize("target", ["10.244.1.2", "10.96.0.1"])
def test_arp_of_the_gateway_is_answered_whatever_it_asks(cni: str, target: str) -> None:
    net = Net(cni)
    own = net.views["node-1"].node
    request = arp(A, target, in_port=GATEWAY_PORT, dl_src=own.gateway_mac, arp_sha=own.gateway_mac)
    assert_answered(request, net.ints["node-1"].run(request), ROUTER_MAC)


@both_cnis
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"arp_tpa": ip_number("10.244.2.2")}, "UnknownARP"),
        ({"arp_op": 2}, "UnknownARP"),
        ({"arp_spa": B.ip}, "Spoofed"),
        ({"arp_sha": B.mac}, "Spoofed"),
        ({"dl_src": B.mac}, "Spoofed"),
        ({"in_port": TUNNEL_PORT}, "UnknownARP"),
    ],
)
def test_other_arp_is_dropped(cni: str, changed: dict[str, int], reason: str) -> None:
    trace = Net(cni).ints["node-1"].run(arp(A, "10.244.1.1", **changed))
    assert told(trace) == f"Drop: DropReason={reason}"


@both_cnis
@pytest.mark.parametrize(
    ("bucket", "proto", "address", "port", "endpoint", "number"),
    [
        (0, TCP, "10.96.0.10", 80, B, 8080),
        (1, TCP, "10.96.0.10", 80, C, 8080),
        (2, TCP, "10.96.0.10", 80, D, 8080),
        (0, TCP, "10.96.0.10", 443, C, 8443),
        (0, UDP, "10.96.0.20", 53, B, 5353),
        (1, UDP, "10.96.0.20", 53, C, 5353),
    ],
)
def test_service_connection_stays_with_the_endpoint_that_was_chosen_and_never_sees_its_address(
    cni: str, bucket: int, proto: int, address: str, port: int, endpoint: Pod, number: int
) -> None:
    net = Net(cni)
    packet = net.from_pod(A, address, port, proto)
    first, again = net.send("node-1", packet, bucket), net.send("node-1", packet, 0 if bucket else -1)
    for end in (first, again, net.send("node-1", packet, -1)):
        assert (end.node, end.port) == (net.home(endpoint)[0], endpoint.port)
        assert ends(end.packet) == (f.ip_text(A.ip), 40000, f.ip_text(endpoint.ip), number)
        back = net.answer(end, endpoint)
        assert (back.node, back.port) == ("node-1", A.port)
        assert ends(back.packet) == (address, port, f.ip_text(A.ip), 40000)


@both_cnis
@pytest.mark.parametrize(("bucket", "endpoint"), [(0, B), (1, C)])
def test_node_reaches_a_service_by_its_gateway(cni: str, bucket: int, endpoint: Pod) -> None:
    net = Net(cni)
    own = net.views["node-1"].node
    sent = {"in_port": GATEWAY_PORT, "dl_src": own.gateway_mac, "dl_dst": ROUTER_MAC, "nw_src": own.gateway_ip}
    end = net.send("node-1", net.from_pod(A, "10.96.0.10", 80, **sent), bucket)
    assert ends(end.packet) == ("10.244.1.1", 40000, f.ip_text(endpoint.ip), 8080)
    back = net.answer(end, endpoint)
    assert (back.node, back.port, back.packet["dl_dst"]) == ("node-1", GATEWAY_PORT, own.gateway_mac)
    assert ends(back.packet) == ("10.96.0.10", 80, "10.244.1.1", 40000)


@both_cnis
def test_nodes_own_connection_that_its_kernel_must_reject_returns_to_it(cni: str) -> None:
    net = Net(cni)
    view, port = net.views["node-1"], service(9, "host:80/tcp", "tcp", "10.96.0.50", 80)
    net.reload("node-1", replace(view, services={port.key: port}))
    sent = {"in_port": GATEWAY_PORT, "dl_src": view.node.gateway_mac, "nw_src": view.node.gateway_ip}
    trace = net.ints["node-1"].run(net.from_pod(A, "10.96.0.50", 80, **sent))
    assert [port for port, _ in trace.outputs] == [GATEWAY_PORT], trace.drops


@both_cnis
def test_new_connection_may_go_to_another_endpoint(cni: str) -> None:
    net = Net(cni)
    one = net.send("node-1", net.from_pod(A, "10.96.0.10", 80), 0)
    two = net.send("node-1", net.from_pod(A, "10.96.0.10", 80, tp_src=40001), 1)
    assert (one.packet["nw_dst"], two.packet["nw_dst"]) == (B.ip, C.ip)


@both_cnis
def test_connection_outlives_its_endpoint_in_the_service_but_no_new_one_goes_there(cni: str) -> None:
    net = Net(cni)
    packet = net.from_pod(A, "10.96.0.10", 80)
    net.answer(net.send("node-1", packet, 1), C)
    net.reload("node-1", without(net.views["node-1"], "default/web:http/tcp", "10.244.2.2:8080"))
    end = net.send("node-1", packet, 0)
    assert (end.node, end.port) == ("node-2", C.port)
    assert ends(net.answer(end, C).packet) == ("10.96.0.10", 80, f.ip_text(A.ip), 40000)
    reached = {net.send("node-1", net.from_pod(A, "10.96.0.10", 80, tp_src=50000 + i), i).port for i in range(2)}
    assert reached == {B.port, D.port}


@both_cnis
@pytest.mark.parametrize("answers_first", [True, False])
def test_pod_that_reaches_itself_through_a_service_sees_another_client(cni: str, answers_first: bool) -> None:
    net = Net(cni)
    packet = net.from_pod(A, "10.96.0.40", 80)
    there = net.send("node-1", packet)
    for again in range(3):
        assert ends(there.packet) == (HAIRPIN_IP, 40000, f.ip_text(A.ip), 8080)
        if answers_first or again:
            back = net.answer(there, A)
            assert (back.node, back.port, back.packet["dl_dst"]) == ("node-1", A.port, A.mac)
            assert ends(back.packet) == ("10.96.0.40", 80, f.ip_text(A.ip), 40000)
        there = net.send("node-1", packet)


@both_cnis
@pytest.mark.parametrize(
    ("address", "port", "proto"),
    [("10.96.0.30", 80, TCP), ("10.96.0.10", 81, TCP), ("10.96.0.10", 80, UDP), ("10.96.99.99", 53, UDP)],
)
def test_service_without_endpoint_port_or_owner_is_left_to_the_kernel_to_reject(
    cni: str, address: str, port: int, proto: int
) -> None:
    net = Net(cni)
    trace = net.ints["node-1"].run(net.from_pod(A, address, port, proto))
    ((out, packet),) = trace.outputs
    assert trace.steps[-1][0].table is t.REJECT
    assert (out, packet["dl_dst"], packet["nw_ttl"]) == (GATEWAY_PORT, net.views["node-1"].node.gateway_mac, 64)
    assert ends(packet) == (f.ip_text(A.ip), 40000, address, port)
    assert not net.ints["node-1"].connections


@both_cnis
def test_tcp_reset_that_the_kernel_sends_for_a_service_reaches_the_pod(cni: str) -> None:
    net = Net(cni)
    gateway = net.views["node-1"].node.gateway_mac
    reset = net.from_pod(A, A.ip, 40000, in_port=GATEWAY_PORT, dl_src=gateway, dl_dst=ROUTER_MAC, tp_src=80)
    end = net.send("node-1", {**reset, "nw_src": ip_number("10.96.0.30"), "tcp_flags": 0x14})
    assert (end.port, end.packet["dl_dst"]) == (A.port, A.mac)
    assert ends(end.packet) == ("10.96.0.30", 80, f.ip_text(A.ip), 40000)


@both_cnis
def test_icmp_error_that_the_kernel_sends_for_a_udp_service_reaches_the_pod(cni: str) -> None:
    net = Net(cni)
    own = net.views["node-1"].node
    # The kernel answers from the gateway's address, not from the Service's.
    error = net.from_pod(A, A.ip, 0, ICMP, in_port=GATEWAY_PORT, dl_src=own.gateway_mac, dl_dst=ROUTER_MAC, icmp_type=3)
    trace = net.ints["node-1"].run({**error, "nw_src": own.gateway_ip})
    assert [(port, out["dl_dst"]) for port, out in trace.outputs] == [(A.port, A.mac)]


@both_cnis
@pytest.mark.parametrize("to", ["10.244.1.99", "10.244.3.2", "10.244.200.1"])
def test_pod_address_of_no_pod_of_no_ready_node_or_of_no_node_has_no_route(cni: str, to: str) -> None:
    net = Net(cni)
    assert told(net.ints["node-1"].run(net.from_pod(A, to, 80))) == "Drop: DropReason=NoRoute"


@both_cnis
@pytest.mark.parametrize("answer", [{"tcp_flags": 0x12}, {"nw_proto": ICMP, "icmp_type": 0, "icmp_id": 1}])
def test_answer_to_no_question_is_dropped_as_invalid(cni: str, answer: dict[str, int]) -> None:
    net = Net(cni)
    assert told(net.ints["node-1"].run(net.from_pod(A, B.ip, 80, **answer))) == "Drop: DropReason=InvalidConnection"


@both_cnis
def test_last_hop_of_a_packet_ends_at_the_router(cni: str) -> None:
    net = Net(cni)
    assert told(net.ints["node-1"].run(net.from_pod(A, C.ip, 80, nw_ttl=1))) == "TTL ends"


@both_cnis
def test_uplink_bridge_keeps_what_is_the_nodes_own_apart_from_what_is_its_pods(cni: str) -> None:
    net = Net(cni)
    own, wire = net.views["node-1"].node, net.exes["node-1"]
    to_node = net.from_pod(C, own.ip, 22, in_port=WIRE_PORT, dl_dst=own.mac)
    assert [port for port, _ in wire.run(to_node).outputs] == [LOCAL]
    assert [port for port, _ in wire.run({**to_node, "in_port": LOCAL}).outputs] == [WIRE_PORT]
    assert [port for port, _ in wire.run(arp(C, own.ip, in_port=WIRE_PORT)).outputs] == [LOCAL]
    trace = wire.run({**to_node, "nw_dst": A.ip})
    assert [port for port, _ in trace.outputs] == ([PATCH_PORT] if cni == "calico" else [])


def test_a_copy_between_fields_of_unequal_width_takes_the_lowest_bits_of_each() -> None:
    w = Writer("test", "copy")
    w.flow(t.CLASSIFIER, 1, match("ip"), Copy(f.IP_DST, f.ETH_DST), Copy(f.ETH_SRC, f.IP_SRC), Output(1))
    packet = {"in_port": 2, "dl_src": 0xA1A2A3A4A5A6, "dl_dst": 0xB1B2B3B4B5B6, "dl_type": 0x800, "nw_src": 0}
    [(_, sent)] = Switch({"": w.fragment()}).run({**packet, "nw_dst": 0x01020304}).outputs
    assert (sent["dl_dst"], sent["nw_src"]) == (0xB1B201020304, 0xA3A4A5A6)

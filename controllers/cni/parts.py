"""What pod networks are made of, as fragments: gateways, links among a node's pods, ways to other nodes' pods."""

from __future__ import annotations

from collections.abc import Iterable

from controllers.cni.ways import Way
from controllers.features.base import arp_answer, drop
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Goto, Output, Set
from controllers.flow.kept import kept
from controllers.flow.program import Fragment, Writer, match
from controllers.state import Node, NodeView, Pod
from topo.cluster.wiring import (
    GATEWAY_PORT,
    PATCH_PORT,
    SEAL_MAC,
    SEAL_PORT,
    TUNNEL_PORT,
    UPLINK_PORT,
    WIRE_PORT,
)


def _length(prefix: str) -> int:
    return int(prefix.partition("/")[2])


@kept
def gateway(feature: str, ip: int, mac: int) -> Fragment:
    """A pod that asks for its default gateway gets this MAC."""
    w = Writer(feature, f"gateway {f.ip_text(ip)}")
    wanted = match("arp", arp_op=1, arp_tpa=ip, PktSource=f.FROM_POD)
    w.flow(t.ARP_RESPONDER, t.NORMAL, wanted, *arp_answer(mac, ip))
    return w.fragment()


@kept
def neighbour(feature: str, pod: Pod) -> Fragment:
    """Pods of one node share a link: they need no gateway to each other, and no TTL is spent (as on a Linux bridge)."""
    w = Writer(feature, pod.key)
    wanted = match("arp", arp_op=1, arp_tpa=pod.ip, PktSource=f.FROM_POD)
    w.flow(t.ARP_RESPONDER, t.NORMAL, wanted, *arp_answer(pod.mac, pod.ip))
    w.flow(
        t.L3_FORWARDING,
        t.HIGH,
        match("ip", PktSource=f.FROM_POD, dl_dst=pod.mac, nw_dst=pod.ip),
        Set(f.OUT_PORT, pod.port),
        Goto(t.after(t.L3_DEC_TTL)),
    )
    return w.fragment()


@kept
def by_tunnel(feature: str, node: Node, peer: Node, prefix: str, key: int) -> Fragment:
    """To the peer's pods in a tunnel to its node address; key: the encapsulation's network number."""
    w = Writer(feature, f"route to {prefix}")
    w.flow(
        t.L3_FORWARDING,
        t.ROUTE + _length(prefix),
        match("ip", nw_dst=prefix),
        Set(f.ETH_SRC, node.gateway_mac),
        Set(f.ETH_DST, peer.gateway_mac),
        Set(f.TUN_ID, key),
        Set(f.TUN_DST, peer.ip),
        Set(f.OUT_PORT, TUNNEL_PORT),
        Goto(t.L3_DEC_TTL),
    )
    return w.fragment()


@kept
def by_neighbour(feature: str, node: Node, next_hop: Node, prefix: str) -> Fragment:
    """To the prefix as it is, to a node on the same subnet of the fabric."""
    w = Writer(feature, f"route to {prefix}")
    w.flow(
        t.L3_FORWARDING,
        t.ROUTE + _length(prefix),
        match("ip", nw_dst=prefix),
        Set(f.ETH_SRC, node.mac),
        Set(f.ETH_DST, next_hop.mac),
        Set(f.OUT_PORT, UPLINK_PORT),
        Goto(t.L3_DEC_TTL),
    )
    return w.fragment()


def route(feature: str, way: Way, node: Node, peer: Node, prefix: str, key: int = 0) -> Iterable[Fragment]:
    """The peer's prefix, by whichever way; key: the network number of a tunnel's packets."""
    match way:
        case Way.NEIGHBOUR:
            yield by_neighbour(feature, node, peer, prefix)
        case Way.TUNNEL:
            yield by_tunnel(feature, node, peer, prefix, key)
        case Way.DEVICE:
            yield by_device(feature, node, prefix)


@kept
def by_device(feature: str, node: Node, prefix: str) -> Fragment:
    """To the prefix through the node's own kernel, which has a device for it and takes the TTL; and back.

    What the kernel has taken out of a tunnel is not the node's own: it is judged by policies as any other pod's packet.
    """
    w = Writer(feature, f"route to {prefix}")
    from_pods = match("ip", in_port=GATEWAY_PORT, nw_src=prefix)
    w.flow(t.CLASSIFIER, t.HIGH, from_pods, Set(f.PKT_SOURCE, f.FROM_TUNNEL), Goto(t.after(t.CLASSIFIER)))
    forwarded = match("ip", in_port=GATEWAY_PORT, PktSource=f.FROM_TUNNEL, nw_src=prefix)
    w.flow(t.L3_DEC_TTL, t.NORMAL, forwarded, Goto(t.after(t.L3_DEC_TTL)))
    w.flow(
        t.L3_FORWARDING,
        t.ROUTE + _length(prefix),
        match("ip", nw_dst=prefix),
        Set(f.ETH_DST, node.gateway_mac),
        Set(f.OUT_PORT, GATEWAY_PORT),
        Goto(t.after(t.L3_DEC_TTL)),
    )
    return w.fragment()


@kept
def by_routes(feature: str, node: Node, pod_subnet: str) -> Fragment:
    """To other nodes' pods through the node's own kernel, wherever its routes lead; a routing daemon keeps them."""
    w = Writer(feature, f"kernel's routes of {node.name}")
    own, gateway = node.pod_cidr, (Set(f.ETH_DST, node.gateway_mac), Set(f.OUT_PORT, GATEWAY_PORT))
    if own != pod_subnet:
        # One more than the flow that drops what has no route. The kernel sends what is this node's to this bridge, so
        # an address of no pod must end here.
        to_kernel = (*gateway, Goto(t.after(t.L3_DEC_TTL)))
        w.flow(t.L3_FORWARDING, t.ROUTE + _length(pod_subnet) + 1, match("ip", nw_dst=pod_subnet), *to_kernel)
        w.flow(t.L3_FORWARDING, t.ROUTE + _length(own) + 1, match("ip", nw_dst=own), *drop(f.DROP_NO_ROUTE))
    return w.fragment()


@kept
def _from_wire(feature: str, node: Node, to: int) -> Fragment:
    w = Writer(feature, f"uplink of {node.name}")
    w.flow(t.UPLINK, t.NORMAL, match("ip", in_port=WIRE_PORT, nw_dst=node.pod_cidr), Output(to))
    return w.fragment()


def from_wire(feature: str, view: NodeView) -> Fragment:
    """br-ex: pod packets that cross the fabric as they are go where the pods are: the pod bridge, or the kernel."""
    return _from_wire(feature, view.node, f.LOCAL if view.lab.attachment == "bridge" else PATCH_PORT)


@kept
def sealed_tunnel(feature: str, node: Node, udp_port: int) -> Fragment:
    """br-ex: a tunnel's packets are sealed on their way out and opened on their way in; open ones are not let in."""
    w = Writer(feature, f"tunnel of {node.name}, sealed")
    w.flow(t.UPLINK, t.NORMAL, match("udp", in_port=f.LOCAL, tp_dst=udp_port), *_to_seal())
    opened = match("udp", in_port=SEAL_PORT, nw_dst=node.ip, tp_dst=udp_port)
    w.flow(t.UPLINK, t.NORMAL, opened, Set(f.ETH_DST, node.mac), Output(f.LOCAL))
    w.flow(t.UPLINK, t.HIGH, match("udp", in_port=WIRE_PORT, nw_dst=node.ip, tp_dst=udp_port))
    return w.fragment()


@kept
def sealed_pods(feature: str, node: Node, prefixes: tuple[str, ...]) -> Fragment:
    """br-ex: the same for pods' packets that have no tunnel. prefixes: of other nodes' pods."""
    w = Writer(feature, f"pods of {node.name}, sealed")
    for prefix in prefixes:
        w.flow(t.UPLINK, t.NORMAL, match("ip", in_port=PATCH_PORT, nw_dst=prefix), *_to_seal())
    w.flow(t.UPLINK, t.NORMAL, match("ip", in_port=SEAL_PORT, nw_dst=node.pod_cidr), Output(PATCH_PORT))
    return w.fragment()


def _to_seal() -> tuple[Set, Output]:
    return Set(f.ETH_DST, f.mac_number(SEAL_MAC)), Output(SEAL_PORT)

"""weave: all pods of all nodes on one link, whose frames nodes carry to each other, round broken links if they must.

fastdp: in VXLAN, whose network number names the peers at both ends, so that a peer on the way knows where to pass it
on. sleeve: by a program, in UDP. Either way a program of each node learns by gossip who hears whom.

Source: Weave Net, "How Weave Net Works", "Fast Datapath & Weave Net", "Integrating Kubernetes via the Addon"; its
docs/fastdp.md: 12 bits of a peer at each end, UDP port 6784; WEAVE_MTU 1376; the password seals both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from controllers.agent.several import Several
from controllers.cni import INGRESS_AND_EGRESS, Cni, Traits, options_of, parts
from controllers.cni.options import text
from controllers.cni.tunnels import VXLAN, WIREGUARD
from controllers.features.base import arp_answer
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Action, Copy, ForgetInPort, Goto, Output, Set
from controllers.flow.kept import kept
from controllers.flow.program import Fragment, MatchItem, Writer, match
from controllers.numbering import assign_numbers
from controllers.programs.weave import PORT as SLEEVE_PORT
from controllers.proxy import NodePart
from controllers.state import Lab, Node, NodeView, Pod
from controllers.transports.sealing import Sealing
from controllers.transports.weave import WeavePeer
from controllers.transports.wireguard import WireGuard
from topo.cluster.errors import InputError
from topo.cluster.network import PodNetwork, Tunnel
from topo.cluster.wiring import MAC_BEFORE_IP, TUNNEL_PORT

DEVICE = "weave"
FASTDP_PORT = 6784
_WIREGUARD, _WIREGUARD_PORT = "weave-wg", 6785
_MTU = 1376
# IP 20 + UDP 8 + the program's own: kind 1, both ends 8; inner Ethernet 14.
_SLEEVE_OVERHEAD = 51
# NaCl's secretbox: nonce 24, tag 16.
SEAL = 40
# A frame's MAC begins so, and ends with the pod's IPv4 address.
_BEFORE_IP = f.mac_number(MAC_BEFORE_IP)
# Bits of a peer's number in a VXLAN network number: of the sender in the lowest, of the receiver above them.
_BITS = 12
_PEER = (1 << _BITS) - 1

# What a packet for a peer needs before it goes into the tunnel.
Towards = tuple[Action, ...]


class Weave(Cni):
    """The CNI object."""

    name = "weave"
    options = ("mtu", "password")
    variants = {
        "fastdp": Traits(
            "VXLAN",
            VXLAN.overhead,
            "peers by gossip; round a broken link through another peer",
            "all pods on one link; the VNI names both peers",
            "L2",
            INGRESS_AND_EGRESS,
            ("WireGuard, for ESP",),
            source="Weave Net, Fast Datapath & Weave Net",
            headers=VXLAN.headers,
            udp_port=FASTDP_PORT,
            fixed_mtu=_MTU,
        ),
        "sleeve": Traits(
            "UDP",
            _SLEEVE_OVERHEAD,
            "peers by gossip; round a broken link through another peer",
            "all pods on one link; a program of each node carries their frames",
            "L2",
            INGRESS_AND_EGRESS,
            ("NaCl",),
            source="Weave Net, How Weave Net Works; docs/sleeve.md",
            headers=("ip", "udp", "eth"),
            udp_port=SLEEVE_PORT,
            fixed_mtu=_MTU,
        ),
    }

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """Weave's own MTU whatever the fabric's."""
        variant = self.variant(options)
        size, room = self.mtu(fabric_mtu, options), fabric_mtu - self.traits_of(options).overhead
        if size > room:
            problem = f"packets of {size} bytes do not fit a fabric of {fabric_mtu}"
            raise InputError("mininetes.cni.mtu", problem, f"at most {room}")
        is_fastdp = variant == "fastdp"
        tunnel = VXLAN.tunnel("vxlan-6784", str(FASTDP_PORT)) if is_fastdp else Tunnel(DEVICE, "internal")
        sealed = self._has_wireguard(options)
        return PodNetwork(size, on_link=True, tunnel=tunnel, one_link=True, offloads=is_fastdp, sealed=sealed)

    def traits_of(self, options: Mapping[str, object]) -> Traits:
        """With a password whatever crosses the fabric is sealed."""
        traits = super().traits_of(options)
        if self._has_wireguard(options):
            return replace(
                traits,
                encapsulation="VXLAN in WireGuard",
                overhead=traits.overhead + WIREGUARD.overhead,
                headers=WIREGUARD.headers,
                udp_port=_WIREGUARD_PORT,
                needs="wireguard in the kernel, else wireguard-go",
                sealed=True,
            )
        is_sealed = text(self.name, options, "password") != ""
        return (
            replace(traits, overhead=traits.overhead + SEAL, headers=("ip", "udp"), sealed=True)
            if is_sealed
            else traits
        )

    def _has_wireguard(self, options: Mapping[str, object]) -> bool:
        return self.variant(options) == "fastdp" and text(self.name, options, "password") != ""

    def devices(self, options: Mapping[str, object]) -> tuple[str, ...]:
        """WireGuard's, if fastdp is to be sealed."""
        return ("wireguard",) if self._has_wireguard(options) else ()

    def stand_ins(self, options: Mapping[str, object]) -> tuple[str, ...]:
        """Of what Weave seals fastdp with."""
        said = "Weave seals fastdp's VXLAN with IPsec's ESP; here WireGuard does it, with keys of its own"
        return (said,) if self._has_wireguard(options) else ()

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """What passes the seal."""
        if self._has_wireguard(options_of(view)):
            yield parts.sealed_tunnel(self.name, view.node, FASTDP_PORT)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """ARP and frames on the link, and what comes from beyond it."""
        is_fastdp = self.variant(options_of(view)) == "fastdp"
        ready = tuple(peer for peer in view.peers if peer.ready)
        towards = _towards(view, ready) if is_fastdp else dict.fromkeys(ready, ())
        yield parts.gateway(self.name, view.node.gateway_ip, view.node.gateway_mac)
        for pod in view.pods:
            yield _pod(pod)
        yield _link(view.lab.pod_subnet, tuple(dict.fromkeys(towards.values())))
        for peer, way in towards.items():
            yield _peer(view.node, peer, way)
            if is_fastdp:
                yield _passed_on(view.node, peer, way)
        if not is_fastdp:
            yield _asked_for_gateway(view.node)

    def node_part(self, lab: Lab, pid: int, run: Path) -> NodePart | None:
        """The node's peer."""
        options = lab.options.get("cni", {})
        device = "" if self.variant(options) == "fastdp" else DEVICE
        peer = WeavePeer(pid, run, device, text(self.name, options, "password"))
        if not self._has_wireguard(options):
            return peer
        size = lab.fabric_mtu - WIREGUARD.overhead
        seal = WireGuard(pid, run, _WIREGUARD, size, _WIREGUARD_PORT, routes=Sealing(pid, _WIREGUARD, size))
        return Several(peer, seal)


CNI = Weave()


def _towards(view: NodeView, ready: Iterable[Node]) -> dict[Node, Towards]:
    """What leads to each peer: the ends' numbers, and the address of the peer itself or of one on the way."""
    numbers = assign_numbers((view.node.name, *(peer.name for peer in view.peers)), _BITS)
    by_name = {peer.name: peer for peer in view.peers}
    found: dict[Node, Towards] = {}
    for peer in ready:
        hop = by_name.get(view.relays.get(peer.name, ""), peer)
        key = numbers[peer.name] << _BITS | numbers[view.node.name]
        found[peer] = Set(f.TUN_ID, key), Set(f.TUN_DST, hop.ip)
    return found


@kept
def _pod(pod: Pod) -> Fragment:
    """Whatever is for its address or, as a frame, for its MAC; it answers for itself, and no TTL is spent."""
    w = Writer("weave", pod.key)
    for source in (f.FROM_POD, f.FROM_TUNNEL):
        w.flow(t.ARP_RESPONDER, t.NORMAL, match("arp", arp_tpa=pod.ip, PktSource=source), Output(pod.port))
        w.flow(
            t.L3_FORWARDING,
            t.HIGH,
            match("ip", PktSource=source, dl_dst=pod.mac, nw_dst=pod.ip),
            Set(f.OUT_PORT, pod.port),
            Goto(t.after(t.L3_DEC_TTL)),
        )
    return w.fragment()


@lru_cache(maxsize=64)
def _link(pod_subnet: str, ways: tuple[Towards, ...]) -> Fragment:
    """A pod's ARP request goes to every peer."""
    w = Writer("weave", "broadcast")
    everywhere = [action for way in ways for action in (*way, Output(TUNNEL_PORT))]
    w.flow(t.ARP_RESPONDER, t.LOW, match("arp", arp_op=1, PktSource=f.FROM_POD, arp_tpa=pod_subnet), *everywhere)
    return w.fragment()


@kept
def _peer(node: Node, peer: Node, way: Towards) -> Fragment:
    """Frames to the peer's pods as they are; routed packets with the pod's MAC, as if this node had asked for it."""
    w = Writer("weave", f"peer {peer.name}")
    to_tunnel = (*way, Set(f.OUT_PORT, TUNNEL_PORT))
    answer = match("arp", arp_op=2, PktSource=f.FROM_POD, arp_tpa=peer.pod_cidr)
    w.flow(t.ARP_RESPONDER, t.NORMAL, answer, *way, Output(TUNNEL_PORT))
    length = int(peer.pod_cidr.partition("/")[2])
    mask = (1 << 48) - (1 << (32 - length))
    macs = _BEFORE_IP | (peer.gateway_ip - 1), mask
    frame = match("ip", PktSource=f.FROM_POD, dl_dst=macs, nw_dst=peer.pod_cidr)
    w.flow(t.L3_FORWARDING, t.HIGH, frame, *to_tunnel, Goto(t.after(t.L3_DEC_TTL)))
    w.flow(
        t.L3_FORWARDING,
        t.ROUTE + length,
        match("ip", nw_dst=peer.pod_cidr),
        Set(f.ETH_SRC, node.gateway_mac),
        Set(f.ETH_DST, _BEFORE_IP),
        Copy(f.IP_DST, f.ETH_DST),
        *to_tunnel,
        Goto(t.L3_DEC_TTL),
    )
    return w.fragment()


@kept
def _passed_on(node: Node, peer: Node, way: Towards) -> Fragment:
    """Frames in the tunnel that are for the peer go on to it, whatever they are; and its questions are answered."""
    w = Writer("weave", f"frames for {peer.name}")
    key, address = way
    assert isinstance(key, Set)
    receiver = key.value & ~_PEER, _PEER << _BITS
    w.flow(
        t.CLASSIFIER, t.HIGH, match(in_port=TUNNEL_PORT, tun_id=receiver), address, ForgetInPort(), Output(TUNNEL_PORT)
    )
    _answer_for_gateway(
        w, node, match("arp", arp_op=1, arp_tpa=node.gateway_ip, tun_id=(key.value >> _BITS, _PEER)), way
    )
    return w.fragment()


@kept
def _asked_for_gateway(node: Node) -> Fragment:
    """A pod elsewhere asks for this node's address on the link."""
    w = Writer("weave", "gateway, asked from elsewhere")
    _answer_for_gateway(w, node, match("arp", arp_op=1, arp_tpa=node.gateway_ip, PktSource=f.FROM_TUNNEL), ())
    return w.fragment()


def _answer_for_gateway(w: Writer, node: Node, asked: tuple[MatchItem, ...], way: Towards) -> None:
    *answer, back = arp_answer(node.gateway_mac, node.gateway_ip)
    w.flow(t.ARP_RESPONDER, t.NORMAL, asked, *answer, *way, back)

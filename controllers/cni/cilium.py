"""cilium: pods known by security identities, which tunnels carry as their network number; or plain routes.

Source: Cilium, "Routing", "Terminology" (identities), pkg/mtu. In its BPF programs a node shows its own packets to
others as those of a remote node, so that what claims to come from the receiving host itself can be refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from controllers.cni import INGRESS_AND_EGRESS, Cni, Traits, options_of, parts
from controllers.cni.cilium_options import is_encrypted, load_balancer
from controllers.cni.tunnels import GENEVE, VXLAN, WIREGUARD, Encapsulation
from controllers.features.base import drop
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Copy, Goto, Set
from controllers.flow.kept import kept
from controllers.flow.program import Fragment, Writer, match
from controllers.identities import HOST, REMOTE_NODE, WORLD
from controllers.proxy import NodePart
from controllers.state import Lab, Node, NodeView
from controllers.transports.sealing import Sealing
from controllers.transports.wireguard import WireGuard
from topo.cluster.network import PodNetwork
from topo.cluster.wiring import TUNNEL_PORT, UPLINK_PORT

_SOURCE = "Cilium, Routing; pkg/mtu"
_TUNNELS: Mapping[str, Encapsulation] = {"vxlan": VXLAN, "geneve": GENEVE}
_UDP_PORTS = {"vxlan": 8472, "geneve": 6081}
# Cilium, "WireGuard Transparent Encryption" and pkg/mtu: it reckons with an outer IPv6 header.
_DEVICE, _WIREGUARD_PORT, _CILIUMS_WIREGUARD = "cilium_wg0", 51871, 80


def _traits(encapsulation: str, overhead: int, description: str, **more: Any) -> Traits:
    return Traits(
        encapsulation,
        overhead,
        "routes per node",
        description,
        policy=INGRESS_AND_EGRESS,
        encryption=("WireGuard",),
        source=_SOURCE,
        **more,
    )


class Cilium(Cni):
    """The CNI object."""

    name = "cilium"
    identities = True
    proxy, proxy_options = "cilium", ("loadBalancer",)
    options = ("mtu", "loadBalancer", "encryption")
    variants = {
        "vxlan": _traits(
            "VXLAN",
            VXLAN.overhead,
            "every pod a /32; the VNI is the sender's identity",
            headers=VXLAN.headers,
            udp_port=_UDP_PORTS["vxlan"],
        ),
        "geneve": _traits(
            "Geneve",
            GENEVE.overhead,
            "every pod a /32; the VNI is the sender's identity",
            needs="geneve in the kernel, on the kernel's datapath",
            headers=GENEVE.headers,
            udp_port=_UDP_PORTS["geneve"],
        ),
        "native": _traits("none", 0, "every pod a /32, routed over the plain fabric"),
    }

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """Pod MTU is what Cilium gives the route to other nodes: the fabric's less the encapsulation."""
        carries = self._tunnel(options)
        # With direct return over native routes clients' packets go on to endpoints in Geneve, and must fit.
        is_aside = carries != "" and self.variant(options) == "native"
        size = self.mtu(fabric_mtu - (_TUNNELS[carries].overhead if is_aside else 0), options)
        tunnel = _TUNNELS[carries].tunnel(f"cilium_{carries}", str(_UDP_PORTS[carries])) if carries else None
        return PodNetwork(size, on_link=False, tunnel=tunnel, sealed=is_encrypted(options))

    def _tunnel(self, options: Mapping[str, object]) -> str:
        """Which tunnel nodes have, "" for none. Raises InputError."""
        variant = self.variant(options)
        is_dsr = load_balancer(options, variant).is_dsr
        return variant if variant in _TUNNELS else "geneve" if is_dsr else ""

    def traits_of(self, options: Mapping[str, object]) -> Traits:
        """With WireGuard, outside of whatever the mode wraps packets in."""
        traits = super().traits_of(options)
        if not is_encrypted(options):
            return traits
        inside = "" if traits.encapsulation == "none" else f"{traits.encapsulation} in "
        return replace(
            traits,
            encapsulation=f"{inside}WireGuard",
            overhead=traits.overhead + WIREGUARD.overhead,
            headers=WIREGUARD.headers,
            udp_port=_WIREGUARD_PORT,
            needs="wireguard in the kernel, else wireguard-go",
            sealed=True,
            margin=_CILIUMS_WIREGUARD - WIREGUARD.overhead,
        )

    def carries_identities(self, options: Mapping[str, object]) -> bool:
        """In a tunnel's network number."""
        return self.variant(options) in _TUNNELS

    def devices(self, options: Mapping[str, object]) -> tuple[str, ...]:
        """WireGuard's, if it is asked for."""
        return ("wireguard",) if is_encrypted(options) else ()

    def node_part(self, lab: Lab, pid: int, run: Path) -> NodePart | None:
        """WireGuard, if it is asked for."""
        if not is_encrypted(lab.options.get("cni", {})):
            return None
        size = lab.fabric_mtu - _CILIUMS_WIREGUARD
        return WireGuard(pid, run, _DEVICE, size, _WIREGUARD_PORT, routes=Sealing(pid, _DEVICE, size))

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """The gateway, whose identity each packet bears, and one route per remote node."""
        options = options_of(view)
        is_overlay, is_sealed = self.variant(options) in _TUNNELS, is_encrypted(options)
        yield parts.gateway(self.name, view.node.gateway_ip, view.node.gateway_mac)
        yield _reserved()
        for pod in view.pods:
            yield _identity(pod.key, pod.port, view.identities.get(pod.key, 0))
        for peer in view.peers:
            if peer.ready and is_overlay:
                yield _by_tunnel(view.node, peer)
            elif peer.ready and is_sealed:
                yield _by_seal(view.node, peer)
            elif peer.ready:
                yield parts.by_neighbour(self.name, view.node, peer, peer.pod_cidr)

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """What comes in for its pods, unless it is wrapped; and what passes the seal."""
        options = options_of(view)
        tunnel, is_sealed = self._tunnel(options), is_encrypted(options)
        if tunnel and is_sealed:
            yield parts.sealed_tunnel(self.name, view.node, _UDP_PORTS[tunnel])
        if self.variant(options) not in _TUNNELS:
            pods = tuple(peer.pod_cidr for peer in view.peers)
            yield parts.sealed_pods(self.name, view.node, pods) if is_sealed else parts.from_wire(self.name, view)


CNI = Cilium()


@lru_cache(maxsize=1)
def _reserved() -> Fragment:
    """Who is no pod of this node: the node, whoever is outside, and whom a tunnel's header names."""
    w = Writer("cilium", "reserved identities")
    on = Goto(t.after(t.IDENTITY))
    for source, number in ((f.FROM_GATEWAY, HOST), (f.FROM_UPLINK, WORLD)):
        w.flow(t.IDENTITY, t.NORMAL, match("ip", PktSource=source), Set(f.IDENTITY, number), on)
    w.flow(t.IDENTITY, t.NORMAL, match("ip", PktSource=f.FROM_TUNNEL), Copy(f.TUN_ID, f.IDENTITY), on)
    w.flow(t.IDENTITY, t.HIGH, match("ip", PktSource=f.FROM_TUNNEL, tun_id=HOST), *drop(f.DROP_IDENTITY))
    return w.fragment()


@kept
def _identity(pod: str, port: int, number: int) -> Fragment:
    w = Writer("cilium", f"identity of {pod}")
    w.flow(t.IDENTITY, t.HIGH, match("ip", in_port=port), Set(f.IDENTITY, number), Goto(t.after(t.IDENTITY)))
    return w.fragment()


@kept
def _by_tunnel(node: Node, peer: Node) -> Fragment:
    """To the peer's pods; the tunnel's network number is the sender's identity, of this node itself a remote node's."""
    w = Writer("cilium", f"route to {peer.pod_cidr}")
    to_peer = (
        Set(f.ETH_SRC, node.gateway_mac),
        Set(f.ETH_DST, peer.gateway_mac),
        Set(f.TUN_DST, peer.ip),
        Set(f.OUT_PORT, TUNNEL_PORT),
        Goto(t.L3_DEC_TTL),
    )
    route = t.ROUTE + int(peer.pod_cidr.partition("/")[2])
    w.flow(t.L3_FORWARDING, route, match("ip", nw_dst=peer.pod_cidr), Copy(f.IDENTITY, f.TUN_ID), *to_peer)
    own = match("ip", Identity=HOST, nw_dst=peer.pod_cidr)
    w.flow(t.L3_FORWARDING, t.HIGH, own, Set(f.TUN_ID, REMOTE_NODE), *to_peer)
    return w.fragment()


@kept
def _by_seal(node: Node, peer: Node) -> Fragment:
    """To the peer's pods as they are, but that br-ex has them sealed; both nodes' kernels take their TTL meanwhile."""
    w = Writer("cilium", f"route to {peer.pod_cidr}")
    on = Goto(t.after(t.L3_DEC_TTL))
    route = t.ROUTE + int(peer.pod_cidr.partition("/")[2])
    w.flow(t.L3_FORWARDING, route, match("ip", nw_dst=peer.pod_cidr), Set(f.OUT_PORT, UPLINK_PORT), on)
    w.flow(t.L3_DEC_TTL, t.NORMAL, match("ip", PktSource=f.FROM_UPLINK, nw_src=peer.pod_cidr), on)
    return w.fragment()

"""cilium: pods known by security identities, which tunnels carry as their network number; or plain routes.

Source: Cilium, "Routing", "Terminology" (identities), pkg/mtu. In its BPF programs a node shows its own packets to
others as those of a remote node, so that what claims to come from the receiving host itself can be refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from controllers.cni import INGRESS_AND_EGRESS, Cni, Traits, options_of, parts
from controllers.cni.tunnels import GENEVE, VXLAN, Encapsulation
from controllers.features.base import drop
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Copy, Goto, Set
from controllers.flow.program import Fragment, Writer, match
from controllers.identities import HOST, REMOTE_NODE, WORLD
from controllers.state import Node, NodeView
from topo.cluster.network import PodNetwork
from topo.cluster.wiring import TUNNEL_PORT

_SOURCE = "Cilium, Routing; pkg/mtu"
# Encapsulation and UDP port of the modes that have one (Cilium, "Routing": 8472 and 6081).
_TUNNELS: Mapping[str, tuple[Encapsulation, int]] = {"vxlan": (VXLAN, 8472), "geneve": (GENEVE, 6081)}


def _traits(encapsulation: str, mode: str, description: str, needs: str = "") -> Traits:
    tunnel, port = _TUNNELS.get(mode, (None, 0))
    return Traits(
        encapsulation,
        tunnel.overhead if tunnel else 0,
        "routes per node",
        description,
        policy=INGRESS_AND_EGRESS,
        needs=needs,
        source=_SOURCE,
        headers=tunnel.headers if tunnel else (),
        udp_port=port,
    )


class Cilium(Cni):
    """The CNI object."""

    name = "cilium"
    identities = True
    variants = {
        "vxlan": _traits("VXLAN", "vxlan", "every pod a /32; the VNI is the sender's identity"),
        "geneve": _traits(
            "Geneve",
            "geneve",
            "every pod a /32; the VNI is the sender's identity",
            "geneve in the kernel, on the kernel's datapath",
        ),
        "native": _traits("none", "native", "every pod a /32, routed over the plain fabric"),
    }

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """Pod MTU is what Cilium gives the route to other nodes: the fabric's less the encapsulation."""
        variant = self.variant(options)
        tunnel = None
        if variant in _TUNNELS:
            encapsulation, port = _TUNNELS[variant]
            tunnel = encapsulation.tunnel(f"cilium_{variant}", str(port))
        return PodNetwork(self.mtu(fabric_mtu, options), on_link=False, tunnel=tunnel)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """The gateway, whose identity each packet bears, and one route per remote node."""
        is_overlay = self.variant(options_of(view)) in _TUNNELS
        yield parts.gateway(self.name, view.node.gateway_ip, view.node.gateway_mac)
        yield _reserved()
        for pod in view.pods:
            yield _identity(pod.key, pod.port, view.identities.get(pod.key, 0))
        for peer in view.peers:
            if peer.ready and is_overlay:
                yield _by_tunnel(view.node, peer)
            elif peer.ready:
                yield parts.by_neighbour(self.name, view.node, peer, peer.pod_cidr)

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """What comes in for its pods, unless it is wrapped."""
        return () if self.variant(options_of(view)) in _TUNNELS else (parts.from_wire(self.name, view),)


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


@lru_cache(maxsize=65536)
def _identity(pod: str, port: int, number: int) -> Fragment:
    w = Writer("cilium", f"identity of {pod}")
    w.flow(t.IDENTITY, t.HIGH, match("ip", in_port=port), Set(f.IDENTITY, number), Goto(t.after(t.IDENTITY)))
    return w.fragment()


@lru_cache(maxsize=65536)
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

"""flannel: an overlay of VXLAN between nodes, pods of one node on one link (backend vxlan).

Source: flannel's Documentation/backends.md (VNI 1, UDP port 8472 on Linux) and pkg/backend/vxlan: a route per
remote pod CIDR, whose next hop is the remote VTEP, whose MAC and node address are known in advance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from controllers.cni import Traits
from controllers.cni.options import choice, mtu, only
from controllers.features.base import arp_answer
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Goto, Set
from controllers.flow.program import Fragment, Writer, match
from controllers.state import Node, NodeView, Pod
from topo.cluster.network import PodNetwork, Tunnel
from topo.cluster.wiring import TUNNEL_PORT

# Outer Ethernet 14 is not part of the MTU; IP 20 + UDP 8 + VXLAN 8 + inner Ethernet 14 are (RFC 7348, section 5).
OVERHEAD = 50
VNI = 1
UDP_PORT = "8472"


class Flannel:
    """The CNI object."""

    name = "flannel"
    traits = Traits("VXLAN", OVERHEAD, "routes per node", "overlay; pods of one node share a link")

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """Pod MTU is the fabric's less the encapsulation, as flannel works it out from the node's interface."""
        only(self.name, options, ("backend", "mtu"))
        choice(self.name, options, "backend", ("vxlan",))
        tunnel = Tunnel("vxlan0", "vxlan", {"remote_ip": "flow", "key": "flow", "dst_port": UDP_PORT})
        return PodNetwork(mtu=mtu(options, fabric_mtu - OVERHEAD), on_link=True, tunnel=tunnel)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """Neighbours on the link, and one route per remote node."""
        yield _gateway(view.node)
        for pod in view.pods:
            yield _neighbour(pod)
        for peer in view.peers:
            if peer.ready:
                yield _route(view.node, peer)

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """None: pod packets leave the node inside its own UDP packets."""
        return ()


CNI = Flannel()


@lru_cache(maxsize=4096)
def _gateway(node: Node) -> Fragment:
    w = Writer("flannel", f"gateway of {node.name}")
    w.flow(
        t.ARP_RESPONDER,
        t.NORMAL,
        match("arp", arp_op=1, arp_tpa=node.gateway_ip, PktSource=f.FROM_POD),
        *arp_answer(node.gateway_mac, node.gateway_ip),
    )
    return w.fragment()


@lru_cache(maxsize=65536)
def _neighbour(pod: Pod) -> Fragment:
    """Pods of one node reach each other without the gateway: no TTL is spent, as on flannel's cni0 bridge."""
    w = Writer("flannel", pod.key)
    w.flow(
        t.ARP_RESPONDER,
        t.NORMAL,
        match("arp", arp_op=1, arp_tpa=pod.ip, PktSource=f.FROM_POD),
        *arp_answer(pod.mac, pod.ip),
    )
    w.flow(
        t.L3_FORWARDING,
        t.HIGH,
        match("ip", PktSource=f.FROM_POD, dl_dst=pod.mac, nw_dst=pod.ip),
        Set(f.OUT_PORT, pod.port),
        Goto(t.after(t.L3_DEC_TTL)),
    )
    return w.fragment()


@lru_cache(maxsize=65536)
def _route(node: Node, peer: Node) -> Fragment:
    w = Writer("flannel", f"route to {peer.name}")
    prefix = int(peer.pod_cidr.partition("/")[2])
    w.flow(
        t.L3_FORWARDING,
        t.ROUTE + prefix,
        match("ip", nw_dst=peer.pod_cidr),
        Set(f.ETH_SRC, node.gateway_mac),
        Set(f.ETH_DST, peer.gateway_mac),
        Set(f.TUN_ID, VNI),
        Set(f.TUN_DST, peer.ip),
        Set(f.OUT_PORT, TUNNEL_PORT),
        Goto(t.L3_DEC_TTL),
    )
    return w.fragment()

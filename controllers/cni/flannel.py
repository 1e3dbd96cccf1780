"""flannel: one subnet a node, pods of one node on one link; backends vxlan and host-gw.

Source: flannel's Documentation/backends.md. vxlan: VNI 1, UDP port 8472 on Linux; a route per remote pod CIDR, whose
next hop is the remote VTEP, whose MAC and node address are known in advance. host-gw: the next hop is the node itself,
which must be on the same link.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controllers.cni import Cni, Traits, options_of, parts
from controllers.cni.tunnels import VXLAN
from controllers.flow.program import Fragment
from controllers.state import NodeView
from topo.cluster.network import PodNetwork

VNI, UDP_PORT = 1, 8472
_SOURCE = "flannel, Documentation/backends.md"


class Flannel(Cni):
    """The CNI object."""

    name = "flannel"
    option = "backend"
    variants = {
        "vxlan": Traits(
            "VXLAN",
            VXLAN.overhead,
            "routes per node",
            "overlay; pods of one node share a link",
            source=_SOURCE,
            headers=VXLAN.headers,
            udp_port=UDP_PORT,
        ),
        "host-gw": Traits(
            "none", 0, "routes per node", "no overlay: nodes are next hops; needs one link for all", source=_SOURCE
        ),
    }

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """Pod MTU is the fabric's less the encapsulation, as flannel works it out from the node's interface."""
        variant = self.variant(options)
        tunnel = VXLAN.tunnel("vxlan0", str(UDP_PORT)) if variant == "vxlan" else None
        return PodNetwork(self.mtu(fabric_mtu, options), on_link=True, tunnel=tunnel)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """Neighbours on the link, and one route per remote node."""
        is_overlay = self.variant(options_of(view)) == "vxlan"
        yield parts.gateway(self.name, view.node.gateway_ip, view.node.gateway_mac)
        for pod in view.pods:
            yield parts.neighbour(self.name, pod)
        for peer in view.peers:
            if peer.ready and is_overlay:
                yield parts.by_tunnel(self.name, view.node, peer, peer.pod_cidr, VNI)
            elif peer.ready:
                yield parts.by_neighbour(self.name, view.node, peer, peer.pod_cidr)

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """What comes in for its pods, unless it is wrapped."""
        return () if self.variant(options_of(view)) == "vxlan" else (parts.from_wire(self.name, view),)


CNI = Flannel()

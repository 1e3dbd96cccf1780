"""calico: every pod a /32 behind a router that is its node; no encapsulation (mode bgp) or VXLAN between nodes.

Source: Calico's "Networking", "Overlay networking" and "Dataplane" pages: pods are behind 169.254.1.1, for which each
node answers by proxy ARP with the MAC ee:ee:ee:ee:ee:ee; nodes exchange routes by BGP: through the controller's RIB, or
(speaker bird) in earnest, and then each node's kernel routes its pods' packets as BIRD tells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from controllers.bgp import options as bgp
from controllers.bgp.daemon import Bird
from controllers.cni import INGRESS_AND_EGRESS, WITH_ADMIN_POLICIES, Cni, Traits, options_of, parts
from controllers.cni.tunnels import VXLAN
from controllers.flow import fields as f
from controllers.flow.program import Fragment
from controllers.proxy import NodePart
from controllers.rib import Announcement, best_paths
from controllers.state import Lab, Node, NodeView
from topo.cluster.errors import InputError
from topo.cluster.network import PodNetwork

GATEWAY = "169.254.1.1"
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
# Calico's default network number and port (FelixConfiguration vxlanVNI, vxlanPort).
VNI, UDP_PORT = 4096, 4789
_SOURCE = "Calico, Networking and Overlay networking"


def _traits(encapsulation: str, overhead: int, description: str, **more: Any) -> Traits:
    return Traits(
        encapsulation,
        overhead,
        "BGP-like: pod CIDRs announced with a next hop",
        description,
        policy=INGRESS_AND_EGRESS,
        policy_kinds=WITH_ADMIN_POLICIES,
        source=_SOURCE,
        **more,
    )


class Calico(Cni):
    """The CNI object."""

    name = "calico"
    options = ("mtu", *bgp.OPTIONS)
    variants = {
        "bgp": _traits("none", 0, "routed; every pod is a /32"),
        "vxlan": _traits(
            "VXLAN",
            VXLAN.overhead,
            "every pod is a /32, wrapped between nodes",
            headers=VXLAN.headers,
            udp_port=UDP_PORT,
        ),
    }

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """Pod MTU is the fabric's own, less what may be added."""
        traits = self.variants[self.variant(options)]
        tunnel = VXLAN.tunnel("vxlan0", str(UDP_PORT)) if traits.overhead else None
        routed = bgp.of_cni(options).on_the_wire
        if routed and tunnel is not None:
            raise InputError("mininetes.cni.speaker", "nodes with VXLAN between them need no BGP", "mode: bgp")
        size = self.mtu(fabric_mtu, options)
        return PodNetwork(size, on_link=False, gateway=GATEWAY, gateway_mac=GATEWAY_MAC, tunnel=tunnel, routed=routed)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """The proxy ARP, and the best path to every announced prefix."""
        variant = self.variant(options_of(view))
        yield parts.gateway(self.name, f.ip_number(GATEWAY), f.mac_number(GATEWAY_MAC))
        if bgp.of(view.lab).on_the_wire:
            yield parts.by_routes(self.name, view.node, view.lab.pod_subnet)
            return
        by_address = {peer.ip: peer for peer in view.peers}
        for prefix, paths in best_paths(announcements(view.peers)).items():
            next_hop = by_address[paths[0].next_hop]
            if variant == "bgp":
                yield parts.by_neighbour(self.name, view.node, next_hop, prefix)
            else:
                yield parts.by_tunnel(self.name, view.node, next_hop, prefix, VNI)

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """Pod packets cross the fabric as they are, so br-ex hands those for its own pods to br-int."""
        return () if self.variant(options_of(view)) == "vxlan" else (parts.from_wire(self.name, view),)

    def node_part(self, lab: Lab, pid: int, run: Path) -> NodePart | None:
        """BIRD, if it is the speaker."""
        return Bird(pid, run / "bird") if bgp.of(lab).on_the_wire else None


CNI = Calico()


def announcements(nodes: Iterable[Node]) -> list[Announcement]:
    """What the ready nodes announce: each its pod CIDR, itself the next hop. A node that goes withdraws it."""
    return [Announcement(node.pod_cidr, next_hop=node.ip, speaker=node.ip) for node in nodes if node.ready]

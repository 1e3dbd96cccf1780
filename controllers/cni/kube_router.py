"""kube-router: pods of a node on one bridge, routes to other nodes' pods by BGP, no overlay on one subnet.

Source: kube-router, docs "how-it-works" and "bgp"; its Services are IPVS: choose proxy mode ipvs to go with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from controllers.agent.several import Several
from controllers.bgp import options as bgp
from controllers.bgp import rib_routes
from controllers.bgp.part import node_parts
from controllers.cni import Cni, Traits, parts
from controllers.flow.program import Fragment
from controllers.proxy import NodePart
from controllers.state import Lab, NodeView
from controllers.transports.plain import PlainNeighbours
from topo.cluster.network import PodNetwork


class KubeRouter(Cni):
    """The CNI object."""

    name = "kube-router"
    options = ("mtu", *bgp.OPTIONS)
    variants = {
        "bgp": Traits(
            "none",
            0,
            "BGP-like: pod CIDRs announced with a next hop",
            "routed between nodes; pods of one node share a link",
            policy=("ingress", "egress"),
            source="kube-router, how-it-works",
            masquerades=("outside",),
        )
    }

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """Pod MTU is the fabric's own."""
        return PodNetwork(self.mtu(fabric_mtu, options), on_link=True, routed=bgp.of_cni(options).on_the_wire)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """Neighbours on the link, and the best path to every announced prefix."""
        yield parts.gateway(self.name, view.node.gateway_ip, view.node.gateway_mac)
        for pod in view.pods:
            yield parts.neighbour(self.name, pod)
        if bgp.of(view.lab).on_the_wire:
            yield parts.by_routes(self.name, view.node, view.lab.pod_subnet)
            return
        for prefix, hops in rib_routes.routes(view).items():
            if len(hops) > 1:
                yield rib_routes.by_neighbours(self.name, view.node, hops, prefix)
            else:
                yield parts.by_neighbour(self.name, view.node, hops[0], prefix)

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """Pod packets cross the fabric as they are."""
        yield parts.from_wire(self.name, view)
        yield from rib_routes.uplink(self.name, view)

    def node_part(self, lab: Lab, pid: int, run: Path) -> NodePart | None:
        """BIRD, if it is the speaker (kube-router's own is GoBGP), and what the lab file has nodes announce; nodes as
        each other's next hops."""
        return Several(*node_parts(lab, pid, run), PlainNeighbours(pid, bgp.of(lab).on_the_wire))


CNI = KubeRouter()

"""ovs: ours, the least a packet can pass: pods' packets as they are where the fabric carries them, else in Geneve.

Everything is known in advance, so nothing is learnt, flooded or asked of the controller (as Antrea's encap modes
noEncap and encap).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controllers.cni import INGRESS_AND_EGRESS, WITH_ADMIN_POLICIES, Cni, Traits, options_of, parts
from controllers.cni.tunnels import GENEVE
from controllers.flow.program import Fragment
from controllers.state import NodeView
from topo.cluster.network import PodNetwork

# The port is IANA's (RFC 8926, section 7).
_KEY, _UDP_PORT = 0, 6081
_SOURCE = "RFC 8926; Antrea, docs/noencap-hybrid-modes.md"


class Ovs(Cni):
    """The CNI object."""

    name = "ovs"
    option = "encapsulation"
    variants = {
        "none": Traits(
            "none",
            0,
            "routes per node",
            "every pod a neighbour of its node's switch",
            "L3",
            INGRESS_AND_EGRESS,
            policy_kinds=WITH_ADMIN_POLICIES,
        ),
        "geneve": Traits(
            "Geneve",
            GENEVE.overhead,
            "routes per node",
            "overlay; proactive flows only",
            "L3",
            INGRESS_AND_EGRESS,
            needs="geneve in the kernel, on the kernel's datapath",
            source=_SOURCE,
            policy_kinds=WITH_ADMIN_POLICIES,
            headers=GENEVE.headers,
            udp_port=_UDP_PORT,
        ),
    }

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """Pod MTU is the fabric's less the encapsulation."""
        tunnel = GENEVE.tunnel("geneve0", str(_UDP_PORT)) if self.variant(options) == "geneve" else None
        return PodNetwork(self.mtu(fabric_mtu, options), on_link=True, tunnel=tunnel)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """Neighbours on the link, and one route per remote node."""
        is_overlay = self.variant(options_of(view)) == "geneve"
        yield parts.gateway(self.name, view.node.gateway_ip, view.node.gateway_mac)
        for pod in view.pods:
            yield parts.neighbour(self.name, pod)
        for peer in view.peers:
            if peer.ready and is_overlay:
                yield parts.by_tunnel(self.name, view.node, peer, peer.pod_cidr, _KEY)
            elif peer.ready:
                yield parts.by_neighbour(self.name, view.node, peer, peer.pod_cidr)

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """What comes in for its pods, unless it is wrapped."""
        return () if self.variant(options_of(view)) == "geneve" else (parts.from_wire(self.name, view),)


CNI = Ovs()

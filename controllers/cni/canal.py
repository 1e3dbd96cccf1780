"""canal: flannel's VXLAN between nodes, Calico's /32 pods and NetworkPolicy on them.

Source: Calico, "Install Calico for policy and flannel for networking".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controllers.cni import CALICO_POLICIES, INGRESS_AND_EGRESS, Cni, Traits, calico, flannel, parts
from controllers.cni.tunnels import VXLAN
from controllers.flow import fields as f
from controllers.flow.program import Fragment
from controllers.state import NodeView
from topo.cluster.network import PodNetwork


class Canal(Cni):
    """The CNI object."""

    name = "canal"
    variants = {
        "vxlan": Traits(
            "VXLAN",
            VXLAN.overhead,
            "routes per node",
            "flannel's overlay under Calico's pods and policy",
            policy=INGRESS_AND_EGRESS,
            policy_kinds=CALICO_POLICIES,
            source="Calico, Install Calico for policy and flannel for networking",
            headers=VXLAN.headers,
            udp_port=flannel.UDP_PORT,
        )
    }

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """As flannel's MTU and tunnel, as Calico's pods."""
        return PodNetwork(
            self.mtu(fabric_mtu, options),
            on_link=False,
            gateway=calico.GATEWAY,
            gateway_mac=calico.GATEWAY_MAC,
            tunnel=VXLAN.tunnel("vxlan0", str(flannel.UDP_PORT)),
        )

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """Calico's proxy ARP, flannel's routes."""
        yield parts.gateway(self.name, f.ip_number(calico.GATEWAY), f.mac_number(calico.GATEWAY_MAC))
        for peer in view.peers:
            if peer.ready:
                yield parts.by_tunnel(self.name, view.node, peer, peer.pod_cidr, flannel.VNI)


CNI = Canal()

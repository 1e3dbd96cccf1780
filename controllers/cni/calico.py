"""calico: no encapsulation; every node announces its pod CIDR and routes by the announcements (mode bgp).

Source: Calico's "Networking" and "Dataplane: iptables" pages: pods are /32 behind 169.254.1.1, which each node answers
for by proxy ARP with the MAC ee:ee:ee:ee:ee:ee; nodes exchange routes by BGP, here through the controller's RIB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from controllers.cni import Traits
from controllers.cni.options import choice, mtu, only
from controllers.features.base import arp_answer
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Goto, Output, Set
from controllers.flow.program import Fragment, Writer, match
from controllers.rib import Announcement, best_paths
from controllers.state import Node, NodeView
from topo.cluster.network import PodNetwork
from topo.cluster.wiring import PATCH_PORT, UPLINK_PORT, WIRE_PORT

GATEWAY = "169.254.1.1"
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"


class Calico:
    """The CNI object."""

    name = "calico"
    traits = Traits("none", 0, "BGP-like: pod CIDRs announced with a next hop", "routed; every pod is a /32")

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """Pod MTU is the fabric's own: nothing is added."""
        only(self.name, options, ("mode", "mtu"))
        choice(self.name, options, "mode", ("bgp",))
        return PodNetwork(mtu=mtu(options, fabric_mtu), on_link=False, gateway=GATEWAY, gateway_mac=GATEWAY_MAC)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """The proxy ARP, and the best path to every announced prefix."""
        yield _proxy_arp()
        by_address = {peer.ip: peer for peer in view.peers}
        for prefix, paths in best_paths(announcements(view.peers)).items():
            yield _route(view.node, prefix, by_address[paths[0].next_hop])

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """Pod packets cross the fabric as they are, so br-ex hands those for its own pods to br-int."""
        yield _uplink(view.node)


CNI = Calico()


def announcements(nodes: Iterable[Node]) -> list[Announcement]:
    """What the ready nodes announce: each its pod CIDR, itself the next hop. A node that goes withdraws it."""
    return [Announcement(node.pod_cidr, next_hop=node.ip, speaker=node.ip) for node in nodes if node.ready]


@lru_cache(maxsize=1)
def _proxy_arp() -> Fragment:
    w = Writer("calico", "proxy ARP")
    w.flow(
        t.ARP_RESPONDER,
        t.NORMAL,
        match("arp", arp_op=1, arp_tpa=GATEWAY, PktSource=f.FROM_POD),
        *arp_answer(f.mac_number(GATEWAY_MAC), f.ip_number(GATEWAY)),
    )
    return w.fragment()


@lru_cache(maxsize=65536)
def _route(node: Node, prefix: str, next_hop: Node) -> Fragment:
    w = Writer("calico", f"route to {prefix}")
    length = int(prefix.partition("/")[2])
    w.flow(
        t.L3_FORWARDING,
        t.ROUTE + length,
        match("ip", nw_dst=prefix),
        Set(f.ETH_SRC, node.mac),
        Set(f.ETH_DST, next_hop.mac),
        Set(f.OUT_PORT, UPLINK_PORT),
        Goto(t.L3_DEC_TTL),
    )
    return w.fragment()


@lru_cache(maxsize=4096)
def _uplink(node: Node) -> Fragment:
    w = Writer("calico", f"uplink of {node.name}")
    w.flow(t.UPLINK, t.NORMAL, match("ip", in_port=WIRE_PORT, nw_dst=node.pod_cidr), Output(PATCH_PORT))
    return w.fragment()

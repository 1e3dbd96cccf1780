"""calico: every pod a /32 behind a router that is its node; between nodes plain, in IP in IP, VXLAN or WireGuard.

Source: Calico's "Networking", "Overlay networking", "Encrypt in-cluster pod traffic" and "Dataplane" pages: pods are
behind 169.254.1.1, for which each node answers by proxy ARP with the MAC ee:ee:ee:ee:ee:ee; nodes exchange routes by
BGP: through the controller's RIB, or (speaker bird) in earnest, and then each node's kernel routes its pods' packets as
BIRD tells it. Modes crosssubnet and vxlan-crosssubnet wrap only what leaves the node's subnet of the fabric.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from controllers.agent.several import Several
from controllers.bgp import options as bgp
from controllers.bgp import rib_routes
from controllers.bgp.part import node_parts
from controllers.cni import CALICO_POLICIES, INGRESS_AND_EGRESS, Cni, Traits, blocks, options_of, parts
from controllers.cni.options import choice, switch
from controllers.cni.tunnels import IPIP, VXLAN, WIREGUARD
from controllers.cni.ways import Way
from controllers.flow import fields as f
from controllers.flow.program import Fragment
from controllers.proxy import NodePart
from controllers.state import Lab, Node, NodeView
from controllers.transports import wireguard
from controllers.transports.ipip import ipip
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
        policy_kinds=CALICO_POLICIES,
        encryption=("WireGuard",),
        source=_SOURCE,
        **more,
    )


def _ipip(description: str, **more: Any) -> Traits:
    needs = "ipip in the kernel, else a TUN program"
    return _traits("IP in IP", IPIP.overhead, description, headers=IPIP.headers, needs=needs, **more)


def _vxlan(description: str, **more: Any) -> Traits:
    return _traits("VXLAN", VXLAN.overhead, description, headers=VXLAN.headers, udp_port=UDP_PORT, **more)


class Calico(Cni):
    """The CNI object."""

    name = "calico"
    options = ("mtu", "wireguard", "routes", *bgp.OPTIONS)
    variants = {
        "bgp": _traits("none", 0, "routed; every pod is a /32"),
        "ipip": _ipip("every pod is a /32, wrapped between nodes"),
        "vxlan": _vxlan("every pod is a /32, wrapped between nodes"),
        "crosssubnet": _ipip("every pod is a /32, wrapped between subnets", only_between_subnets=True),
        "vxlan-crosssubnet": _vxlan("every pod is a /32, wrapped between subnets", only_between_subnets=True),
    }

    def traits_of(self, options: Mapping[str, object]) -> Traits:
        """With WireGuard, which takes the place of whatever the mode wraps packets in."""
        traits = super().traits_of(options)
        if not switch(options, "wireguard"):
            return traits
        return replace(
            traits,
            encapsulation="WireGuard",
            overhead=WIREGUARD.overhead,
            needs="wireguard in the kernel, else wireguard-go",
            headers=WIREGUARD.headers,
            udp_port=wireguard.PORT,
            sealed=True,
            only_between_subnets=False,
        )

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """Pod MTU is the fabric's own, less what may be added."""
        traits = self.traits_of(options)
        tunnel = VXLAN.tunnel("vxlan0", str(UDP_PORT)) if traits.encapsulation == "VXLAN" else None
        routed = bgp.of_cni(options).on_the_wire
        if routed and traits.overhead:
            problem = f"nodes with {traits.encapsulation} between them need no BGP"
            raise InputError("mininetes.cni.speaker", problem, "mode: bgp, without wireguard")
        if choice(self.name, options, "routes", blocks.CHOICES) != "node" and traits.overhead:
            problem = f"nodes with {traits.encapsulation} between them have one route each"
            raise InputError("mininetes.cni.routes", problem, "mode: bgp, without wireguard")
        size = self.mtu(fabric_mtu, options)
        return PodNetwork(size, on_link=False, gateway=GATEWAY, gateway_mac=GATEWAY_MAC, tunnel=tunnel, routed=routed)

    def way(self, view: NodeView, peer: Node) -> Way:
        """The switch does VXLAN; the node's kernel does IP in IP and WireGuard."""
        way = super().way(view, peer)
        is_vxlan = self.traits_of(options_of(view)).encapsulation == "VXLAN"
        return Way.DEVICE if way is Way.TUNNEL and not is_vxlan else way

    def devices(self, options: Mapping[str, object]) -> tuple[str, ...]:
        """Of whichever the kernel is to do."""
        kinds = {"IP in IP": ("ipip",), "WireGuard": ("wireguard",)}
        return kinds.get(self.traits_of(options).encapsulation, ())

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """The proxy ARP, and the best path to every announced prefix."""
        yield parts.gateway(self.name, f.ip_number(GATEWAY), f.mac_number(GATEWAY_MAC))
        if bgp.of(view.lab).on_the_wire:
            yield parts.by_routes(self.name, view.node, view.lab.pod_subnet)
            return
        for prefix, hops in rib_routes.routes(view, self.announced_prefixes).items():
            ways = [self.way(view, hop) for hop in hops]
            if len(hops) > 1 and set(ways) == {Way.NEIGHBOUR}:
                yield rib_routes.by_neighbours(self.name, view.node, hops, prefix)
            else:
                yield from parts.route(self.name, ways[0], view.node, hops[0], prefix, VNI)

    def announced_prefixes(self, view: NodeView, node: Node) -> Iterable[str]:
        """What a node announces of its pods' addresses."""
        routes = choice(self.name, options_of(view), "routes", blocks.CHOICES)
        return blocks.announced(routes, node.pod_cidr, view.addresses.get(node.name, ()))

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """Pod packets that cross the fabric as they are: br-ex hands those for its own pods to br-int."""
        traits = self.traits_of(options_of(view))
        is_plain = not traits.overhead or traits.only_between_subnets
        if is_plain:
            yield parts.from_wire(self.name, view)
            yield from rib_routes.uplink(self.name, view)

    def node_part(self, lab: Lab, pid: int, run: Path) -> NodePart | None:
        """BIRD, if it is the speaker; what wraps packets in the node's kernel."""
        options = lab.options.get("cni", {})
        size = self.mtu(lab.fabric_mtu, options)
        found = node_parts(lab, pid, run)
        match self.traits_of(options).encapsulation:
            case "IP in IP":
                found.append(ipip(pid, run, size, self._behind))
            case "WireGuard":
                found.append(wireguard.WireGuard(pid, run, "wireguard.cali", size))
        return Several(*found) if found else None

    def _behind(self, view: NodeView) -> list[Node]:
        """The peers that the node's device leads to."""
        return [peer for peer in view.peers if self.way(view, peer) is Way.DEVICE]


CNI = Calico()

"""flannel: one subnet a node, pods of one node on one link; backends vxlan, host-gw, udp and wireguard.

Source: flannel's Documentation/backends.md. vxlan: VNI 1, UDP port 8472 on Linux; a route per remote pod CIDR, whose
next hop is the remote VTEP, whose MAC and node address are known in advance. host-gw: the next hop is the node itself,
which must be on the same link. udp: a program behind the TUN device flannel0 wraps packets in UDP, port 8285.
wireguard: device flannel-wg, port 51820; flannel leaves the 20 bytes unused that an outer IPv6 header would take.
Subnet leases are the nodes' pod CIDRs in the lab's own store, as those of flannel's kube subnet manager, and (store:
etcd) in an etcd too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from controllers.agent.several import Several
from controllers.cni import Cni, Traits, options_of, parts
from controllers.cni.options import choice
from controllers.cni.tunnels import UDP, VXLAN, WIREGUARD
from controllers.cni.ways import Way
from controllers.flow.fields import mac_text
from controllers.flow.program import Fragment
from controllers.proxy import NodePart
from controllers.state import Lab, Node, NodeView
from controllers.stores import etcd
from controllers.stores.leases import SubnetLeases
from controllers.transports import wireguard
from controllers.transports.userspace import UserspaceTunnel
from topo.cluster.network import Daemon, PodNetwork

VNI, UDP_PORT, USERSPACE_PORT = 1, 8472, 8285
_SOURCE = "flannel, Documentation/backends.md"
STORES = ("embedded", "etcd")
_WAYS = {"vxlan": Way.TUNNEL, "host-gw": Way.NEIGHBOUR, "udp": Way.DEVICE, "wireguard": Way.DEVICE}


class Flannel(Cni):
    """The CNI object."""

    name = "flannel"
    option = "backend"
    options = ("mtu", "store")
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
        "udp": Traits(
            "UDP",
            UDP.overhead,
            "routes per node",
            "overlay by a program of each node behind a TUN device, for want of anything better",
            needs="/dev/net/tun",
            source=_SOURCE,
            headers=UDP.headers,
            udp_port=USERSPACE_PORT,
        ),
        "wireguard": Traits(
            "WireGuard",
            WIREGUARD.overhead,
            "routes per node",
            "overlay, encrypted",
            encryption=("WireGuard",),
            needs="wireguard in the kernel, else wireguard-go",
            source=_SOURCE,
            headers=WIREGUARD.headers,
            udp_port=wireguard.PORT,
            sealed=True,
            margin=20,
        ),
    }

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """Pod MTU is the fabric's less the encapsulation, as flannel works it out from the node's interface."""
        choice(self.name, options, "store", STORES)
        tunnel = VXLAN.tunnel("vxlan0", str(UDP_PORT)) if self.variant(options) == "vxlan" else None
        return PodNetwork(self.mtu(fabric_mtu, options), on_link=True, tunnel=tunnel)

    def way(self, view: NodeView, peer: Node) -> Way:
        """The backend's."""
        return _WAYS[self.variant(options_of(view))]

    def devices(self, options: Mapping[str, object]) -> tuple[str, ...]:
        """WireGuard's."""
        return ("wireguard",) if self.variant(options) == "wireguard" else ()

    def outside(self, address: str, options: Mapping[str, object]) -> tuple[Daemon, ...]:
        """The etcd, if there is one."""
        return (etcd.daemon(address),) if choice(self.name, options, "store", STORES) == "etcd" else ()

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """Neighbours on the link, and one route per remote node."""
        yield parts.gateway(self.name, view.node.gateway_ip, view.node.gateway_mac)
        for pod in view.pods:
            yield parts.neighbour(self.name, pod)
        for peer in view.peers:
            if peer.ready:
                yield from parts.route(self.name, self.way(view, peer), view.node, peer, peer.pod_cidr, VNI)

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """What comes in for its pods, unless it is wrapped."""
        is_plain = self.variant(options_of(view)) == "host-gw"
        return (parts.from_wire(self.name, view),) if is_plain else ()

    def node_part(self, lab: Lab, pid: int, run: Path) -> NodePart | None:
        """What the backend has in the node, and its lease in the etcd."""
        options = lab.options.get("cni", {})
        variant, size = self.variant(options), self.mtu(lab.fabric_mtu, options)
        found: list[NodePart] = []
        secret = b""
        if variant == "udp":
            found.append(UserspaceTunnel(pid, run, "flannel0", size, ("udp", str(USERSPACE_PORT))))
        elif variant == "wireguard":
            found.append(wireguard.WireGuard(pid, run, "flannel-wg", size))
            secret = wireguard.lab_secret(run.parent / "wireguard.secret")
        if options.get("store") == "etcd":
            found.append(SubnetLeases(pid, _BACKENDS[variant], lambda node: backend_data(variant, node, secret)))
        return Several(*found) if found else None


CNI = Flannel()


# The part of flannel's configuration that concerns the backend.
_BACKENDS: Mapping[str, Mapping[str, object]] = {
    "vxlan": {"Type": "vxlan", "VNI": VNI, "Port": UDP_PORT},
    "host-gw": {"Type": "host-gw"},
    "udp": {"Type": "udp", "Port": USERSPACE_PORT},
    "wireguard": {"Type": "wireguard", "ListenPort": wireguard.PORT},
}


def backend_data(variant: str, node: Node, secret: bytes) -> Mapping[str, object] | None:
    """What others must know of a node beside its address. secret: of the lab, that WireGuard's keys are made of."""
    if variant == "vxlan":
        return {"VNI": VNI, "VtepMAC": mac_text(node.gateway_mac)}
    return {"PublicKey": wireguard.public_key(secret, node.name)} if variant == "wireguard" else None

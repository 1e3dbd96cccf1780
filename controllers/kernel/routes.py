"""A Linux CNI's ways to other nodes' pods: routes over the fabric, or through a VXLAN device as flannel sets it up.

Source: flannel, backend vxlan: one neighbour and one forwarding entry a remote node, both known in advance, and a route
over its device's address; host-gw and Calico without encapsulation: the remote node is the next hop.
"""

from __future__ import annotations

import socket

from controllers import cni as cnis
from controllers.agent.commands import run
from controllers.cni import Cni, options_of
from controllers.cni.ways import Way
from controllers.flow.fields import ip_text, mac_text
from controllers.registry import discover
from controllers.state import Node, NodeView
from topo.cluster.network import Tunnel
from topo.system import inside

_DEVICE = "flannel.1"
_VNI = 1


class PeerRoutes:
    """Keeps one node's routes to its peers' pods."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._cnis: dict[str, Cni] = discover(cnis, "CNI")
        self._held: dict[str, list[str]] = {}

    def sync(self, view: NodeView) -> None:
        """One batch of ip(8) commands for what changed. Raises RuntimeError."""
        cni = self._cnis[view.lab.cni]
        plan = cni.plan(view.lab.fabric_mtu, options_of(view))
        commands = device(view.node, plan.tunnel, plan.mtu) if plan.tunnel and not self._held else []
        if commands and self._has_device():  # of an agent before this one
            del commands[0]
        # A routing daemon has its own ways into the kernel.
        ways = {} if plan.routed else {peer: cni.way(view, peer) for peer in view.peers}
        wanted = {peer.name: to_peer(peer, None) for peer, way in ways.items() if way is Way.NEIGHBOUR}
        wanted |= {peer.name: to_peer(peer, plan.tunnel) for peer, way in ways.items() if way is Way.TUNNEL}
        for name, lines in self._held.items():
            if wanted.get(name) != lines:
                commands += [line.replace(" replace ", " del ", 1) for line in reversed(lines)]
        commands += [line for name, lines in wanted.items() if self._held.get(name) != lines for line in lines]
        for tool in ("ip", "bridge"):
            text = "".join(f"{c.partition(' ')[2]}\n" for c in commands if c.startswith(f"{tool} "))
            if text:
                run(self._pid, tool, "-force", "-batch", "-", text=text)
        self._held = wanted

    def _has_device(self) -> bool:
        with inside(self._pid):
            return any(name == _DEVICE for _, name in socket.if_nameindex())

    def close(self) -> None:
        """The routes go with the node."""


def vtep_mac(node: Node) -> str:
    """The MAC of a node's VXLAN device: locally administered, from its address."""
    return mac_text(0x0A59 << 32 | node.ip)


def device(node: Node, tunnel: Tunnel, mtu: int) -> list[str]:
    """The node's own end: made, then configured; its address is the first of its pod CIDR, which is no pod's."""
    port = tunnel.options["dst_port"]
    return [
        f"ip link add {_DEVICE} address {vtep_mac(node)} type vxlan id {_VNI} dstport {port} local {ip_text(node.ip)}"
        " nolearning",
        f"ip address replace {ip_text(node.gateway_ip - 1)}/32 dev {_DEVICE}",
        f"ip link set {_DEVICE} mtu {mtu} up",
    ]


def to_peer(peer: Node, tunnel: Tunnel | None) -> list[str]:
    """The way to one peer's pods."""
    if tunnel is None:
        return [f"ip route replace {peer.pod_cidr} via {ip_text(peer.ip)} dev br-ex onlink"]
    end, mac = ip_text(peer.gateway_ip - 1), vtep_mac(peer)
    return [
        f"bridge fdb replace {mac} dev {_DEVICE} dst {ip_text(peer.ip)}",
        f"ip neigh replace {end} lladdr {mac} dev {_DEVICE} nud permanent",
        f"ip route replace {peer.pod_cidr} via {end} dev {_DEVICE} onlink",
    ]

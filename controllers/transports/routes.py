"""One node's routes to its peers' pods through a device of its kernel."""

from __future__ import annotations

import socket
from collections.abc import Callable

from controllers.agent.commands import run
from controllers.flow.fields import ip_text
from controllers.state import Node, NodeView
from topo.system import inside

# What stands in a route between its prefix and its device: a next hop, or nothing.
Via = Callable[[Node], str]


def directly(peer: Node) -> str:
    """The device knows where each destination is."""
    return ""


def through_node(peer: Node) -> str:
    """The peer's own address is the next hop, on whichever link (ip-route(8), onlink)."""
    return f"via {ip_text(peer.ip)} onlink "


class DeviceRoutes:
    """Kept as the view wants them. A device that is made anew has none, and gets all of them again."""

    def __init__(self, pid: int, device: str, via: Via = directly) -> None:
        self._pid, self._device, self._via = pid, device, via
        self._held: frozenset[str] = frozenset()
        self._index = 0

    def sync(self, view: NodeView) -> None:
        """One batch of ip(8) commands for what changed. Raises RuntimeError, and OSError if the device is not there."""
        with inside(self._pid):
            index = socket.if_nametoindex(self._device)
        held = self._held if index == self._index else frozenset()
        wanted = frozenset(self._route(view.node, peer) for peer in view.peers)
        lines = [f"route del {route}" for route in sorted(held - wanted)]
        lines += [f"route replace {route}" for route in sorted(wanted - held)]
        if lines:
            run(self._pid, "ip", "-force", "-batch", "-", text="\n".join(lines) + "\n")
        self._held, self._index = wanted, index

    def _route(self, node: Node, peer: Node) -> str:
        return f"{peer.pod_cidr} {self._via(peer)}dev {self._device} src {ip_text(node.gateway_ip)}"

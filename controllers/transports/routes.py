"""One node's end of a tunnel: its address, and the routes to its peers' pods through a device of its kernel."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence

from controllers.agent.commands import run
from controllers.flow.fields import ip_text
from controllers.state import Node, NodeView
from topo.system import inside

# What stands in a route between its prefix and its device: a next hop, or nothing.
Via = Callable[[Node], str]
# The peers whose pods are behind the device.
Behind = Callable[[NodeView], Sequence[Node]]


def directly(peer: Node) -> str:
    """The device knows where each destination is."""
    return ""


def through_node(peer: Node) -> str:
    """The peer's own address is the next hop, on whichever link (ip-route(8), onlink)."""
    return f"via {ip_text(peer.ip)} onlink "


def everyone(view: NodeView) -> Sequence[Node]:
    """All other nodes."""
    return view.peers


def tunnel_address(node: Node) -> str:
    """A node's own address on its tunnel: the first of its pod CIDR, which is no pod's (as flannel's devices have)."""
    return ip_text(node.gateway_ip - 1)


class DeviceRoutes:
    """Kept as they are wanted. A device that is made anew has none, and gets its address and all of them again."""

    def __init__(self, pid: int, device: str, mtu: int, via: Via = directly) -> None:
        self._pid, self._device, self._mtu, self._via = pid, device, mtu, via
        # By prefix.
        self._held: dict[str, str] = {}
        self._index = 0

    def sync(self, node: Node, peers: Sequence[Node]) -> None:
        """One batch of ip(8) commands for what changed. Raises RuntimeError, and OSError if the device is not there."""
        with inside(self._pid):
            index = socket.if_nametoindex(self._device)
        lines = []
        if index != self._index:
            self._held = self._found()
            lines.append(f"address replace {tunnel_address(node)}/32 dev {self._device}")
            lines.append(f"link set {self._device} mtu {self._mtu} up")
        wanted = {peer.pod_cidr: f"{self._via(peer)}dev {self._device} src {tunnel_address(node)}" for peer in peers}
        lines += [f"route del {prefix} dev {self._device}" for prefix in sorted(self._held.keys() - wanted.keys())]
        lines += [f"route replace {p} {rest}" for p, rest in sorted(wanted.items()) if self._held.get(p) != rest]
        self._index = 0  # until all of it succeeded, nobody knows what there is
        if lines:
            run(self._pid, "ip", "-force", "-batch", "-", text="\n".join(lines) + "\n")
        self._held, self._index = wanted, index

    def _found(self) -> dict[str, str]:
        """What an agent before this one has left there."""
        shown = json.loads(run(self._pid, "ip", "-json", "route", "show", "dev", self._device) or "[]")
        return {route["dst"]: "" for route in shown}

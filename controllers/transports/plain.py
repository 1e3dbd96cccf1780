"""Nodes as each other's next hops: their own packets to others' pods, and their pods' to other nodes, as they are.

Source: kube-router, "how-it-works": routes to other nodes' pod CIDRs in the kernel; what pods send to a node is not
masqueraded, for every node has a route back.
"""

from __future__ import annotations

import socket

from controllers.agent.commands import run
from controllers.flow.fields import ip_text
from controllers.state import Node, NodeView
from topo.system import inside

_DEVICE = "br-ex"


class PlainNeighbours:
    """One node's routes to its peers' pods, unless a daemon has them, and the addresses that see its pods as they are.

    The node's rules (topo/nodes.py) masquerade nothing that goes to the set `neighbours`.
    """

    def __init__(self, pid: int, has_routes: bool) -> None:
        self._pid, self._has_routes = pid, has_routes
        self._held: frozenset[Node] = frozenset()
        self._index = 0

    def sync(self, view: NodeView) -> None:
        """Make the kernel hold what changed. Raises RuntimeError, and OSError if the device is not there."""
        with inside(self._pid):
            index = socket.if_nametoindex(_DEVICE)
        wanted = frozenset(view.peers)
        if (wanted, index) == (self._held, self._index):
            return
        lines = ["flush set ip mininetes neighbours"]
        if wanted:
            members = ", ".join(sorted(ip_text(peer.ip) for peer in wanted))
            lines.append(f"add element ip mininetes neighbours {{ {members} }}")
        run(self._pid, "nft", "-f", "-", text="\n".join(lines) + "\n")
        if not self._has_routes:
            # A device that was made anew has none.
            before = {_route(peer) for peer in self._held} if index == self._index else set()
            now = {_route(peer) for peer in wanted}
            batch = [f"route del {route}" for route in sorted(before - now)]
            batch += [f"route replace {route}" for route in sorted(now - before)]
            run(self._pid, "ip", "-force", "-batch", "-", text="\n".join(batch) + "\n")
        self._held, self._index = wanted, index

    def close(self) -> None:
        """Rules and routes go with the node."""


def _route(peer: Node) -> str:
    return f"{peer.pod_cidr} via {ip_text(peer.ip)} dev {_DEVICE}"

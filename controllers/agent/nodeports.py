"""Node ports for the node's own programs: what they ask of their own addresses goes to the switch instead.

The node's rules (topo/nodes.py) send connections to a local address and a port of this set to NODEPORT_IP, which
br-int serves.
"""

from __future__ import annotations

from controllers.agent.commands import run
from controllers.services import external
from controllers.state import NodeView


class NodePorts:
    """Keeps the set of one node."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._held: list[str] = []

    def sync(self, view: NodeView) -> None:
        """Make the set hold every Service's node ports, in one step."""
        wanted = sorted(f"{p.protocol} . {p.node_port}" for p in external(view.services) if p.node_port)
        if wanted == self._held:
            return
        elements = f"add element ip mininetes nodeports {{ {', '.join(wanted)} }}\n" if wanted else ""
        run(self._pid, "nft", "-f", "-", text=f"flush set ip mininetes nodeports\n{elements}")
        self._held = wanted

    def close(self) -> None:
        """Nothing runs."""

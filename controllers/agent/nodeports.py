"""Node ports for the node's own programs: what they ask of their own addresses goes to the switch instead.

The node's rules (topo/nodes.py) send connections to a local address and a port of this set to NODEPORT_IP, which
br-int serves.
"""

from __future__ import annotations

from collections.abc import Iterable

from controllers.agent.commands import run
from controllers.services import ServicePort, external
from controllers.state import NodeView


class NodePorts:
    """Keeps the set of one node."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        # None: nobody knows what an agent before this one has put there.
        self._held: tuple[str, ...] | None = None

    def sync(self, view: NodeView) -> None:
        """Make the set hold every Service's node ports, in one step. Raises RuntimeError."""
        wanted = elements(external(view.services))
        if wanted != self._held:
            run(self._pid, "nft", "-f", "-", text=transaction(wanted))
            self._held = wanted

    def close(self) -> None:
        """Nothing runs."""


def elements(ports: Iterable[ServicePort]) -> tuple[str, ...]:
    """The set's elements, sorted."""
    return tuple(sorted({f"{p.protocol} . {p.node_port}" for p in ports if p.node_port}))


def transaction(wanted: tuple[str, ...]) -> str:
    """What nft(8) does in one step, so that no connection sees a set that lacks what it had and will have."""
    add = f"add element ip mininetes nodeports {{ {', '.join(wanted)} }}\n" if wanted else ""
    return f"flush set ip mininetes nodeports\n{add}"

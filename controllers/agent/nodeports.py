"""Services' outer addresses for the node's own programs: what they ask of them goes to the switch instead.

The node's rules (topo/nodes.py) send connections to a local address and a port of set nodeports to NODEPORT_IP, and
those to an address and port of map externals (externalIPs) to the cluster IP; br-int serves both. Addresses of load
balancers need neither: the node has a route to their pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controllers.agent.commands import run
from controllers.flow.fields import ip_text
from controllers.services import ServicePort, external
from controllers.state import NodeView

NODEPORTS, EXTERNALS = "set ip mininetes nodeports", "map ip mininetes externals"


class NodePorts:
    """Keeps the set and the map of one node."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        # None: nobody knows what an agent before this one has put there.
        self._held: Mapping[str, tuple[str, ...]] | None = None

    def sync(self, view: NodeView) -> None:
        """Make set and map hold every Service's ports and addresses, in one step. Raises RuntimeError."""
        wanted = elements(external(view.services))
        if wanted != self._held:
            run(self._pid, "nft", "-f", "-", text=transaction(wanted))
            self._held = wanted

    def close(self) -> None:
        """Nothing runs."""


def elements(ports: Iterable[ServicePort]) -> dict[str, tuple[str, ...]]:
    """The elements of set and map, sorted."""
    node_ports: set[str] = set()
    externals: set[str] = set()
    for port in ports:
        if port.node_port:
            node_ports.add(f"{port.protocol} . {port.node_port}")
        inside = f"{ip_text(port.cluster_ip)} . {port.port}"
        externals |= {f"{ip_text(address)} . {port.protocol} . {port.port} : {inside}" for address in port.external_ips}
    return {NODEPORTS: tuple(sorted(node_ports)), EXTERNALS: tuple(sorted(externals))}


def transaction(wanted: Mapping[str, tuple[str, ...]]) -> str:
    """What nft(8) does in one step, so that no connection sees one that lacks what it had and will have."""
    lines = []
    for name, members in wanted.items():
        lines.append(f"flush {name}")
        if members:
            lines.append(f"add element {name.partition(' ')[2]} {{ {', '.join(members)} }}")
    return "\n".join(lines) + "\n"

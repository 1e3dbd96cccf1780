"""ovs: every Service port is one flow and one select group, whose buckets rewrite to an endpoint each.

The switch hashes a connection to a bucket (group method dp_hash, ovs-ofctl(8)), conntrack keeps it there, and
nothing depends on the controller once the flows are in. An endpoint's change is one message a node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controllers.flow.actions import Action
from controllers.flow.program import Fragment, Writer
from controllers.proxy import NodePart
from controllers.proxy.choosing import by_group
from controllers.proxy.frontends import EndpointSet, check_options, fragments
from controllers.state import Node, NodeView


class Ovs:
    """The proxy mode object, and its balancer."""

    name = "ovs"
    description = "random choice among ready endpoints; one flow an address and one group a Service port"
    attachment = "switch"
    needs_node = needs_loads = False

    def check(self, options: Mapping[str, object]) -> None:
        """None but those of every mode."""
        check_options(self.name, options)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """One fragment a Service port."""
        return fragments(view, self)

    def choose(self, w: Writer, chosen: EndpointSet, node: Node) -> tuple[Action, ...]:
        """A group."""
        return by_group(w, chosen)

    def counts_connections(self, options: Mapping[str, object]) -> bool:
        """No."""
        return False

    def node_part(self, pid: int) -> NodePart | None:
        """None."""
        return None


PROXY = Ovs()

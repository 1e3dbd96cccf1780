"""ovs: every Service port is one flow and one select group, whose buckets rewrite to an endpoint each.

The switch hashes a connection to a bucket (group method dp_hash, ovs-ofctl(8)), conntrack keeps it there, and
nothing depends on the controller once the flows are in. An endpoint's change is one message a node.
"""

from __future__ import annotations

from controllers.flow.actions import Action
from controllers.flow.program import Writer
from controllers.proxy.choosing import by_group
from controllers.proxy.frontends import EndpointSet, FlowProxy
from controllers.state import Node


class Ovs(FlowProxy):
    """The proxy mode object."""

    name = "ovs"
    description = "random choice among ready endpoints; one flow an address and one group a Service port"

    def choose(self, w: Writer, chosen: EndpointSet, node: Node) -> tuple[Action, ...]:
        """A group."""
        return by_group(w, chosen)


PROXY = Ovs()

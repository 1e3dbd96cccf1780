"""iptables: kube-proxy's chains as flows: one flow a Service address (KUBE-SVC-), one flow an endpoint (KUBE-SEP-).

Equal weights for every new connection, as the rules' statistic match gives them; a hash of the connection stands for
chance. More messages than a group needs, and each counts its own connections.
Source: Kubernetes, "Virtual IPs and Service Proxies", iptables proxy mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controllers.flow import fields as f
from controllers.flow.actions import Action, Multipath
from controllers.flow.program import Fragment, Writer
from controllers.proxy import NodePart
from controllers.proxy.choosing import CONNECTION, by_index
from controllers.proxy.frontends import EndpointSet, check_options, fragments
from controllers.state import Node, NodeView


class Iptables:
    """The proxy mode object, and its balancer."""

    name = "iptables"
    description = "kube-proxy's iptables mode in flows: random, equal weights; one flow an endpoint"
    attachment = "switch"
    needs_node = needs_loads = False

    def check(self, options: Mapping[str, object]) -> None:
        """None but those of every mode."""
        check_options(self.name, options)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """One fragment a Service port."""
        return fragments(view, self)

    def choose(self, w: Writer, chosen: EndpointSet, node: Node) -> tuple[Action, ...]:
        """A hash of the connection over as many flows as there are endpoints."""
        order = list(chosen.endpoints)
        return by_index(w, chosen, order, (Multipath(CONNECTION, len(order), f.INDEX),))

    def counts_connections(self, options: Mapping[str, object]) -> bool:
        """No."""
        return False

    def node_part(self, pid: int) -> NodePart | None:
        """None."""
        return None


PROXY = Iptables()

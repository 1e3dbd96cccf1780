"""iptables: kube-proxy's chains as flows: one flow a Service address (KUBE-SVC-), one flow an endpoint (KUBE-SEP-).

Equal weights for every new connection, as the rules' statistic match gives them; a hash of the connection stands for
chance. More messages than a group needs, and each counts its own connections.
Source: Kubernetes, "Virtual IPs and Service Proxies", iptables proxy mode.
"""

from __future__ import annotations

from controllers.flow import fields as f
from controllers.flow.actions import Action, Multipath
from controllers.flow.program import Writer
from controllers.proxy.choosing import CONNECTION, by_index
from controllers.proxy.frontends import EndpointSet, FlowProxy
from controllers.state import Node


class Iptables(FlowProxy):
    """The proxy mode object."""

    name = "iptables"
    description = "kube-proxy's iptables mode in flows: random, equal weights; one flow an endpoint"

    def choose(self, w: Writer, chosen: EndpointSet, node: Node) -> tuple[Action, ...]:
        """A hash of the connection over as many flows as there are endpoints."""
        return by_index(w, chosen, chosen.endpoints, (Multipath(CONNECTION, len(chosen.endpoints), f.INDEX),))


PROXY = Iptables()

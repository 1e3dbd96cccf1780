"""cilium: what Cilium does in kube-proxy's place: Maglev or a random choice, and direct server return.

Source: Cilium, "Kubernetes Without kube-proxy": loadBalancer.algorithm and .mode; with Maglev every node sends the same
connection to the same backend, and a client with affinity is hashed by its address alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controllers.cni.cilium_options import MAGLEV, of
from controllers.flow import fields as f
from controllers.flow.actions import Action
from controllers.flow.program import Fragment, Writer
from controllers.proxy import dsr
from controllers.proxy.choosing import by_group
from controllers.proxy.frontends import EndpointSet, FlowProxy
from controllers.services import ServicePort
from controllers.state import Node, NodeView

_PORTS: Mapping[str, tuple[f.Field, f.Field]] = {
    "tcp": (f.TCP_SRC, f.TCP_DST),
    "udp": (f.UDP_SRC, f.UDP_DST),
    "sctp": (f.SCTP_SRC, f.SCTP_DST),
}


class Cilium(FlowProxy):
    """The proxy mode object: Maglev."""

    name = "cilium"
    description = "Cilium's own, and the default with CNI cilium, whose option loadBalancer says the rest; else Maglev"

    def choose(self, w: Writer, chosen: EndpointSet, node: Node) -> tuple[Action, ...]:
        """A group that hashes the connection, or the client if it is to stay with its endpoint."""
        return by_group(w, chosen, self.hashed(chosen.port))

    def hashed(self, port: ServicePort) -> tuple[f.Field, ...]:
        """By which fields of a packet its endpoint is chosen. Rendezvous hashing has Maglev's properties, even load and
        little disruption, without its table."""
        source = (f.IP_SRC,)
        return source if port.affinity else (f.IP_SRC, f.IP_DST, f.IP_PROTO, *_PORTS[port.protocol])

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """By whichever algorithm; and what clients outside the cluster ask, past other nodes' conntrack."""
        options = of(view.lab)
        proxy = self if options.algorithm == MAGLEV else _RANDOM
        yield from super(Cilium, proxy).fragments(view)
        if options.is_dsr:
            yield from dsr.fragments(view, proxy.hashed)


class _Random(Cilium):
    """The same with a random choice."""

    def hashed(self, port: ServicePort) -> tuple[f.Field, ...]:
        """None: the switch's own choice."""
        return ()


_RANDOM = _Random()
PROXY = Cilium()

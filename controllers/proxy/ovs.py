"""ovs: every Service port is one flow and one select group, whose buckets rewrite to an endpoint each.

The switch hashes a connection to a bucket (group method dp_hash, ovs-ofctl(8)), conntrack keeps it there, and
nothing depends on the controller once the flows are in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from controllers.flow import tables as t
from controllers.flow.actions import ZONE, Ct, Goto, Nat, ToGroup
from controllers.flow.program import Bucket, Fragment, Writer, match
from controllers.proxy import NodePart
from controllers.services import ServicePort, reach
from controllers.state import NodeView


class Ovs:
    """The proxy mode object."""

    name = "ovs"
    description = "random choice among ready endpoints, one flow and one group a Service port"
    attachment = "switch"

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """One fragment a Service port; the same object for every node."""
        return _all(_ByIdentity(view.services))

    def node_part(self, pid: int) -> NodePart | None:
        """None."""
        return None


PROXY = Ovs()


class _ByIdentity:
    """Hashes a mapping by which one it is: the state makes a new one when a Service changes."""

    __slots__ = ("mapping",)

    def __init__(self, mapping: Mapping[str, ServicePort]) -> None:
        self.mapping = mapping

    def __hash__(self) -> int:
        return id(self.mapping)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self.mapping is other.mapping


@lru_cache(maxsize=2)
def _all(services: _ByIdentity) -> tuple[Fragment, ...]:
    return tuple(service_port(port) for port in services.mapping.values())


@lru_cache(maxsize=1 << 17)
def service_port(port: ServicePort) -> Fragment:
    """The flow and the group of one port; without a ready endpoint the connection is rejected, not left hanging.

    Source: Kubernetes, "Virtual IPs and Service Proxies"; kube-proxy rejects Services without endpoints.
    """
    w = Writer("service", port.key)
    wanted = match(port.protocol, nw_dst=port.cluster_ip, tp_dst=port.port)
    endpoints = reach(port, "", "").cluster
    if not endpoints:
        w.flow(t.SERVICE_LB, t.NORMAL, wanted, Goto(t.REJECT))
        return w.fragment()
    w.group(
        port.group,
        (Bucket((Ct(ZONE, t.after(t.SERVICE_LB), commit=True, nat=Nat("dst", e.ip, e.port)),)) for e in endpoints),
    )
    w.flow(t.SERVICE_LB, t.NORMAL, wanted, ToGroup(port.group))
    return w.fragment()

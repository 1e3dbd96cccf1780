"""Where a Service port is reached on a node, and what becomes of it there: shared by every proxy mode that uses flows.

Source: Kubernetes, "Virtual IPs and Service Proxies", "Service: external traffic policy", and what kube-proxy does:
clients of external addresses are masqueraded unless the policy is Local; with Local, the cluster's own pods and the
node itself still reach every endpoint, others only this node's; without any endpoint a connection is rejected, without
a local one where it needs one dropped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, collapse_addresses
from typing import Any

from controllers.features.base import drop
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Action, Goto, Set
from controllers.flow.kept import kept
from controllers.flow.program import Fragment, Translation, Writer, match
from controllers.loads import Load, Loads, Server
from controllers.proxy import NodePart
from controllers.services import ByIdentity, Endpoint, ServicePort, reach
from controllers.state import Node, NodeView
from topo.cluster.errors import InputError
from topo.cluster.wiring import NODEPORT_IP

REJECT = "reject"
# Number of a Service's second set of endpoints, those of this node alone: above every ServicePort.group.
LOCAL_SET = 1 << 30


@dataclass(frozen=True, slots=True)
class Options:
    """What kube-proxy's configuration says of masquerading (KubeProxyConfiguration v1alpha1).

    masquerade_all: hide every client; detect_local: tell the cluster's own pods from others (else none are).
    """

    masquerade_all: bool = False
    detect_local: bool = True


def options(values: Mapping[str, object]) -> Options:
    """From the lab file's mininetes.proxy. Raises InputError for a value of another type."""
    known = {"masqueradeAll": "masquerade_all", "detectLocal": "detect_local"}
    found: dict[str, bool] = {}
    for key, name in known.items():
        value = values.get(key, getattr(Options(), name))
        if not isinstance(value, bool):
            raise InputError(f"mininetes.proxy.{key}", f"{value!r} is wrong", "true or false")
        found[name] = value
    return Options(**found)


def check_options(mode: str, values: Mapping[str, object], own: Collection[str] = ()) -> None:
    """Raise InputError for an option that is neither every mode's nor in `own`, or of the wrong type."""
    known = ("masqueradeAll", "detectLocal", *own)
    for key in values:
        if key not in known:
            problem = f"proxy mode {mode} has no such option"
            raise InputError(f"mininetes.proxy.{key}", problem, f"one of: {', '.join(known)}")
    options(values)


@dataclass(frozen=True, slots=True)
class Frontend:
    """One address and port, for one kind of client (fields: further items of its match).

    endpoints: whom it reaches; where there are none, `otherwise` says what to do: REJECT, or a drop reason.
    """

    address: int
    port: int
    fields: tuple[tuple[str, Any], ...]
    endpoints: tuple[Endpoint, ...]
    local: bool = False
    masquerade: bool = False
    otherwise: int | str = REJECT
    priority: int = t.NORMAL


@dataclass(frozen=True, slots=True)
class EndpointSet:
    """Endpoints among which a mode chooses. number: unique on the node, as a group's number must be.

    loads: of each endpoint on this node, for a proxy that asks for them.
    """

    number: int
    port: ServicePort
    endpoints: tuple[Endpoint, ...]
    loads: tuple[Load, ...] = ()


class FlowProxy(ABC):
    """A proxy mode of flows, whole but for how it chooses among endpoints: name, description and `choose` are its own.

    options: what the lab file may say beside what every mode knows. Hashable, for what it made is kept.
    """

    name: str
    description: str
    options: tuple[str, ...] = ()
    attachment = "switch"
    hides_clients = False
    needs_node = False
    needs_loads = False

    @abstractmethod
    def choose(self, w: Writer, chosen: EndpointSet, node: Node) -> tuple[Action, ...]:
        """Write what the set needs; gives the actions by which a packet in ServiceLB is handed to it.

        node: only for a mode with needs_node or needs_loads; others get whichever node asked first.
        """

    def check(self, options: Mapping[str, object]) -> None:
        """Raise InputError for an option that is neither every mode's nor in `options`, or of the wrong type."""
        check_options(self.name, options, self.options)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """One fragment a Service port; the same object for every node, unless something in it depends on the node."""
        return fragments(view, self)

    def counts_connections(self, options: Mapping[str, object]) -> bool:
        """Whether it looks at EndpointSet.loads."""
        return self.needs_loads

    def needs(self, options: Mapping[str, object]) -> tuple[str, ...]:
        """Nothing but Open vSwitch."""
        return ()

    def node_part(self, pid: int) -> NodePart | None:
        """None: everything is in the flows."""
        return None


def frontends(port: ServicePort, node: Node, rules: Options) -> Iterator[Frontend]:
    """Every way in to the Service port on this node. Pure."""
    found = reach(port, node.name, node.zone)
    # Whether others could be served elsewhere decides between silence and a reject.
    without_local: int | str = f.DROP_NO_LOCAL if found.any_endpoint else REJECT
    inside = found.local if port.internal_local else found.cluster
    yield Frontend(
        port.cluster_ip,
        port.port,
        (),
        inside,
        port.internal_local,
        rules.masquerade_all,
        without_local if port.internal_local else REJECT,
    )
    external = [(address, port.port, True) for address in port.load_balancer_ips]
    external += [(address, port.port, False) for address in port.external_ips]
    external += [(node.ip, port.node_port, False)] if port.node_port else []
    for address, number, is_limited in external:
        for one in _from_outside(port, address, number, found.cluster, found.local, without_local, rules):
            yield from _limited(one, port.source_ranges, node) if is_limited else (one,)
        if is_limited and port.source_ranges:
            yield Frontend(address, number, (), (), otherwise=f.DROP_SOURCE_RANGE, priority=t.LOW + 1)
    if port.node_port:  # what the node's own programs ask of its own addresses
        yield Frontend(f.ip_number(NODEPORT_IP), port.node_port, (), found.cluster, masquerade=True)


def _from_outside(
    port: ServicePort,
    address: int,
    number: int,
    cluster: tuple[Endpoint, ...],
    local: tuple[Endpoint, ...],
    without_local: int | str,
    rules: Options,
) -> Iterator[Frontend]:
    if not port.external_local:
        yield Frontend(address, number, (), cluster, masquerade=True)
        return
    own = (("PktSource", f.FROM_GATEWAY),)
    yield Frontend(address, number, own, cluster, masquerade=True, priority=t.HIGH)
    if rules.detect_local:
        pods = (("PktSource", f.FROM_POD),)
        yield Frontend(address, number, pods, cluster, masquerade=False, priority=t.HIGH)
    yield Frontend(address, number, (), local, local=True, otherwise=without_local)


def _limited(one: Frontend, ranges: tuple[str, ...], node: Node) -> Iterator[Frontend]:
    """The same for clients of these ranges only. The node counts by its own address, whichever its packets bear."""
    if not ranges:
        yield one
        return
    networks = list(collapse_addresses(IPv4Network(r, strict=False) for r in ranges))
    source = dict(one.fields).get("PktSource")
    if source != f.FROM_GATEWAY:
        for network in networks:
            yield _with(one, (("nw_src", str(network)), *one.fields), one.priority)
    # With policy Local the node's own packets have a frontend of their own.
    if source == f.FROM_GATEWAY or (source is None and not one.local):
        own = (("PktSource", f.FROM_GATEWAY),)
        if any(int(n.network_address) <= node.ip <= int(n.broadcast_address) for n in networks):
            yield _with(one, own, t.HIGH)
        else:
            yield Frontend(one.address, one.port, own, (), otherwise=f.DROP_SOURCE_RANGE, priority=t.HIGH)


def _with(one: Frontend, fields: tuple[tuple[str, Any], ...], priority: int) -> Frontend:
    return Frontend(one.address, one.port, fields, one.endpoints, one.local, one.masquerade, one.otherwise, priority)


def fragments(view: NodeView, proxy: FlowProxy) -> Iterable[Fragment]:
    """What FlowProxy.fragments gives."""
    rules = _options(ByIdentity(view.lab.options))
    is_own = proxy.needs_node or proxy.needs_loads
    shared, own = _split(ByIdentity(view.services), proxy, rules, view.node if is_own else None)
    yield from shared
    for port in own:
        if proxy.needs_loads:
            yield _loaded(port, view.node, proxy, rules, _loads(port, view.loads))
        else:
            yield service_port(port, view.node, proxy, rules)
    if rules.detect_local:
        yield _from_elsewhere(view.lab.service_subnet)


@lru_cache(maxsize=16)
def _from_elsewhere(service_subnet: str) -> Fragment:
    """A cluster IP asked from outside the cluster: the answer must come back through this node, so hide the client."""
    w = Writer("service", "cluster IPs from outside")
    w.flow(
        t.CONNTRACK_STATE,
        t.LOW,
        match("ip", ct_state="+new+trk", PktSource=f.FROM_UPLINK, nw_dst=service_subnet),
        Set(f.MASQUERADE, 1),
        Goto(t.after(t.CONNTRACK_STATE)),
    )
    return w.fragment()


@lru_cache(maxsize=4)
def _options(lab_options: ByIdentity) -> Options:
    return options(lab_options.mapping.get("proxy", {}))


# Stands for any node in what no node's own properties enter.
_NOBODY = Node("", 0, 0, 0, "0.0.0.0/32", True)


@lru_cache(maxsize=4)
def _split(
    services: ByIdentity, proxy: FlowProxy, rules: Options, node: Node | None
) -> tuple[tuple[Fragment, ...], tuple[ServicePort, ...]]:
    """Fragments that all nodes share, and the ports of which each node makes its own."""
    if node is not None:
        return (), tuple(services.mapping.values())
    ports: list[ServicePort] = list(services.mapping.values())
    shared = tuple(service_port(port, _NOBODY, proxy, rules) for port in ports if port.is_same_everywhere)
    return shared, tuple(port for port in ports if not port.is_same_everywhere)


def _loads(port: ServicePort, loads: Loads) -> tuple[tuple[Endpoint, Load], ...]:
    found = ((e, loads.get(Server(port.protocol, e.ip, e.port))) for e in port.endpoints)
    return tuple((endpoint, load) for endpoint, load in found if load is not None)


@kept
def service_port(port: ServicePort, node: Node, proxy: FlowProxy, rules: Options) -> Fragment:
    """All flows and groups of one Service port on one node."""
    return _build(port, node, proxy, rules, {})


@kept
def _loaded(
    port: ServicePort, node: Node, proxy: FlowProxy, rules: Options, loads: tuple[tuple[Endpoint, Load], ...]
) -> Fragment:
    return _build(port, node, proxy, rules, dict(loads))


def _build(port: ServicePort, node: Node, proxy: FlowProxy, rules: Options, loads: Mapping[Endpoint, Load]) -> Fragment:
    w = Writer("service", port.key)
    ways: dict[bool, tuple[Action, ...]] = {}
    for one in frontends(port, node, rules):
        wanted = match(port.protocol, nw_dst=one.address, tp_dst=one.port, **dict(one.fields))
        if not one.endpoints:
            end = (Goto(t.REJECT),) if isinstance(one.otherwise, str) else drop(one.otherwise)
            w.flow(t.SERVICE_LB, one.priority, wanted, *end)
            continue
        if one.local not in ways:
            number = port.group | (LOCAL_SET if one.local else 0)
            known = tuple(loads.get(e, Load()) for e in one.endpoints) if proxy.needs_loads else ()
            ways[one.local] = proxy.choose(w, EndpointSet(number, port, one.endpoints, known), node)
        hide = (Set(f.MASQUERADE, 1),) if one.masquerade else ()
        w.flow(t.SERVICE_LB, one.priority, wanted, *hide, *ways[one.local])
        if port.protocol == "udp":
            for endpoint in one.endpoints:
                w.translates(Translation(one.address, one.port, endpoint.ip, endpoint.port))
    return w.fragment()

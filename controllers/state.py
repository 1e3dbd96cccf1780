"""The cluster as the compilers see it: watch events in, small frozen views of one node or switch out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import Any

from controllers.flow.fields import ip_number, mac_number
from controllers.loads import Loads
from controllers.numbering import assign_numbers
from controllers.policy.index import NodePolicies, PolicyIndex
from controllers.services import SERVICE_NAME, ServicePort, ports_of
from topo.cluster import wiring

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lab:
    """What holds for the whole lab."""

    pod_subnet: str
    service_subnet: str
    cni: str
    proxy_mode: str
    fabric_mtu: int
    options: Mapping[str, Any] = field(default_factory=dict)
    # "switch" or "bridge", as the proxy mode says (controllers/proxy); where LoadBalancer addresses come from, or "".
    attachment: str = "switch"
    load_balancer_pool: str = ""
    # What the CNI enforces, as KIND/DIRECTION: NetworkPolicy/ingress.
    enforces: tuple[str, ...] = ()
    # "netdev" (userspace) or "system" (the kernel's).
    datapath: str = "system"
    # Whether the CNI knows pods by identities (controllers/identities.py); whether packets to other nodes carry them.
    identities: bool = False
    carries_identities: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A Kubernetes node: its address on the fabric, its slice of the pod subnet, the MACs of br-ex and gw0.

    zone: its label topology.kubernetes.io/zone, or "". subnet: of the fabric, that it is in; nodes of one subnet are
    neighbours.
    """

    name: str
    ip: int
    mac: int
    gateway_mac: int
    pod_cidr: str
    ready: bool
    zone: str = ""
    subnet: str = ""

    @property
    def gateway_ip(self) -> int:
        """The first address of the pod CIDR: the node's own address among its pods."""
        return int(IPv4Network(self.pod_cidr).network_address) + 1


@dataclass(frozen=True, slots=True)
class Published:
    """A pod's port that its node gives to whoever asks the node's (hostPort). host_ip: "" for every address of it."""

    pod: str
    ip: int
    protocol: str
    host_ip: str
    host_port: int
    port: int


# Whose an address is: node, address, published ports; and addresses and published ports by node.
Owner = tuple[str, int, tuple[Published, ...]]
ByNode = tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[Published, ...]]]


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod with a network namespace of its own, attached to a port of the node's switch."""

    key: str
    ip: int
    mac: int
    port: int


@dataclass(frozen=True, slots=True)
class Outside:
    """A machine on the fabric that is no node: the router of the node subnet, from which clients come."""

    name: str
    ip: int
    mac: int


@dataclass(frozen=True, slots=True)
class Router:
    """What a fabric switch is on a fabric of several subnets. subnet: of its rack, "" for a spine, which has none.

    forwarding: what routes, "flows" or the switch's "kernel".
    """

    mac: int
    subnet: str = ""
    forwarding: str = "flows"


@dataclass(frozen=True, slots=True)
class Switch:
    """A fabric switch; ports: OpenFlow port number -> name of the node or switch at the other end."""

    name: str
    tier: str
    ports: Mapping[int, str]
    router: Router | None = None


@dataclass(frozen=True, slots=True)
class NodeView:
    """All that one node's flows depend on."""

    lab: Lab
    node: Node
    pods: tuple[Pod, ...]
    peers: tuple[Node, ...]
    services: Mapping[str, ServicePort]
    outside: tuple[Outside, ...] = ()
    loads: Loads = field(default_factory=dict)
    policies: NodePolicies = field(default_factory=NodePolicies)
    # Identity of each of its pods, by key; empty for a CNI that knows none.
    identities: Mapping[str, int] = field(default_factory=dict)
    # Addresses of every node's pods, by node, and what this one's publish; on the switch or not.
    addresses: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    # Through which peer another is reached, by name, where it is not directly.
    relays: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FabricView:
    """All that one fabric switch's flows depend on. down: (switch, port) whose link is dead."""

    switch: Switch
    switches: Mapping[str, Switch]
    nodes: tuple[Node, ...]
    down: frozenset[tuple[str, int]]
    services: Mapping[str, ServicePort] = field(default_factory=dict)
    outside: tuple[Outside, ...] = ()
    lab: Lab | None = None


def is_ready(node: Object) -> bool:
    """The node's Ready condition; a node that reports none counts as ready."""
    conditions = node.get("status", {}).get("conditions", ())
    return all(c["status"] == "True" for c in conditions if c["type"] == "Ready")


class ClusterState:
    """Watch events applied one by one; each view is a function of the objects held now, never of their history."""

    def __init__(self) -> None:
        self.lab: Lab | None = None
        self.nodes: dict[str, Node] = {}
        self.switches: dict[str, Switch] = {}
        self.outside: dict[str, Outside] = {}
        self.services: dict[str, ServicePort] = {}
        self.loads: dict[str, Loads] = {}
        self.policies = PolicyIndex()
        self.down: frozenset[tuple[str, int]] = frozenset()
        self._pods: dict[str, dict[str, Pod]] = {}
        # Of every pod with a network of its own, by node; and the nodes of which one came or went since last asked.
        self._owners: dict[str, dict[str, Owner]] = {}
        self._owner_home: dict[str, str] = {}
        self._by_node: ByNode = {}, {}
        self._moved: set[str] = set()
        # What views share, until something in it changes: all nodes by name, a node's pods by port.
        self._by_name: tuple[Node, ...] | None = None
        self._by_port: dict[str, tuple[Pod, ...]] = {}
        self._home: dict[str, str] = {}
        self._relays: dict[str, Mapping[str, str]] = {}
        self._service_objects: dict[str, Object] = {}
        self._slices: dict[str, dict[str, Object]] = {}
        self._slice_home: dict[str, str] = {}
        self._owned_ports: dict[str, tuple[str, ...]] = {}
        self._numbers: dict[str, int] = {}
        self._stale: set[str] = set()

    def apply(self, kind: str, event: str, thing: Object) -> None:
        """Take one event (ADDED, MODIFIED or DELETED). Kinds that no flow depends on change nothing."""
        gone = event == "DELETED"
        meta = thing["metadata"]
        key = f"{meta.get('namespace', '')}/{meta['name']}"
        self.policies.apply(kind, event, thing)
        if kind == "Pod":
            self._pod(key, None if gone else thing)
        elif kind == "Attachment":
            self._attachment(f"attachment:{meta['name']}", None if gone else thing["spec"])
        elif kind == "Service":
            self._put(self._service_objects, key, gone, thing)
            self._stale.add(key)
        elif kind == "EndpointSlice":
            service = f"{meta['namespace']}/{meta.get('labels', {}).get(SERVICE_NAME, '')}"
            before = self._slice_home.pop(key, service)
            if before != service:  # relabelled
                self._slices[before].pop(key, None)
            self._put(self._slices.setdefault(service, {}), key, gone, thing)
            self._put(self._slice_home, key, gone, service)
            self._stale |= {before, service}
        elif kind == "Node":
            node, self._by_name = None if gone else _node(thing), None
            if node is None:
                self.nodes.pop(meta["name"], None)
                self.loads.pop(meta["name"], None)
            else:
                self.nodes[meta["name"]] = node
            self._put(self._relays, meta["name"], node is None, _relays(thing))
        elif kind == "FabricSwitch":
            self._put(self.switches, meta["name"], gone, _switch(meta["name"], thing["spec"]))
        elif kind == "Outside":
            spec = thing["spec"]
            one = Outside(meta["name"], ip_number(spec["address"]), mac_number(spec["mac"]))
            self._put(self.outside, meta["name"], gone, one)
        elif kind == "Lab":
            spec = thing["spec"]
            found = {name: spec[name] for name in Lab.__slots__ if name in spec}
            self.lab = Lab(**found | {"enforces": tuple(spec.get("enforces", ()))})

    @staticmethod
    def _put(into: dict[str, Any], key: str, gone: bool, value: Any) -> None:
        if gone:
            into.pop(key, None)
        else:
            into[key] = value

    def _attachment(self, key: str, spec: Object | None) -> None:
        """A container that is no pod of the store's has the flows of one."""
        pod = None if spec is None else Pod(key, ip_number(spec["ip"]), mac_number(spec["mac"]), int(spec["port"]))
        home = "" if spec is None else spec["node"]
        self._attached(key, home, pod)
        self._own(key, None if pod is None else (home, pod.ip, ()))

    def _pod(self, key: str, thing: Object | None) -> None:
        home = "" if thing is None else thing["spec"].get("nodeName", "")
        self._attached(key, home, None if thing is None else _pod(key, thing))
        self._own(key, None if thing is None else _owner(key, thing))

    def _attached(self, key: str, home: str, pod: Pod | None) -> None:
        """Whose port of which node it is now."""
        before = self._home.get(key, "")
        if pod is not None and before == home and self._pods[home].get(key) == pod:
            return
        self._pods.get(self._home.pop(key, ""), {}).pop(key, None)
        self._by_port.pop(before, None)
        if pod is not None:
            self._home[key] = home
            self._pods.setdefault(home, {})[key] = pod
            self._by_port.pop(home, None)

    def _own(self, key: str, now: Owner | None) -> None:
        home = self._owner_home.pop(key, "")
        before = self._owners.get(home, {}).pop(key, None)
        if now:
            self._owner_home[key] = now[0]
            self._owners.setdefault(now[0], {})[key] = now
        if before != now:
            self._moved |= {one[0] for one in (before, now) if one}

    def _owned(self) -> ByNode:
        """Addresses and published ports by node."""
        if self._moved:
            addresses, published = dict(self._by_node[0]), dict(self._by_node[1])
            for name in self._moved:
                group = sorted(self._owners[name].values())
                self._put(addresses, name, not group, tuple(ip for _, ip, _ in group))
                self._put(published, name, not group, tuple(port for *_, ports in group for port in ports))
            self._moved.clear()
            self._by_node = dict(sorted(addresses.items())), published
        return self._by_node

    def _nodes(self) -> tuple[Node, ...]:
        """All of them, by name."""
        if self._by_name is None:
            self._by_name = tuple(sorted(self.nodes.values(), key=lambda n: n.name))
        return self._by_name

    def _ports(self, name: str) -> tuple[Pod, ...]:
        """A node's pods, by port."""
        if name not in self._by_port:
            self._by_port[name] = tuple(sorted(self._pods.get(name, {}).values(), key=lambda p: p.port))
        return self._by_port[name]

    def node_view(self, name: str) -> NodeView | None:
        """The view of one node, or None while the lab or the node is not known."""
        node = self.nodes.get(name)
        if self.lab is None or node is None:
            return None
        self._refresh_services()
        pods = self._ports(name)
        peers = tuple(n for n in self._nodes() if n is not node)
        outside = tuple(self.outside.values())
        policies = self.policies.node(name, self.lab.enforces, self.lab.carries_identities)
        identities = {pod.key: self.policies.identities.of(pod.key) for pod in pods} if self.lab.identities else {}
        loads = self.loads.get(name, {})
        addresses, published = self._owned()
        own = identities, addresses, published.get(name, ()), self._relays.get(name, {})
        return NodeView(self.lab, node, pods, peers, self.services, outside, loads, policies, *own)

    def fabric_view(self, name: str) -> FabricView | None:
        """The view of one fabric switch, or None while it is not known."""
        switch = self.switches.get(name)
        if switch is None:
            return None
        self._refresh_services()
        outside = tuple(self.outside.values())
        return FabricView(switch, dict(self.switches), self._nodes(), self.down, self.services, outside, self.lab)

    def _refresh_services(self) -> None:
        """Rebuild the ports of the Services that changed since last asked; the others keep their identity."""
        if not self._stale:
            return
        found = {
            key: ports_of(key, self._service_objects.get(key), self._slices.get(key, {}).values())
            for key in self._stale
        }
        keys_before = set(self._numbers)
        keys = keys_before - {p for key in self._stale for p in self._owned_ports.get(key, ())}
        keys |= {port for ports in found.values() for port in ports}
        if keys != keys_before:
            self._numbers = assign_numbers(keys)
        services = dict(self.services)
        for key, ports in found.items():
            for port_key in set(self._owned_ports.get(key, ())) - set(ports):
                services.pop(port_key, None)
            services |= {port_key: make(self._numbers[port_key]) for port_key, make in ports.items()}
            self._owned_ports[key] = tuple(ports)
        for port_key, number in self._numbers.items() if keys != keys_before else ():
            if services[port_key].group != number:  # a hash collision came or went
                services[port_key] = replace(services[port_key], group=number)
        self._stale.clear()
        self.services = dict(sorted(services.items())) if keys != keys_before else services


def _node(thing: Object) -> Node | None:
    """A node whose addresses are all known, else None."""
    notes = thing["metadata"].get("annotations", {})
    ip = next((a["address"] for a in thing.get("status", {}).get("addresses", ()) if a["type"] == "InternalIP"), None)
    cidr = thing.get("spec", {}).get("podCIDR")
    if ip is None or cidr is None or wiring.MAC not in notes:
        return None
    macs = mac_number(notes[wiring.MAC]), mac_number(notes[wiring.GATEWAY_MAC])
    zone = (thing["metadata"].get("labels") or {}).get("topology.kubernetes.io/zone", "")
    return Node(
        thing["metadata"]["name"], ip_number(ip), *macs, cidr, is_ready(thing), zone, notes.get(wiring.SUBNET, "")
    )


def _switch(name: str, spec: Object) -> Switch:
    router = spec.get("router")
    ports = {int(number): peer for number, peer in spec["ports"].items()}
    return Switch(
        name, spec["tier"], ports, router and Router(mac_number(router["mac"]), router["subnet"], router["forwarding"])
    )


def _relays(thing: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = json.loads(thing["metadata"].get("annotations", {}).get(wiring.RELAYS, "{}"))
    return found


def _pod(key: str, thing: Object) -> Pod | None:
    """A pod that is attached to a bridge port, else None (not yet, or on the host's network)."""
    notes = thing["metadata"].get("annotations", {})
    ip = thing.get("status", {}).get("podIP")
    if wiring.PORT not in notes or not ip or thing["status"].get("phase") in ("Succeeded", "Failed"):
        return None
    return Pod(key, ip_number(ip), mac_number(notes[wiring.MAC]), int(notes[wiring.PORT]))


def _owner(key: str, thing: Object) -> Owner | None:
    """Of a pod that has a network of its own, else None."""
    spec, status = thing["spec"], thing.get("status", {})
    if spec.get("hostNetwork") or not status.get("podIP") or status.get("phase") in ("Succeeded", "Failed"):
        return None
    ip = ip_number(status["podIP"])
    ports = (port for container in spec.get("containers", ()) for port in container.get("ports", ()))
    published = tuple(
        Published(key, ip, p.get("protocol", "TCP").lower(), p.get("hostIP", ""), p["hostPort"], p["containerPort"])
        for p in ports
        if p.get("hostPort")
    )
    return str(spec["nodeName"]), ip, published

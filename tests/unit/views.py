"""The small fixed cluster and fabric that tests of flows compile: three nodes of which one is not ready, two leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from controllers import cni as cnis
from controllers import proxy as proxies
from controllers.cni import Cni
from controllers.flow.fields import ip_number, mac_number
from controllers.proxy import Proxy
from controllers.registry import discover
from controllers.services import Endpoint, ServicePort
from controllers.state import FabricView, Lab, Node, NodeView, Outside, Pod, Router, Switch

POD_SUBNET, SERVICE_SUBNET = "10.244.0.0/16", "10.96.0.0/16"
CNIS = discover(cnis, "CNI")
PROXIES = discover(proxies, "PROXY")
OVS: Proxy = PROXIES["ovs"]


def mac_of(address: str) -> int:
    """0a:58 and the address, as the lab's builder makes MACs."""
    return 0x0A58 << 32 | ip_number(address)


def node(number: int, gateway_mac: str = "", ready: bool = True) -> Node:
    """node-1 is 172.18.0.2 with pods in 10.244.1.0/24, and so on."""
    ip, cidr = f"172.18.0.{number + 1}", IPv4Network(f"10.244.{number}.0/24")
    gateway = mac_number(gateway_mac) if gateway_mac else mac_of(str(cidr.network_address + 1))
    return Node(f"node-{number}", ip_number(ip), mac_of(ip), gateway, str(cidr), ready)


def pod(name: str, ip: str, port: int) -> Pod:
    """A pod of namespace default."""
    return Pod(f"default/{name}", ip_number(ip), mac_of(ip), port)


def service(group: int, key: str, protocol: str, address: str, port: int, *endpoints: str) -> ServicePort:
    """A Service port; endpoints as 10.244.1.2:8080."""
    pairs = (e.split(":") for e in endpoints)
    return ServicePort(
        f"default/{key}",
        protocol,
        ip_number(address),
        port,
        tuple(sorted(Endpoint(ip_number(ip), int(number)) for ip, number in pairs)),
        group,
    )


A, B = pod("a", "10.244.1.2", 10), pod("b", "10.244.1.3", 11)
C, D = pod("c", "10.244.2.2", 10), pod("d", "10.244.2.3", 11)
PODS = {"node-1": (A, B), "node-2": (C, D), "node-3": ()}

WEB = service(1, "web:http/tcp", "tcp", "10.96.0.10", 80, "10.244.1.3:8080", "10.244.2.2:8080", "10.244.2.3:8080")
WEB_TLS = service(2, "web:https/tcp", "tcp", "10.96.0.10", 443, "10.244.2.2:8443")
DNS = service(3, "dns:53/udp", "udp", "10.96.0.20", 53, "10.244.1.3:5353", "10.244.2.2:5353")
NONE = service(4, "none:80/tcp", "tcp", "10.96.0.30", 80)
SELF = service(5, "self:80/tcp", "tcp", "10.96.0.40", 80, "10.244.1.2:8080")
SERVICES = {port.key: port for port in (WEB, WEB_TLS, DNS, NONE, SELF)}

# A Service of every type, as node-1 with its own endpoint 10.244.1.3 sees it.
_PAIR = (
    Endpoint(ip_number("10.244.1.3"), 8080, "node-1", weight=2),
    Endpoint(ip_number("10.244.2.2"), 8080, "node-2"),
)
_ENDING = Endpoint(ip_number("10.244.2.3"), 8080, "node-2", ready=False, terminating=True)


def typed(group: int, key: str, last: int, endpoints: tuple[Endpoint, ...] = _PAIR, **more: Any) -> ServicePort:
    """A Service port of 10.96.1.`last`:80."""
    return ServicePort(f"default/{key}", "tcp", ip_number(f"10.96.1.{last}"), 80, endpoints, group, **more)


PLAIN = typed(11, "plain:80/tcp", 1, (*_PAIR, _ENDING))
INSIDE = typed(12, "inside:80/tcp", 2, internal_local=True)
NODE_PORT = typed(13, "node-port:80/tcp", 3, node_port=30080)
EXTERNAL = typed(14, "external:80/tcp", 4, external_ips=(ip_number("192.0.2.4"),))
BALANCED = typed(
    15,
    "balanced:80/tcp",
    5,
    node_port=30050,
    load_balancer_ips=(ip_number("172.18.255.200"),),
    source_ranges=("203.0.113.0/24",),
    external_local=True,
    health_port=30051,
)
DATAGRAMS = replace(typed(16, "datagrams:80/udp", 6), protocol="udp")
OVER = typed(17, "over:80/tcp", 7, (_ENDING,))
EVERY_TYPE = {port.key: port for port in (PLAIN, INSIDE, NODE_PORT, EXTERNAL, BALANCED, DATAGRAMS, OVER)}
STICKY = typed(18, "sticky:80/tcp", 8, affinity=60)


def cluster(cni: str, **options: object) -> dict[str, NodeView]:
    """The view of every node, by name; options: the CNI's."""
    gateway_mac = CNIS[cni].plan(1500, options).gateway_mac
    lab = Lab(POD_SUBNET, SERVICE_SUBNET, cni, "ovs", 1500, {"cni": options})
    identities = {pod.key: 1000 + pod.port for pods in PODS.values() for pod in pods} if CNIS[cni].identities else {}
    nodes = [node(1, gateway_mac), node(2, gateway_mac), node(3, gateway_mac, ready=False)]
    return {
        one.name: NodeView(
            lab, one, PODS[one.name], tuple(x for x in nodes if x is not one), SERVICES, identities=identities
        )
        for one in nodes
    }


def served(mode: str, services: Mapping[str, ServicePort] = EVERY_TYPE, **options: object) -> NodeView:
    """node-1 with these Services, in a proxy mode with these options."""
    view = cluster("flannel")["node-1"]
    return replace(view, services=services, lab=replace(view.lab, proxy_mode=mode, options={"proxy": options}))


def proxy_of(view: NodeView) -> Proxy:
    """The proxy mode object of a view's lab."""
    found: Proxy = PROXIES[view.lab.proxy_mode]
    return found


def cni_of(view: NodeView) -> Cni:
    """The CNI object of a view's lab."""
    found: Cni = CNIS[view.lab.cni]
    return found


LEAF_PORTS = {1: "spine-1", 2: "spine-2"}
SPINE_PORTS = {1: "leaf-1", 2: "leaf-2"}
SWITCHES = {
    "leaf-1": Switch("leaf-1", "leaf", {**LEAF_PORTS, 101: "node-1", 102: "node-3"}),
    "leaf-2": Switch("leaf-2", "leaf", {**LEAF_PORTS, 101: "node-2"}),
    "spine-1": Switch("spine-1", "spine", SPINE_PORTS),
    "spine-2": Switch("spine-2", "spine", SPINE_PORTS),
}


def fabric(down: frozenset[tuple[str, int]] = frozenset()) -> dict[str, FabricView]:
    """The view of every switch, by name; down: (switch, port) whose link is dead."""
    nodes = tuple(view.node for view in cluster("flannel").values())
    return {name: FabricView(switch, SWITCHES, nodes, down) for name, switch in SWITCHES.items()}


RACKS = {"leaf-1": "172.18.0.0/18", "leaf-2": "172.18.64.0/18"}


def routed_fabric(down: frozenset[tuple[str, int]] = frozenset()) -> dict[str, FabricView]:
    """The same with routers: node-1 and node-3 in one rack with the machine outside, node-2 in the other."""
    routers = {name: Router(0x0A58_0001_0000 + i, RACKS.get(name, "")) for i, name in enumerate(SWITCHES)}
    switches = {name: replace(switch, router=routers[name]) for name, switch in SWITCHES.items()}
    switches["leaf-1"] = replace(switches["leaf-1"], ports={**switches["leaf-1"].ports, 100: "client"})
    subnets = {peer: RACKS[name] for name, s in switches.items() if s.tier == "leaf" for peer in s.ports.values()}
    nodes = [replace(view.node, subnet=subnets[view.node.name]) for view in cluster("flannel").values()]
    far = ip_number("172.18.64.3")
    nodes = [replace(n, ip=far, mac=mac_of("172.18.64.3")) if n.name == "node-2" else n for n in nodes]
    client = Outside("client", ip_number("172.18.0.9"), mac_of("172.18.0.9"))
    address = replace(WEB, key="default/balanced:80/tcp", load_balancer_ips=(ip_number("172.18.63.200"),))
    lab = cluster("flannel")["node-1"].lab
    return {
        name: FabricView(switch, switches, tuple(nodes), down, {address.key: address}, (client,), lab)
        for name, switch in switches.items()
    }


def without(view: NodeView, service_key: str, endpoint: str) -> NodeView:
    """The view after an endpoint of a Service port has gone."""
    ip, port = endpoint.split(":")
    old = view.services[service_key]
    rest = tuple(e for e in old.endpoints if (e.ip, e.port) != (ip_number(ip), int(port)))
    return replace(view, services={**view.services, service_key: replace(old, endpoints=rest)})

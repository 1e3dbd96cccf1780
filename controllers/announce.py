"""Which node announces a LoadBalancer address to the network: one by ARP, or by BGP all that may; pure.

Source: MetalLB, "MetalLB in layer 2 mode", "MetalLB in BGP mode" and "Usage: traffic policies": in layer 2 one node
attracts all of an address's traffic, by BGP the routers share it out; with externalTrafficPolicy Local only a node
with a ready endpoint may. Calico, "Advertise Kubernetes service IP addresses", says the same of its nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network

from controllers.bgp import options as bgp
from controllers.flow.fields import ip_text
from controllers.services import ServicePort, external
from controllers.state import Lab, Node


def announcers(services: Mapping[str, ServicePort], nodes: Iterable[Node]) -> dict[int, str]:
    """Address -> name of the node that answers for it; addresses that no node may announce are left out.

    The lowest hash of node and address wins, so addresses spread over the nodes, and a node that comes or goes moves
    only its own. ARP reaches a node's own subnet, so nodes on another do not announce (MetalLB, layer 2 mode: one
    network; its L2Advertisement names the nodes that are on it).
    """
    ready = [node for node in nodes if node.ready]
    ports: dict[int, list[ServicePort]] = {}
    for port in external(services):
        for address in port.load_balancer_ips:
            ports.setdefault(address, []).append(port)
    found = {}
    for address, owned in sorted(ports.items()):
        able = [n.name for n in ready if _is_on(n, address) and any(_may(port, n.name) for port in owned)]
        if able:
            found[address] = min(able, key=lambda name: sha256(f"{name}#{ip_text(address)}".encode()).digest())
    return found


def answerers(lab: Lab | None, services: Mapping[str, ServicePort], nodes: Iterable[Node]) -> dict[int, str]:
    """As announcers; none in a lab whose nodes announce by BGP."""
    return {} if lab is not None and bgp.of(lab).on_the_wire else announcers(services, nodes)


def routed_addresses(services: Mapping[str, ServicePort], node: Node) -> tuple[int, ...]:
    """The addresses that this node announces where routes lead to them, in order; none while it is not ready."""
    if not node.ready:
        return ()
    return tuple(sorted({a for port in external(services) if _may(port, node.name) for a in port.load_balancer_ips}))


def _is_on(node: Node, address: int) -> bool:
    return not node.subnet or IPv4Address(address) in IPv4Network(node.subnet)


def _may(port: ServicePort, node: str) -> bool:
    # Even without any endpoint somebody answers, so that a client is refused and not left waiting.
    return not port.external_local or any(e.ready and e.node == node for e in port.endpoints)

"""Which node announces a LoadBalancer address to the network, as MetalLB does in layer 2 mode; pure.

Source: MetalLB, "MetalLB in layer 2 mode" and "Usage: traffic policies": one node attracts all of an address's traffic;
with externalTrafficPolicy Local only a node with a ready endpoint may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from controllers.flow.fields import ip_text
from controllers.services import ServicePort, external
from controllers.state import Node


def announcers(services: Mapping[str, ServicePort], nodes: Iterable[Node]) -> dict[int, str]:
    """Address -> name of the node that answers for it; addresses that no node may announce are left out.

    The lowest hash of node and address wins, so addresses spread over the nodes, and a node that comes or goes moves
    only its own.
    """
    ready = [node.name for node in nodes if node.ready]
    ports: dict[int, list[ServicePort]] = {}
    for port in external(services):
        for address in port.load_balancer_ips:
            ports.setdefault(address, []).append(port)
    found = {}
    for address, owned in sorted(ports.items()):
        able = [name for name in ready if any(_may(port, name) for port in owned)]
        if able:
            found[address] = min(able, key=lambda name: sha256(f"{name}#{ip_text(address)}".encode()).digest())
    return found


def _may(port: ServicePort, node: str) -> bool:
    # Even without any endpoint somebody answers, so that a client is refused and not left waiting.
    return not port.external_local or any(e.ready and e.node == node for e in port.endpoints)

"""The node's uplink bridge br-ex: between the wire, the node's own stack and the pod bridge."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from controllers.announce import answerers
from controllers.features.base import arp_answer
from controllers.flow import tables as t
from controllers.flow.actions import Output
from controllers.flow.fields import LOCAL
from controllers.flow.kept import kept
from controllers.flow.program import Fragment, Writer, match
from controllers.services import ServicePort, external
from controllers.state import Node, NodeView
from topo.cluster.wiring import PATCH_PORT, WIRE_PORT


def fragments(view: NodeView) -> Iterable[Fragment]:
    """What every CNI needs there; each adds its own (Cni.uplink)."""
    # Services are the pod bridge's, or the kernel's where pods hang on a Linux bridge.
    services = LOCAL if view.lab.attachment == "bridge" else PATCH_PORT
    yield _node(view.node)
    yield _cluster_ips(view.lab.service_subnet, services)
    for port in external(view.services):
        yield _service(port, view.node, services)
    for address, name in answerers(view.lab, view.services, (view.node, *view.peers)).items():
        if name == view.node.name:
            yield _announced(address, view.node)


@kept
def _node(node: Node) -> Fragment:
    w = Writer("uplink", node.name)
    w.flow(t.UPLINK, t.LOW, match("arp", in_port=WIRE_PORT), Output(LOCAL))
    w.flow(t.UPLINK, t.LOW, match("ip", in_port=WIRE_PORT, nw_dst=node.ip), Output(LOCAL))
    w.flow(t.UPLINK, t.LOW, match(in_port=LOCAL), Output(WIRE_PORT))
    w.flow(t.UPLINK, t.LOW, match("ip", in_port=PATCH_PORT), Output(WIRE_PORT))
    return w.fragment()


@lru_cache(maxsize=16)
def _cluster_ips(service_subnet: str, services: int) -> Fragment:
    w = Writer("uplink", "cluster IPs")
    w.flow(t.UPLINK, t.NORMAL, match("ip", in_port=WIRE_PORT, nw_dst=service_subnet), Output(services))
    return w.fragment()


@kept
def _service(port: ServicePort, node: Node, services: int) -> Fragment:
    """What clients outside the cluster ask of this node: node ports, LoadBalancer addresses, external IPs."""
    w = Writer("uplink", port.key)
    ways = [(address, port.port) for address in (*port.load_balancer_ips, *port.external_ips)]
    ways += [(node.ip, port.node_port)] if port.node_port else []
    for address, number in ways:
        wanted = match(port.protocol, in_port=WIRE_PORT, nw_dst=address, tp_dst=number)
        w.flow(t.UPLINK, t.NORMAL, wanted, Output(services))
    return w.fragment()


@kept
def _announced(address: int, node: Node) -> Fragment:
    """This node answers for the address, and no other does (MetalLB, "MetalLB in layer 2 mode")."""
    w = Writer("uplink", f"announcement of {address:#x}")
    wanted = match("arp", in_port=WIRE_PORT, arp_op=1, arp_tpa=address)
    w.flow(t.UPLINK, t.NORMAL, wanted, *arp_answer(node.mac, address))
    return w.fragment()

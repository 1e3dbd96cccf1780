"""Direct server return: the endpoint's own node answers clients outside the cluster with the Service's address.

The node that a client asks chooses an endpoint and, if that is elsewhere, sends the packet there in Geneve as it came;
the inner frame's destination MAC says which endpoint it is for. Only the endpoint's node translates, so its conntrack
makes the Service's address the source of the answers, which leave by its own uplink; nobody hides the client. Cilium
translates on the first node and has the Service's address in a Geneve option: either way both nodes know both.

The first node sees one direction only, so conntrack cannot keep a connection with its endpoint there; what the switch
learns of each connection does.
Source: Cilium, "Kubernetes Without kube-proxy", Direct Server Return with Geneve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import (
    EXTERNAL,
    ZONE,
    Action,
    Ct,
    DecTtl,
    Goto,
    Learn,
    Multipath,
    Nat,
    Output,
    Resubmit,
    Set,
    ToGroup,
)
from controllers.flow.kept import kept
from controllers.flow.program import Bucket, Fragment, Translation, Writer, learned_cookie, match
from controllers.identities import WORLD
from controllers.proxy.choosing import CONNECTION, numbers, to
from controllers.proxy.frontends import Frontend, Options, frontends, options
from controllers.services import Endpoint, ServicePort, external
from controllers.state import Node, NodeView
from topo.cluster.wiring import MAC_BEFORE_IP, NODEPORT_IP, TUNNEL_PORT

Hashed = tuple[f.Field, ...]
# Number of a Service's third set of endpoints, for these clients: above frontends.LOCAL_SET.
_SET = 1 << 31
# Seconds that a silent connection is remembered for. While the endpoints are the same it would find its own anyway.
_IDLE = 120
_SOURCES = {"tcp": f.TCP_SRC, "udp": f.UDP_SRC, "sctp": f.SCTP_SRC}
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


def fragments(view: NodeView, hashed: Callable[[ServicePort], Hashed]) -> Iterable[Fragment]:
    """One a Service port that clients outside have an address for, and whose policy is Cluster.

    hashed: by which fields a connection finds its endpoint, none for a choice of the switch's own.
    """
    rules = options(view.lab.options.get("proxy", {}))
    for port in external(view.services):
        if not port.external_local:
            yield _service(port, view.node, view.peers, rules, hashed(port))


@kept
def _service(port: ServicePort, node: Node, peers: tuple[Node, ...], rules: Options, hashed: Hashed) -> Fragment:
    w = Writer("dsr", port.key)
    ways = [one for one in frontends(port, node, rules) if _is_outside(one) and one.endpoints]
    if ways:
        chosen = _choice(w, port, ways[0].endpoints, (node, *peers), hashed)
        for one in ways:
            asked: dict[str, Any] = {"PktSource": f.FROM_UPLINK, **dict(one.fields)}
            w.flow(t.SERVICE_LB, t.HIGH, match(port.protocol, nw_dst=one.address, tp_dst=one.port, **asked), *chosen)
    addresses = [(address, port.port) for address in (*port.load_balancer_ips, *port.external_ips)]
    for endpoint in port.endpoints:
        if _is_in(endpoint, node) and (endpoint.ready or endpoint.serving):
            _arrival(w, port, endpoint, addresses, [n.ip for n in peers])
    return w.fragment()


def _is_outside(one: Frontend) -> bool:
    """Whether clients outside may ask it, and would be hidden."""
    return one.masquerade and "PktSource" not in dict(one.fields) and one.address != f.ip_number(NODEPORT_IP)


def _is_in(endpoint: Endpoint, node: Node) -> bool:
    return IPv4Address(endpoint.ip) in IPv4Network(node.pod_cidr)


def _mac(endpoint: Endpoint) -> int:
    return f.mac_number(MAC_BEFORE_IP) | endpoint.ip


def _choice(
    w: Writer, port: ServicePort, endpoints: tuple[Endpoint, ...], nodes: tuple[Node, ...], hashed: Hashed
) -> tuple[Action, ...]:
    """As session affinity does it (proxy/choosing.py), for a connection in a client's place where there is none."""
    number, numbered = port.group | _SET, numbers(endpoints)
    for_itself = Multipath(CONNECTION, 1, f.INDEX)
    for endpoint, place in numbered.items():
        wanted = match(port.protocol, Service=number, Endpoint=place)
        memory = _memory(port, number, endpoint, place)
        w.flow(t.ENDPOINT_DNAT, t.NORMAL, wanted, for_itself, memory, *_delivery(endpoint, nodes))
    bucket = [Bucket((Set(f.ENDPOINT, n), Resubmit(t.ENDPOINT_DNAT)), number=n) for n in numbered.values()]
    w.group(number, bucket, hashed)
    w.flow(t.ENDPOINT_CHOICE, t.NORMAL, match("ip", Service=number, Endpoint=0), ToGroup(number))
    return Set(f.SERVICE, number), for_itself, Resubmit(t.SERVICE_MEMORY), Goto(t.ENDPOINT_CHOICE)


def _memory(port: ServicePort, number: int, endpoint: Endpoint, place: int) -> Learn:
    cookie = learned_cookie("dsr", f"{number}", f"{endpoint.ip}:{endpoint.port}")
    if port.affinity:
        same = (f.IP_SRC, f.SERVICE)
        return Learn(t.SERVICE_MEMORY, t.HIGH, same, f.ENDPOINT, place, cookie, min(port.affinity, 65535))
    source = _SOURCES[port.protocol]
    client, protocol = ((f.IP_SRC, f.IP_SRC), (source, source)), _NUMBERS[port.protocol]
    return Learn(t.SERVICE_MEMORY, t.HIGH, (f.SERVICE,), f.ENDPOINT, place, cookie, _IDLE, protocol, client)


def _delivery(endpoint: Endpoint, nodes: tuple[Node, ...]) -> tuple[Action, ...]:
    """To an endpoint of this node, which is the first of them; of another; or of none, which only this node can ask."""
    home = next((node for node in nodes if _is_in(endpoint, node)), None)
    if home is None:
        return Set(f.MASQUERADE, 1), to(endpoint)
    if home is nodes[0]:
        return (to(endpoint),)
    tunnel = Set(f.TUN_ID, WORLD), Set(f.TUN_DST, home.ip)
    return Set(f.ETH_SRC, nodes[0].gateway_mac), Set(f.ETH_DST, _mac(endpoint)), *tunnel, DecTtl(), Output(TUNNEL_PORT)


def _arrival(
    w: Writer, port: ServicePort, endpoint: Endpoint, addresses: list[tuple[int, int]], nodes: list[int]
) -> None:
    """What another node has sent on for this endpoint; a node port may have been asked at any of them."""
    answer = Ct(ZONE, t.after(t.ENDPOINT_DNAT), True, Nat("dst", endpoint.ip, endpoint.port), EXTERNAL)
    ways: list[tuple[dict[str, Any], int]] = [({"nw_dst": address}, number) for address, number in addresses]
    ways += [({}, port.node_port)] if port.node_port else []
    for destination, number in ways:
        wanted = match(port.protocol, PktSource=f.FROM_TUNNEL, dl_dst=_mac(endpoint), tp_dst=number, **destination)
        w.flow(t.SERVICE_LB, t.HIGH, wanted, answer)
    if port.protocol == "udp":
        asked = addresses + [(node, port.node_port) for node in nodes if port.node_port]
        for address, number in asked:
            w.translates(Translation(address, number, endpoint.ip, endpoint.port))

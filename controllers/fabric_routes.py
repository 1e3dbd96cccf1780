"""The underlay's switches as routers: every rack a subnet, its leaf the nodes' gateway, all shortest ways used at once.

Inside a rack frames are switched; what is for the router's own MAC is routed: TTL less one, MACs of this router and of
the next one, or of the machine. Routers know each other from the controller, so that links need no addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network

from controllers.announce import answerers
from controllers.fabric import links, machine_ports, next_ports
from controllers.features.base import arp_answer
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Action, DecTtl, Goto, Output, Set, ToGroup
from controllers.flow.program import Bucket, Fragment, Writer, match
from controllers.numbering import assign_numbers
from controllers.services import external
from controllers.state import FabricView, Node, Outside, Router

Machine = Node | Outside


def fragments(view: FabricView) -> Iterable[Fragment]:
    """The rack and the routes."""
    router = view.switch.router
    assert router is not None
    w = Writer("fabric", view.switch.name)
    w.flow(t.FABRIC_ARP, t.MISS, match(), Goto(t.after(t.FABRIC_ARP)))
    by_flows = router.forwarding == "flows"
    to_router = Goto(t.after(t.FABRIC_FORWARD)) if by_flows else Output(f.LOCAL)
    w.flow(t.FABRIC_FORWARD, t.HIGH, match("ip", dl_dst=router.mac), to_router)
    home = _homes(view)
    own, ports = _rack(view, home)
    if router.subnet:
        gateway = int(IPv4Network(router.subnet).network_address) + 1
        w.flow(t.FABRIC_ARP, t.NORMAL, match("arp", arp_op=1, arp_tpa=gateway), *arp_answer(router.mac, gateway))
        if by_flows:  # an address of this rack that nobody has
            w.flow(t.FABRIC_ROUTE, _length(router.subnet), match("ip", nw_dst=router.subnet))
    for name, machine in own.items():
        wanted = match("arp", arp_op=1, arp_tpa=machine.ip)
        w.flow(t.FABRIC_ARP, t.NORMAL, wanted, *arp_answer(machine.mac, machine.ip))
        if name in ports:
            w.flow(t.FABRIC_FORWARD, t.NORMAL, match(dl_dst=machine.mac), Output(ports[name]))
        if name in ports and by_flows:
            to_machine = _to_machine(router, machine, ports[name])
            w.flow(t.FABRIC_ROUTE, t.ROUTE + 32, match("ip", nw_dst=machine.ip), *to_machine)
    if not by_flows:
        _proxy_arp(w, view, router)
        yield w.fragment()
        return
    _routes(w, view, router, home)
    for machine in view.outside:  # the way to the world
        if machine.name in ports:
            w.flow(t.FABRIC_ROUTE, t.ROUTE, match("ip"), *_to_machine(router, machine, ports[machine.name]))
    yield w.fragment()


def announced(view: FabricView) -> Iterable[Fragment]:
    """One fragment for each Service address that a node of the rack announces."""
    router = view.switch.router
    assert router is not None
    found = answerers(view.lab, view.services, view.nodes) if router.forwarding == "flows" else {}
    own, ports = _rack(view, _homes(view)) if found else ({}, {})
    for address, name in found.items():
        if name in ports:
            yield _announced(view, router, address, own[name], ports[name])


def _homes(view: FabricView) -> dict[str, str]:
    """The switch that each machine hangs on."""
    return {name: switch.name for switch in view.switches.values() for name in switch.ports.values()}


def _rack(view: FabricView, home: Mapping[str, str]) -> tuple[dict[str, Machine], dict[str, int]]:
    """The machines of this switch's own, and their ports if their links are up."""
    everybody: tuple[Machine, ...] = (*view.nodes, *view.outside)
    own = {m.name: m for m in everybody if home.get(m.name) == view.switch.name}
    return own, {name: port for name in own for port in next_ports(view, view.switch.name, name)}


def _proxy_arp(w: Writer, view: FabricView, router: Router) -> None:
    """Service addresses of the rack's subnet that nodes announce by BGP are behind the router (RFC 1027)."""
    addresses = {address for port in external(view.services) for address in port.load_balancer_ips}
    for address in sorted(addresses if router.subnet else ()):
        if IPv4Address(address) in IPv4Network(router.subnet):
            asked = match("arp", arp_op=1, arp_tpa=address)
            w.flow(t.FABRIC_ARP, t.NORMAL, asked, *arp_answer(router.mac, address))


def _routes(w: Writer, view: FabricView, router: Router, home: Mapping[str, str]) -> None:
    """To the other racks, and by default to where the machine outside is."""
    prefixes = {one.router.subnet: one.name for one in view.switches.values() if one.router and one.router.subnet}
    wanted = [(match("ip", nw_dst=subnet), _length(subnet), leaf) for subnet, leaf in prefixes.items()]
    wanted += [(match("ip"), t.ROUTE, home[machine.name]) for machine in view.outside if machine.name in home]
    routes = [
        (what, priority, next_ports(view, leaf, "")) for what, priority, leaf in wanted if leaf != view.switch.name
    ]
    numbers = assign_numbers(str(ports) for _, _, ports in routes if len(ports) > 1)
    hops = {port: _mac(view, peer) for port, peer in links(view, view.switch)}
    for what, priority, ports in routes:
        if len(ports) > 1:
            last: tuple[Action, ...] = (ToGroup(numbers[str(ports)]),)
        else:
            last = tuple(action for port in ports for action in (Set(f.ETH_DST, hops[port]), Output(port)))
        if last:
            w.flow(t.FABRIC_ROUTE, priority, what, DecTtl(), Set(f.ETH_SRC, router.mac), *last)
    for ports in sorted({ports for _, _, ports in routes if len(ports) > 1}):
        # A bucket whose link dies is left out by the switch at once, before the controller hears of it.
        buckets = (Bucket((Set(f.ETH_DST, hops[port]), Output(port)), watch=port) for port in ports)
        w.group(numbers[str(ports)], buckets)


def _mac(view: FabricView, switch: str) -> int:
    router = view.switches[switch].router
    assert router is not None
    return router.mac


def _length(prefix: str) -> int:
    return t.ROUTE + IPv4Network(prefix).prefixlen


def _to_machine(router: Router, machine: Machine, port: int) -> tuple[Action, ...]:
    return DecTtl(), Set(f.ETH_SRC, router.mac), Set(f.ETH_DST, machine.mac), Output(port)


def _announced(view: FabricView, router: Router, address: int, node: Machine, port: int) -> Fragment:
    """A Service's address in this rack: machines of the rack ask the node for it, others come through the router."""
    w = Writer("fabric", f"{view.switch.name} address {IPv4Address(address)}")
    w.flow(t.FABRIC_ARP, t.NORMAL, match("arp", arp_op=1, arp_tpa=address), Output(port))
    gratuitous = match("arp", arp_op=1, arp_spa=address, arp_tpa=address)
    w.flow(t.FABRIC_ARP, t.HIGH, gratuitous, *(Output(port) for port in machine_ports(view)))
    w.flow(t.FABRIC_ROUTE, t.ROUTE + 32, match("ip", nw_dst=address), *_to_machine(router, node, port))
    return w.fragment()

"""The underlay's switches on one subnet: loop-free by construction, every equal-cost path used, nothing flooded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controllers.announce import answerers
from controllers.features.base import arp_answer
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Action, Goto, Output, ToGroup
from controllers.flow.program import Bucket, Fragment, Writer, match
from controllers.numbering import assign_numbers
from controllers.state import FabricView, Node, Outside, Switch


def fragments(view: FabricView) -> Iterable[Fragment]:
    """ARP, the groups towards other switches and the machines' MACs.

    Paths are the shortest ones over links that are up; a switch on none of them gets no flow, so no packet can loop.
    """
    w = Writer("fabric", view.switch.name)
    w.flow(t.FABRIC_ARP, t.MISS, match(), Goto(t.after(t.FABRIC_ARP)))
    paths = _paths(view)
    numbers, ways = _ways(paths)
    for machine in _machines(view):
        wanted = match("arp", arp_op=1, arp_tpa=machine.ip)
        w.flow(t.FABRIC_ARP, t.NORMAL, wanted, *arp_answer(machine.mac, machine.ip))
        if machine.name in ways:
            w.flow(t.FABRIC_FORWARD, t.NORMAL, match(dl_dst=machine.mac), ways[machine.name])
    for ports in sorted({ports for ports in paths.values() if len(ports) > 1}):
        # A bucket whose link dies is left out by the switch at once, before the controller hears of it.
        w.group(numbers[str(ports)], (Bucket((Output(port),), watch=port) for port in ports))
    yield w.fragment()


def announced(view: FabricView) -> Iterable[Fragment]:
    """One fragment for each Service address that a node announces."""
    found = answerers(view.lab, view.services, view.nodes)
    _, ways = _ways(_paths(view)) if found else ({}, {})
    for address, name in found.items():
        if name in ways:
            yield _announced(view, address, ways[name])


def _machines(view: FabricView) -> tuple[Node | Outside, ...]:
    return *view.nodes, *view.outside


def _paths(view: FabricView) -> dict[str, tuple[int, ...]]:
    """The ports that start a shortest path to each machine."""
    home = {name: switch.name for switch in view.switches.values() for name in switch.ports.values()}
    return {n.name: next_ports(view, home[n.name], n.name) for n in _machines(view) if n.name in home}


def _ways(paths: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, int], dict[str, Action]]:
    """Numbers of groups by their ports, and what takes a packet to each machine.

    A group's number says its ports, so that no group ever changes under the flows that point to it.
    """
    numbers = assign_numbers(str(ports) for ports in paths.values() if len(ports) > 1)
    return numbers, {name: ToGroup(numbers[str(p)]) if len(p) > 1 else Output(p[0]) for name, p in paths.items() if p}


def _announced(view: FabricView, address: int, way: Action) -> Fragment:
    """A Service's address: requests go to the node that announces it, which answers itself; what it announces
    (RFC 5227, section 3) goes to every machine once, by the first way up and every way down."""
    w = Writer("fabric", f"{view.switch.name} address {f.ip_text(address)}")
    w.flow(t.FABRIC_ARP, t.NORMAL, match("arp", arp_op=1, arp_tpa=address), way)
    neighbours = {port for port, _ in links(view, view.switch)}
    machines = machine_ports(view)
    up = sorted(neighbours)[:1]
    gratuitous = match("arp", arp_op=1, arp_spa=address, arp_tpa=address)
    if view.switch.tier != "leaf":
        w.flow(t.FABRIC_ARP, t.HIGH, gratuitous, *(Output(port) for port in sorted(neighbours)))
        return w.fragment()
    w.flow(t.FABRIC_ARP, t.HIGH, gratuitous, *(Output(port) for port in (*machines, *up)))
    for port in sorted(neighbours):
        wanted = match("arp", in_port=port, arp_op=1, arp_spa=address, arp_tpa=address)
        w.flow(t.FABRIC_ARP, t.HIGH + 1, wanted, *(Output(port) for port in machines))
    return w.fragment()


def machine_ports(view: FabricView) -> list[int]:
    """The ports of this switch that do not lead to another."""
    return [port for port, peer in sorted(view.switch.ports.items()) if peer not in view.switches]


def next_ports(view: FabricView, leaf: str, node: str) -> tuple[int, ...]:
    """The ports of this switch that start a shortest path to `node`, which hangs on `leaf`; empty if there is none.

    To a leaf that is not this switch they are the same for all its nodes.
    """
    distance = _distances(view, leaf)
    me = view.switch
    if me.name == leaf:
        return tuple(port for port, peer in me.ports.items() if peer == node and (me.name, port) not in view.down)
    if me.name not in distance:
        return ()
    return tuple(port for port, peer in links(view, me) if distance.get(peer, len(distance)) == distance[me.name] - 1)


def links(view: FabricView, switch: Switch) -> Iterable[tuple[int, str]]:
    """(port, neighbouring switch) of the links that are up at both ends."""
    for port, peer in sorted(switch.ports.items()):
        other = view.switches.get(peer)
        if other is None or (switch.name, port) in view.down:
            continue
        if any(back == switch.name and (peer, number) not in view.down for number, back in other.ports.items()):
            yield port, peer


def _distances(view: FabricView, start: str) -> dict[str, int]:
    """Hops from every switch that can reach `start` (breadth first)."""
    distance, todo = {start: 0}, [start]
    while todo:
        here = todo.pop(0)
        for _, peer in links(view, view.switches[here]):
            if peer not in distance:
                distance[peer] = distance[here] + 1
                todo.append(peer)
    return distance

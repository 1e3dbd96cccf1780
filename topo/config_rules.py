"""What a LabConfig must fulfil beyond its types, and the switches and links that follow from it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from topo import fabric, manifest_rules
from topo.cluster.errors import InputError
from topo.config import FabricConfig, LabConfig, LinkConfig
from topo.manifest_rules import DNS_LABEL, Problem
from topo.yaml_source import field_path, nearest, show

MAX_SWITCHES = 32  # of each kind
SHAPES = ("star", "leaf-spine", "two-racks", "two-sites")
_FABRIC = ("mininetes", "fabric")


def switch_names(config: FabricConfig) -> tuple[str, ...]:
    """switch-1 of a star, or leaf-1.. and spine-1.."""
    return tuple(switch.name for switch in fabric.switches(config))


def fabric_links(config: LabConfig) -> tuple[tuple[str, str], ...]:
    """Every link of the underlay: (node, its switch), then (leaf, spine) or the one between two leaves."""
    nodes = [(node.name, fabric.attach(config.fabric, i).switch) for i, node in enumerate(config.nodes)]
    leaves = [s for s in fabric.switches(config.fabric) if s.tier == "leaf"]
    between = dict.fromkeys((s.name, peer) for s in leaves for peer in s.ports.values())
    return (*nodes, *(pair for pair in between if pair[::-1] not in between or pair[0] < pair[1]))


def validate(config: LabConfig) -> None:
    """Raise InputError, placed by lab file field, for the first thing that is wrong."""
    for problem in problems(config):
        raise InputError(field_path(problem.path), problem.problem, problem.expected)


def problems(config: LabConfig) -> Iterator[Problem]:
    """Everything that is wrong, each with its lab file field. Later ones may follow from earlier ones."""
    if not manifest_rules.is_subdomain(config.name):
        yield Problem(("name",), f"{show(config.name)} is no lab's name", "a-z, 0-9, '-' and '.', as dev-1")
    if not config.cni:
        yield Problem(("mininetes", "cni"), "the name is empty", "a name")
    sizes = list(_sizes(config.fabric))
    if not sizes:  # else there are no racks to have subnets
        yield from _subnets(config)
    if config.dns_upstream and not _is_resolver(config.dns_upstream):
        said = f"{show(config.dns_upstream)} is no resolver's address"
        yield Problem(("mininetes", "dnsUpstream"), said, "ADDRESS or ADDRESS:PORT, as 172.18.0.1:53")
    yield from sizes
    if not sizes:  # else the switches cannot be named
        yield from _nodes(config)
        yield from _links(config)


def _is_resolver(text: str) -> bool:
    address, colon, port = text.partition(":")
    try:
        IPv4Address(address)
    except ValueError:
        return False
    return not colon or (port.isdecimal() and 0 < int(port) < 65536)


def _nodes(config: LabConfig) -> Iterator[Problem]:
    if not config.nodes:
        yield Problem(("nodes",), "the lab has no nodes", "one node at least")
    seen: set[str] = set()
    switches = switch_names(config.fabric)
    for i, node in enumerate(config.nodes):
        path = ("nodes", i)
        if not manifest_rules.is_label(node.name):
            yield Problem((*path, "name"), f"{show(node.name)} is no node's name", DNS_LABEL)
        if node.name in seen or node.name in (*switches, fabric.CLIENT):
            owner = "another node" if node.name in seen else "a switch or the client"
            yield Problem((*path, "name"), f"{show(node.name)} is the name of {owner}", "a name of its own")
        seen.add(node.name)
        if node.role not in ("control-plane", "worker"):
            yield Problem((*path, "role"), f"unknown role {show(node.role)}", "control-plane or worker")
        yield from manifest_rules.labels((*path, "labels"), node.labels)


def _subnets(config: LabConfig) -> Iterator[Problem]:
    pod, service, node = ("networking", "podSubnet"), ("networking", "serviceSubnet"), ("mininetes", "nodeSubnet")
    subnets = ((pod, config.pod_subnet), (service, config.service_subnet), (node, config.node_subnet))
    for path, subnet in subnets:
        if use := _special_use(subnet):
            yield Problem(path, f"{subnet} is for {use}", "a unicast subnet, as 10.1.0.0/16")
    for (path, a), (other, b) in itertools.combinations(subnets, 2):
        if a.overlaps(b):
            yield Problem(other, f"{b} overlaps {a} of {field_path(path)}", "subnets of their own")
    # kube-apiserver takes at most 20 bits of host part; fewer than 4 leave nothing beside the reserved addresses.
    if not 12 <= config.service_subnet.prefixlen <= 28:
        yield Problem(service, f"{config.service_subnet} has the wrong size", "a prefix length of 12 to 28")
    yield from _pod_cidrs(config)
    yield from _node_subnet(config, node)


def _node_subnet(config: LabConfig, node: manifest_rules.Path) -> Iterator[Problem]:
    """Room for the nodes, of each rack in its own part of it."""
    racks = len(fabric.leaves(config.fabric))
    if config.fabric.routed and config.node_subnet.prefixlen + racks.bit_length() > 29:
        yield Problem(node, f"{config.node_subnet} has no parts for {racks} racks", "a larger subnet")
        return
    pool = fabric.load_balancer_pool(config)
    if config.load_balancer_pool is not None and not config.load_balancer_pool.subnet_of(config.node_subnet):
        said = f"{config.load_balancer_pool} is no part of {config.node_subnet}"
        yield Problem(("mininetes", "loadBalancerPool"), said, "a part of mininetes.nodeSubnet")
        pool = None
    total = len(config.nodes)
    for number, subnet in enumerate(dict.fromkeys(fabric.rack_subnets(config))):
        end = int(subnet.broadcast_address)
        if pool is not None and pool.subnet_of(subnet):
            end = int(pool.network_address)
        # Without the network's own address, the router's, and in a rack that of a machine that is no node.
        room = end - int(subnet.network_address) - (3 if config.fabric.routed else 2)
        nodes = len(range(number, total, racks)) if config.fabric.routed else total
        if room < nodes:
            said = f"{subnet} has room for {max(room, 0)} nodes, the lab has {nodes}"
            yield Problem(node, said + (" there" if config.fabric.routed else ""), "a larger subnet")


def _pod_cidrs(config: LabConfig) -> Iterator[Problem]:
    bits, prefix, path = config.node_cidr_bits, config.pod_subnet.prefixlen, ("mininetes", "nodeCIDRBits")
    if not prefix <= bits <= 30:
        yield Problem(path, f"/{bits} is no part of {config.pod_subnet} that holds pods", f"{min(prefix, 30)} to 30")
    elif bits - prefix > 16:  # a limit of kube-controller-manager's
        yield Problem(path, f"/{bits} is too small a part of {config.pod_subnet}", f"{prefix} to {prefix + 16}")
    elif 1 << (bits - prefix) < len(config.nodes):
        said = (
            f"{config.pod_subnet} has room for {1 << (bits - prefix)} nodes of /{bits}, the lab has {len(config.nodes)}"
        )
        yield Problem(("networking", "podSubnet"), said, "a larger subnet, or a larger nodeCIDRBits")


def _special_use(subnet: IPv4Network) -> str:
    """What no host may have as its address (RFC 6890), or nothing."""
    reserved = {"0.0.0.0/8": "this host", "127.0.0.0/8": "loopback", "169.254.0.0/16": "link-local", "224.0.0.0/3": ""}
    use = next((use for net, use in reserved.items() if subnet.overlaps(IPv4Network(net))), None)
    return "" if use is None else use or "multicast and reserved"


def _sizes(fabric: FabricConfig) -> Iterator[Problem]:
    if fabric.shape not in SHAPES:
        yield Problem((*_FABRIC, "shape"), f"unknown shape {show(fabric.shape)}", ", ".join(SHAPES))
    if fabric.routing not in ("", "l2", "l3"):
        yield Problem((*_FABRIC, "routing"), f"unknown routing {show(fabric.routing)}", "l2 or l3")
    elif fabric.shape == "star" and fabric.routed:
        said = "a star is one rack, between whose nodes there is nothing to route"
        yield Problem((*_FABRIC, "routing"), said, "shape: leaf-spine, two-racks or two-sites")
    for name, count in (("leaves", fabric.leaves), ("spines", fabric.spines)):
        if not 1 <= count <= MAX_SWITCHES:
            yield Problem((*_FABRIC, name), f"{show(count)} is out of range", f"1 to {MAX_SWITCHES}")


def _links(config: LabConfig) -> Iterator[Problem]:
    fabric = config.fabric
    yield from _link((*_FABRIC, "link"), fabric.link)
    links = {name: link for link in fabric_links(config) for name in ("--".join(link), "--".join(link[::-1]))}
    seen: dict[tuple[str, str], str] = {}
    for name, values in fabric.links.items():
        path = (*_FABRIC, "links", name)
        if name not in links:
            yield Problem(path, f"there is no link {show(name)}", nearest(name, links))
        elif seen.setdefault(links[name], name) != name:
            yield Problem(path, f"{show(name)} is the link {show(seen[links[name]])}", "each link once")
        yield from _link(path, values)


def _link(path: manifest_rules.Path, link: LinkConfig) -> Iterator[Problem]:
    bandwidth, delay, loss = link.bandwidth, link.delay, link.loss
    if bandwidth is not None and not 0 < bandwidth < math.inf:
        yield Problem((*path, "bandwidth"), f"{bandwidth:g} Mbit/s is out of range", "more than 0")
    if delay is not None and not 0 <= delay < math.inf:
        yield Problem((*path, "delay"), f"{delay:g} ms is out of range", "0 or more")
    if loss is not None and not 0 <= loss <= 100:
        yield Problem((*path, "loss"), f"{loss:g} % is out of range", "0 to 100")
    if not 576 <= link.mtu <= 65000:
        yield Problem((*path, "mtu"), f"{link.mtu} is out of range", "576 to 65000")

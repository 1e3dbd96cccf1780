"""The underlay as a plan: which switch has which port to whom, and every machine's addresses; pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.cluster.wiring import GROUP
from topo.config import FabricConfig, LabConfig, LinkConfig


@dataclass(frozen=True, slots=True)
class Switch:
    """A fabric switch and its ports: OpenFlow port -> name at the other end."""

    name: str
    tier: str
    ports: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Router:
    """What a switch of a routed fabric is beside: a router. subnet: of its rack, None for a spine, which has none."""

    mac: str
    subnet: IPv4Network | None

    @property
    def gateway(self) -> IPv4Address | None:
        """Its address in its rack, which is the nodes' default gateway."""
        return None if self.subnet is None else self.subnet.network_address + 1


@dataclass(frozen=True, slots=True)
class Attachment:
    """A node's place on the fabric."""

    switch: str
    port: int


# Nodes' ports on a leaf start here; ports before it lead to the spines, and one to the machine outside the cluster.
FIRST_NODE_PORT = 101
CLIENT_PORT = 100
# The machine outside the cluster: the router of the node subnet, behind which clients and the rest of the world are.
CLIENT = "client"
# Shapes of two switches with one link between them, and Mbit/s of the one between two sites.
_PAIRS: Mapping[str, tuple[str, str]] = {"two-racks": ("leaf-1", "leaf-2"), "two-sites": ("site-1", "site-2")}
LONG_LINK = 100.0
_SPINES = 1 << 16
# Networks behind it (RFC 5737): clients' own addresses, and servers that pods may ask.
CLIENT_NETWORK, WORLD_NETWORK = IPv4Network("203.0.113.0/24"), IPv4Network("198.51.100.0/24")


def leaves(fabric: FabricConfig) -> tuple[str, ...]:
    """The switches that nodes are attached to: as many racks."""
    if fabric.shape == "star":
        return ("switch-1",)
    if fabric.shape in _PAIRS:
        return _PAIRS[fabric.shape]
    return tuple(f"leaf-{i + 1}" for i in range(fabric.leaves))


def switches(fabric: FabricConfig) -> tuple[Switch, ...]:
    """The switches with the links among themselves; nodes are attached later."""
    names = leaves(fabric)
    if fabric.shape in _PAIRS:
        return tuple(Switch(one, "leaf", {1: other}) for one, other in (names, names[::-1]))
    if fabric.shape == "star":
        return (Switch(names[0], "leaf", {}),)
    spines = [f"spine-{i + 1}" for i in range(fabric.spines)]
    up = {i + 1: name for i, name in enumerate(spines)}
    down = {i + 1: name for i, name in enumerate(names)}
    return tuple(Switch(n, "leaf", up) for n in names) + tuple(Switch(n, "spine", down) for n in spines)


def attach(fabric: FabricConfig, index: int) -> Attachment:
    """Where node number `index` (from 0) is attached: leaves in turn."""
    names = leaves(fabric)
    return Attachment(names[index % len(names)], FIRST_NODE_PORT + index // len(names))


def attach_client(fabric: FabricConfig) -> Attachment:
    """Where the machine outside the cluster is attached: on the first leaf."""
    return Attachment(leaves(fabric)[0], CLIENT_PORT)


def rack_subnets(config: LabConfig) -> tuple[IPv4Network, ...]:
    """The subnet of each leaf's nodes: equal parts of the node subnet, of which the last is nobody's; or all of it.

    Raises ValueError if the node subnet has not so many parts.
    """
    count = len(leaves(config.fabric))
    if not config.fabric.routed:
        return (config.node_subnet,) * count
    return tuple(itertools.islice(config.node_subnet.subnets(prefixlen_diff=count.bit_length()), count))


def node_subnet(config: LabConfig, index: int) -> IPv4Network:
    """The subnet that node number `index` (from 0) is in."""
    subnets = rack_subnets(config)
    return subnets[index % len(subnets)]


def gateway_address(config: LabConfig, index: int) -> IPv4Address:
    """Node number `index`'s way to whatever is not on its subnet: its rack's router, or the machine outside."""
    return node_subnet(config, index).network_address + 1


def routers(config: LabConfig) -> Mapping[str, Router]:
    """What the switches are as routers, by name; none on a fabric of one subnet."""
    if not config.fabric.routed:
        return {}
    racks = dict(zip(leaves(config.fabric), rack_subnets(config), strict=True))
    found = {}
    for number, switch in enumerate(switches(config.fabric)):
        subnet = racks.get(switch.name)
        # A router shows its address in its rack; a spine, which has none, one that nobody can have (RFC 1122).
        mac = mac_of(subnet.network_address + 1) if subnet else mac_of(IPv4Address(_SPINES + number))
        found[switch.name] = Router(mac, subnet)
    return found


def client_address(config: LabConfig) -> IPv4Address:
    """The first address of the node subnet, as a docker or kind network's router has it; the second of the first
    rack's where that has a router of its own."""
    return config.node_subnet.network_address + (2 if config.fabric.routed else 1)


def client_object(config: LabConfig) -> Object:
    """As the store holds it."""
    address = client_address(config)
    networks = [str(CLIENT_NETWORK), str(WORLD_NETWORK)]
    spec = {"address": str(address), "mac": mac_of(address), "networks": networks}
    return {"apiVersion": GROUP, "kind": "Outside", "metadata": {"name": CLIENT}, "spec": spec}


def load_balancer_pool(config: LabConfig) -> IPv4Network | None:
    """Addresses for Services of type LoadBalancer: what the lab file says, or the last 64 of the first rack's subnet.

    None where the subnet is too small for that to go without saying.
    """
    subnet = rack_subnets(config)[0]
    if config.load_balancer_pool is not None or subnet.prefixlen > 24:
        return config.load_balancer_pool
    return IPv4Network((int(subnet.broadcast_address) - 63, 26))


def switch_object(switch: Switch, router: Router | None = None, forwarding: str = "flows") -> Object:
    """As the store holds it. forwarding: what routes, "flows" or the switch's "kernel"."""
    spec: Object = {"tier": switch.tier, "ports": {str(number): peer for number, peer in switch.ports.items()}}
    if router is not None:
        spec["router"] = {"mac": router.mac, "subnet": str(router.subnet or ""), "forwarding": forwarding}
    return {
        "apiVersion": GROUP,
        "kind": "FabricSwitch",
        "metadata": {"name": switch.name},
        "spec": spec,
    }


def link(fabric: FabricConfig, one: str, two: str) -> LinkConfig:
    """The properties of the link between two names, in whichever order the lab file gives them."""
    own = fabric.links.get(f"{one}--{two}", fabric.links.get(f"{two}--{one}"))
    return own if own is not None else default_link(fabric, one, two)


def default_link(fabric: FabricConfig, one: str, two: str) -> LinkConfig:
    """What a link is unless the lab file has it by name: as all are, but for the long way between two sites."""
    if {one, two} == set(_PAIRS["two-sites"]):
        return replace(fabric.link, bandwidth=LONG_LINK)
    return fabric.link


def mtu(fabric: FabricConfig) -> int:
    """The largest packet that every link carries."""
    return min([fabric.link.mtu, *(x.mtu for x in fabric.links.values())])


def node_address(config: LabConfig, index: int) -> IPv4Address:
    """Address of node number `index` (from 0); the first is left to a router, as on a docker or kind network, and in a
    rack of its own the second to a machine that is no node."""
    if not config.fabric.routed:
        return config.node_subnet.network_address + 2 + index
    return node_subnet(config, index).network_address + 3 + index // len(leaves(config.fabric))


def pod_cidr(config: LabConfig, index: int) -> IPv4Network:
    """The slice of the pod subnet of node number `index`."""
    size = 1 << (32 - config.node_cidr_bits)
    return IPv4Network((int(config.pod_subnet.network_address) + index * size, config.node_cidr_bits))


def free_numbers(config: LabConfig, names: Iterable[str], taken: Collection[int], last: int) -> list[int]:
    """Numbers of nodes that join: the next after the one given last that no node has, so that addresses are used again
    as late as can be. Raises InputError if there are not addresses for all of them."""
    count, found = 1 << (config.node_cidr_bits - config.pod_subnet.prefixlen), list[int]()
    for name in names:
        numbers = ((last + step) % count for step in range(1, count + 1))
        free = (one for one in numbers if one not in taken and one not in found and _has_address(config, one))
        if (number := next(free, None)) is None:
            raise InputError(f"Node {name}", "the lab has no addresses for another", "a larger podSubnet or nodeSubnet")
        found.append(last := number)
    return found


def _has_address(config: LabConfig, index: int) -> bool:
    address, subnet, pool = node_address(config, index), node_subnet(config, index), load_balancer_pool(config)
    return address in subnet and address != subnet.broadcast_address and (pool is None or address not in pool)


def mac_of(address: IPv4Address) -> str:
    """A locally administered MAC that shows its IPv4 address, as Kubernetes' bridge plugin makes them (0a:58:...)."""
    return "0a:58:" + ":".join(f"{byte:02x}" for byte in address.packed)

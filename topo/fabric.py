"""The underlay as a plan: which switch has which port to whom, and every machine's addresses; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

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
class Attachment:
    """A node's place on the fabric."""

    switch: str
    port: int


# Nodes' ports on a leaf start here; ports before it lead to the spines, and one to the machine outside the cluster.
FIRST_NODE_PORT = 101
CLIENT_PORT = 100
# The machine outside the cluster: the router of the node subnet, behind which clients and the rest of the world are.
CLIENT = "client"
# Networks behind it (RFC 5737): clients' own addresses, and servers that pods may ask.
CLIENT_NETWORK, WORLD_NETWORK = IPv4Network("203.0.113.0/24"), IPv4Network("198.51.100.0/24")


def switches(fabric: FabricConfig) -> tuple[Switch, ...]:
    """The switches with the links among themselves; nodes are attached later."""
    if fabric.shape == "star":
        return (Switch("switch-1", "leaf", {}),)
    leaves = [f"leaf-{i + 1}" for i in range(fabric.leaves)]
    spines = [f"spine-{i + 1}" for i in range(fabric.spines)]
    up = {i + 1: name for i, name in enumerate(spines)}
    down = {i + 1: name for i, name in enumerate(leaves)}
    return tuple(Switch(n, "leaf", up) for n in leaves) + tuple(Switch(n, "spine", down) for n in spines)


def attach(fabric: FabricConfig, index: int) -> Attachment:
    """Where node number `index` (from 0) is attached: leaves in turn."""
    if fabric.shape == "star":
        return Attachment("switch-1", FIRST_NODE_PORT + index)
    return Attachment(f"leaf-{index % fabric.leaves + 1}", FIRST_NODE_PORT + index // fabric.leaves)


def attach_client(fabric: FabricConfig) -> Attachment:
    """Where the machine outside the cluster is attached: on the first leaf."""
    return Attachment("switch-1" if fabric.shape == "star" else "leaf-1", CLIENT_PORT)


def client_address(config: LabConfig) -> IPv4Address:
    """The first address of the node subnet, as a docker or kind network's router has it."""
    return config.node_subnet.network_address + 1


def client_object(config: LabConfig) -> Object:
    """As the store holds it."""
    address = client_address(config)
    networks = [str(CLIENT_NETWORK), str(WORLD_NETWORK)]
    spec = {"address": str(address), "mac": mac_of(address), "networks": networks}
    return {"apiVersion": GROUP, "kind": "Outside", "metadata": {"name": CLIENT}, "spec": spec}


def load_balancer_pool(config: LabConfig) -> IPv4Network | None:
    """Addresses for Services of type LoadBalancer: what the lab file says, or the last 64 of the node subnet.

    None where the subnet is too small for that to go without saying.
    """
    if config.load_balancer_pool is not None or config.node_subnet.prefixlen > 24:
        return config.load_balancer_pool
    return IPv4Network((int(config.node_subnet.broadcast_address) - 63, 26))


def switch_object(switch: Switch) -> Object:
    """As the store holds it."""
    return {
        "apiVersion": GROUP,
        "kind": "FabricSwitch",
        "metadata": {"name": switch.name},
        "spec": {"tier": switch.tier, "ports": {str(number): peer for number, peer in switch.ports.items()}},
    }


def link(fabric: FabricConfig, one: str, two: str) -> LinkConfig:
    """The properties of the link between two names, in whichever order the lab file gives them."""
    return fabric.links.get(f"{one}--{two}", fabric.links.get(f"{two}--{one}", fabric.link))


def mtu(fabric: FabricConfig) -> int:
    """The largest packet that every link carries."""
    return min([fabric.link.mtu, *(x.mtu for x in fabric.links.values())])


def node_address(config: LabConfig, index: int) -> IPv4Address:
    """Address of node number `index` (from 0); the first is left to a router, as on a docker or kind network."""
    return config.node_subnet.network_address + 2 + index


def pod_cidr(config: LabConfig, index: int) -> IPv4Network:
    """The slice of the pod subnet of node number `index`."""
    size = 1 << (32 - config.node_cidr_bits)
    return IPv4Network((int(config.pod_subnet.network_address) + index * size, config.node_cidr_bits))


def mac_of(address: IPv4Address) -> str:
    """A locally administered MAC that shows its IPv4 address, as Kubernetes' bridge plugin makes them (0a:58:...)."""
    return "0a:58:" + ":".join(f"{byte:02x}" for byte in address.packed)

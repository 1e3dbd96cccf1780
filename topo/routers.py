"""Fabric switches that route by their kernel: addresses on the links between them, a rack's gateway, forwarding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from topo import fabric, links
from topo.config import LabConfig
from topo.config_rules import fabric_links
from topo.nodes import Machine
from topo.ovs import Bridge


@dataclass(frozen=True, slots=True)
class RouterLink:
    """One end of a link between two routers; both addresses are the whole of a /31 (RFC 3021)."""

    port: int
    peer: str
    address: IPv4Address
    peer_address: IPv4Address


def link_addresses(config: LabConfig) -> Mapping[str, tuple[RouterLink, ...]]:
    """Of every router, by name. They are from the part of the node subnet that is no rack's."""
    switches = {switch.name: switch for switch in fabric.switches(config.fabric)}
    spare = list(config.node_subnet.subnets(prefixlen_diff=len(fabric.leaves(config.fabric)).bit_length()))[-1]
    found: dict[str, tuple[RouterLink, ...]] = dict.fromkeys(switches, ())
    pairs = [(one, two) for one, two in fabric_links(config) if one in switches]
    for number, pair in enumerate(pairs):
        ends = spare.network_address + 2 * number, spare.network_address + 2 * number + 1
        for (one, two), (address, other) in ((pair, ends), (pair[::-1], ends[::-1])):
            port = next(port for port, peer in switches[one].ports.items() if peer == two)
            found[one] = (*found[one], RouterLink(port, two, address, other))
    return found


def excess(config: LabConfig) -> int:
    """How many links there are too many for that part; 0 or less if there is room."""
    spare: IPv4Network = next(config.node_subnet.subnets(prefixlen_diff=len(fabric.leaves(config.fabric)).bit_length()))
    names = {switch.name for switch in fabric.switches(config.fabric)}
    return sum(one in names for one, _ in fabric_links(config)) - spare.num_addresses // 2


def rack_bridge(bridge: Bridge, router: fabric.Router) -> Bridge:
    """A router's switch: the ports of its rack alone, and its own MAC."""
    ports = tuple(port for port in bridge.ports if port.number >= fabric.CLIENT_PORT)
    return replace(bridge, ports=ports, mac=router.mac)


def configure(machine: Machine, config: LabConfig, name: str, mtu: int) -> None:
    """Give a router its addresses, once its switch runs. mtu: of the fabric, bytes."""
    router, ends = fabric.routers(config)[name], link_addresses(config)[name]
    links.no_ipv6(machine.pid)
    links.sysctl(
        machine.pid,
        net__ipv4__ip_forward="1",
        net__ipv4__conf__all__rp_filter="0",
        net__ipv4__conf__default__rp_filter="0",
        net__ipv4__fib_multipath_hash_policy="1",
        net__ipv4__icmp_ratelimit="0",
    )
    names = [f"eth{end.port}" for end in ends]
    for name, end in zip(names, ends, strict=True):
        links.configure(machine.pid, name, f"{end.address}/31", mtu=mtu, loopback=True)
    if router.subnet is not None:
        links.configure(machine.pid, "br-fabric", f"{router.gateway}/{router.subnet.prefixlen}", mtu=mtu)
    machine.host.run("nft", "-f", "-", text=_rules(names))


def _rules(names: list[str]) -> str:
    """On the userspace datapath the kernel too sees what arrives at the switch's ports; that is the switch's alone."""
    own = ", ".join(f'"{name}"' for name in ("lo", "br-fabric", *names))
    return f"""
    table arp routers
    delete table arp routers
    table ip routers
    delete table ip routers
    table arp routers {{
      chain input {{ type filter hook input priority 0; iifname != {{ {own} }} drop; }}
    }}
    table ip routers {{
      chain prerouting {{ type filter hook prerouting priority -300; iifname != {{ {own} }} drop; }}
    }}
    """

"""What a CNI asks of the builder of nodes and pods, as a value: MTU, addressing, tunnel port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tunnel:
    """An OVS tunnel port of br-int whose remote end and key the flows may choose (ovs-vswitchd.conf.db(5))."""

    name: str
    type: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """How pods are attached.

    mtu: bytes of IP packet of a pod's interface.
    on_link: pods of one node share a subnet (the node's pod CIDR) and ARP for each other; else each is a /32.
    gateway: the pods' default gateway address, or "" for the first address of the node's pod CIDR.
    gateway_mac: the gateway's MAC on every node, or "" for one of each node's own.
    bridged: pods are ports of a Linux bridge in their node, and its kernel does what the switch would.
    """

    mtu: int
    on_link: bool
    gateway: str = ""
    gateway_mac: str = ""
    tunnel: Tunnel | None = None
    bridged: bool = False

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
class Daemon:
    """A program to run in a machine. files: text of each by name, in a folder for which "{run}" stands in the command.

    private: folders of the machine that it writes to, empty for it alone. covered: files of the machine that are
    others for it, each with the name of that one among `files`.
    """

    name: str
    files: Mapping[str, str]
    command: tuple[str, ...]
    private: tuple[str, ...] = ()
    covered: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plugins:
    """CNI plugins that the user brings. conf: folder with a .conflist, or the file; bins: folders with executables.

    version: of the CNI specification, that file and executables agree on; "" while nobody has looked.
    """

    conf: str
    bins: tuple[str, ...]
    version: str = ""


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """How pods are attached.

    mtu: bytes of IP packet of a pod's interface.
    on_link: pods of one node share a subnet (the node's pod CIDR) and ARP for each other; else each is a /32.
    one_link: all pods of the lab do, in the whole pod subnet.
    offloads: pods may leave checksums to a datapath that can make them; not where a program takes up their packets.
    gateway: the pods' default gateway address, or "" for the first address of the node's pod CIDR.
    gateway_mac: the gateway's MAC on every node, or "" for one of each node's own.
    bridged: pods are ports of a Linux bridge in their node, and its kernel does what the switch would.
    bridge: what that is called; the CNI plugin `bridge` calls it cni0.
    sealed: what goes to other nodes passes the node's kernel, which seals it (controllers/transports/sealing.py).
    routed: the node's kernel has the routes to other nodes' pods, from a routing daemon.
    plugins: CNI plugins of the user's attach the pods, instead of ours.
    """

    mtu: int
    on_link: bool
    gateway: str = ""
    gateway_mac: str = ""
    tunnel: Tunnel | None = None
    bridged: bool = False
    bridge: str = "cni0"
    routed: bool = False
    plugins: Plugins | None = None
    sealed: bool = False
    one_link: bool = False
    offloads: bool = True

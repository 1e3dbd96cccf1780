"""Attaches pods: a namespace, a veth pair, an address and a switch port each, many at once."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from zlib import crc32

from topo import links, linuxbridge
from topo.cluster.network import PodNetwork
from topo.fabric import mac_of
from topo.hosts import Host
from topo.nodes import Node
from topo.ovs import Port


@dataclass(slots=True)
class Sandbox:
    """A pod's namespaces and its place on the node. port 0: it shares the node's network (hostNetwork)."""

    key: str
    host: Host
    node: Node
    ip: IPv4Address
    mac: str
    port: int
    interface: str

    @property
    def pid(self) -> int:
        """A process in the pod's namespaces."""
        return int(self.host.pid)


class HostNetwork(Host):
    """The network namespace of a node, with mounts of its own."""

    def __init__(self, name: str, node_pid: int) -> None:
        self._node_pid = node_pid
        super().__init__(name)

    def startShell(self, mnopts: str | None = None) -> None:
        """As a Host's, with unshare(1) in place of mnexec -n, which would make a network namespace too."""
        own = ["unshare", "--mount", "sh", "-c", "echo; exec sleep infinity"]
        command = ["mnexec", "-d", "-a", str(self._node_pid), *own]
        self.holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        self.holder.stdout.readline()
        self.holder.stdout.close()
        self.pid = self.holder.pid


def interface_name(key: str) -> str:
    """The node's end of the pod's veth: at most 15 characters (IFNAMSIZ), the same for the same pod."""
    return f"veth{crc32(key.encode()):08x}"


def make(key: str, name: str, node: Node, ip: IPv4Address, network: PodNetwork, checksums: bool) -> Sandbox:
    """Namespaces and interfaces of one pod; `attach` connects it. checksums: whether the datapath can offload them."""
    host = Host(name)
    mac = mac_of(ip)
    interface = interface_name(key)
    node_pid = node.machine.pid
    links.no_ipv6(host.pid)
    links.veth(interface, node_pid, "eth0", host.pid, network.mtu, peer_mac=mac)
    links.set_up(node_pid, interface, True)
    if network.on_link:
        address, gateway = f"{ip}/{node.pod_cidr.prefixlen}", str(node.gateway_ip)
    else:
        address, gateway = f"{ip}/32", network.gateway or str(node.gateway_ip)
    links.configure(host.pid, "eth0", address, [("0.0.0.0/0", gateway, "")], loopback=True)
    if not checksums:
        links.checksum_offload_off(host.pid, "eth0")
    return Sandbox(key, host, node, ip, mac, node.take_port(), interface)


def share_node(key: str, name: str, node: Node, own_files: bool) -> Sandbox:
    """A pod on the host's network: it has the node's address and namespaces, except its mounts if it has own files."""
    host = HostNetwork(name, node.machine.pid) if own_files else node.machine.host
    return Sandbox(key, host, node, node.ip, mac_of(node.ip), 0, "")


def attach(node: Node, sandboxes: Sequence[Sandbox], network: PodNetwork) -> None:
    """Connect pods of one node to its br-int, all in one change of its database, or to its Linux bridge."""
    if network.bridged:
        linuxbridge.attach(node, [s.interface for s in sandboxes if s.port])
        return
    node.machine.switch.add_ports("br-int", [Port(s.interface, s.port) for s in sandboxes if s.port])


def detach(node: Node, sandboxes: Sequence[Sandbox]) -> None:
    """Disconnect and end pods of one node."""
    mine = [s for s in sandboxes if s.port]
    node.machine.switch.delete_ports("br-int", [s.interface for s in mine])
    for sandbox in mine:
        links.delete(node.machine.pid, sandbox.interface)
        node.pod_ports.discard(sandbox.port)
        sandbox.host.end()

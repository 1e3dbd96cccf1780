"""Builds the machines of a lab: Kubernetes nodes and fabric switches, each a namespace with its own Open vSwitch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from topo import links
from topo.cluster import wiring
from topo.cluster.network import PodNetwork
from topo.cluster.store import Object
from topo.config import LabConfig, NodeConfig
from topo.fabric import Attachment, attach, mac_of, node_address, pod_cidr
from topo.hosts import Host
from topo.ovs import Bridge, OpenVSwitch, Port

# Numbers of tables and their names, for each kind of bridge; given by whoever starts the lab.
Tables = Mapping[str, tuple[tuple[int, str], ...]]


@dataclass(slots=True)
class Machine:
    """A namespace with an Open vSwitch in it."""

    host: Host
    switch: OpenVSwitch

    @property
    def pid(self) -> int:
        """A process in the namespaces."""
        return int(self.host.pid)

    def end(self) -> None:
        """End its processes; the interfaces go with the namespace."""
        self.switch.stop()
        self.host.end()


@dataclass(slots=True)
class Node:
    """A Kubernetes node as planned and built. index: its number in the lab, which decides its addresses."""

    config: NodeConfig
    index: int
    ip: IPv4Address
    pod_cidr: IPv4Network
    attachment: Attachment
    gateway_mac: str
    machine: Machine
    pod_ports: set[int] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The node's name."""
        return self.config.name

    @property
    def gateway_ip(self) -> IPv4Address:
        """gw0's address: the first of the pod CIDR."""
        return self.pod_cidr.network_address + 1

    def take_port(self) -> int:
        """A free OpenFlow port number for a pod; the lowest, so that numbers stay small."""
        number = wiring.FIRST_POD_PORT
        while number in self.pod_ports:
            number += 1
        self.pod_ports.add(number)
        return number


def plan_node(config: LabConfig, network: PodNetwork, node: NodeConfig, index: int, run: Path, datapath: str) -> Node:
    """Addresses and place of a node, and an empty machine for it."""
    cidr = pod_cidr(config, index)
    host = Host(node.name)
    return Node(
        node,
        index,
        node_address(config, index),
        cidr,
        attach(config.fabric, index),
        network.gateway_mac or mac_of(cidr.network_address + 1),
        Machine(host, OpenVSwitch(host, run / node.name, datapath)),
    )


def node_object(node: Node) -> Object:
    """The node as the store holds it once it is built."""
    labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", **node.config.labels}
    if node.config.role == "control-plane":
        labels["node-role.kubernetes.io/control-plane"] = ""
    notes = {wiring.MAC: mac_of(node.ip), wiring.GATEWAY_MAC: node.gateway_mac}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": labels, "annotations": notes},
        "spec": {"podCIDR": str(node.pod_cidr)},
        "status": {
            "addresses": [{"type": "InternalIP", "address": str(node.ip)}, {"type": "Hostname", "address": node.name}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


def node_bridges(node: Node, network: PodNetwork, tables: Tables) -> tuple[Bridge, Bridge]:
    """br-ex with the wire and the node's address; br-int with the gateway, the tunnel and, later, the pods."""
    tunnel = network.tunnel
    tunnel_ports = (
        (Port(tunnel.name, wiring.TUNNEL_PORT, tunnel.type, tuple(tunnel.options.items())),) if tunnel else ()
    )
    to_uplink = Port("patch-ex", wiring.UPLINK_PORT, "patch", (("peer", "patch-int"),))
    to_pods = Port("patch-int", wiring.PATCH_PORT, "patch", (("peer", "patch-ex"),))
    gateway = Port("gw0", wiring.GATEWAY_PORT, "internal", mac=node.gateway_mac)
    return (
        Bridge("br-ex", (Port("eth0", wiring.WIRE_PORT), to_pods), mac_of(node.ip), tables["br-ex"]),
        Bridge("br-int", (gateway, *tunnel_ports, to_uplink), "", tables["br-int"]),
    )


def start_node(node: Node, config: LabConfig, network: PodNetwork, tables: Tables, database: Path, mtu: int) -> None:
    """Start the node's switch and give its own stack addresses, routes and masquerading. mtu: of the fabric, bytes."""
    machine, pid = node.machine, node.machine.pid
    links.set_up(pid, "eth0", True)
    machine.switch.start_database(database)
    machine.switch.configure(node_bridges(node, network, tables))
    machine.switch.start_switch()
    links.sysctl(
        pid,
        net__ipv4__ip_forward="1",
        net__ipv4__conf__all__rp_filter="0",
        net__ipv4__conf__default__rp_filter="0",
        # Every rejected connection gets its answer, not one a second (icmp(7)).
        net__ipv4__icmp_ratelimit="0",
    )
    prefix = config.node_subnet.prefixlen
    links.configure(pid, "br-ex", f"{node.ip}/{prefix}", mtu=mtu, loopback=True)
    own = str(node.gateway_ip)
    routes = [(str(net), "", own) for net in (config.pod_subnet, config.service_subnet)]
    links.configure(pid, "gw0", f"{own}/32", routes, mtu=network.mtu)
    machine.host.run("nft", "-f", "-", text=_rules(config))


def _rules(config: LabConfig) -> str:
    """What the node's kernel does for its pods: reject dead Services, masquerade what leaves the cluster.

    Source: kube-proxy's reject of Services without endpoints; flannel's and Calico's masquerade rules.
    """
    pods, services = config.pod_subnet, config.service_subnet
    return f"""
    table ip mininetes {{
      chain forward {{
        type filter hook forward priority 0;
        ip daddr {services} meta l4proto tcp reject with tcp reset
        ip daddr {services} reject with icmp type port-unreachable
      }}
      chain input {{
        type filter hook input priority 0;
        ip daddr {services} reject with icmp type port-unreachable
      }}
      chain postrouting {{
        type nat hook postrouting priority 100;
        ip saddr {pods} ip daddr != {pods} ip daddr != {services} oifname "br-ex" masquerade
      }}
    }}
    """


def start_switch(machine: Machine, ports: Mapping[int, str], tables: Tables, database: Path) -> None:
    """Start a fabric switch with these ports (OpenFlow number -> interface)."""
    for name in ports.values():
        links.set_up(machine.pid, name, True)
    machine.switch.start_database(database)
    bridge = Bridge("br-fabric", tuple(Port(n, number) for number, n in ports.items()), "", tables["br-fabric"])
    machine.switch.configure([bridge])
    machine.switch.start_switch()


def processes(machine: Machine) -> dict[str, Any]:
    """The machine's daemons by program, as pids."""
    return {program: process.pid for program, process in machine.switch.processes.items()}

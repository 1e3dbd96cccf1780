"""Builds the machines of a lab: Kubernetes nodes and fabric switches, each a namespace with its own Open vSwitch."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from topo import links
from topo.cluster import wiring
from topo.cluster.network import PodNetwork
from topo.cluster.store import Object
from topo.config import LabConfig, NodeConfig
from topo.fabric import (
    Attachment,
    attach,
    gateway_address,
    load_balancer_pool,
    mac_of,
    node_address,
    node_subnet,
    pod_cidr,
)
from topo.hosts import Host
from topo.ovs import Bridge, OpenVSwitch, Port
from topo.system import inside

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
        """End its processes; the interfaces go with the namespace.

        None may outlive it: an agent that was down meanwhile would take its BIRD for that of the next node of its name.
        """
        self.switch.stop()
        self.host.end_programs()
        self.host.end()


@dataclass(slots=True)
class Node:
    """A Kubernetes node as planned and built. index: its number in the lab, which decides its addresses.

    subnet: of the fabric, that it is in. link: the subnet that its pods share with others on their link, if they do.
    """

    config: NodeConfig
    index: int
    ip: IPv4Address
    subnet: IPv4Network
    pod_cidr: IPv4Network
    link: IPv4Network
    attachment: Attachment
    gateway_mac: str
    machine: Machine
    # OpenFlow ports of pods by interface.
    pod_ports: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The node's name."""
        return self.config.name

    @property
    def gateway_ip(self) -> IPv4Address:
        """gw0's address: the first of the pod CIDR."""
        return self.pod_cidr.network_address + 1

    def take_port(self, interface: str) -> int:
        """A free OpenFlow port number for a pod's interface; the lowest, so that numbers stay small."""
        number, taken = wiring.FIRST_POD_PORT, set(self.pod_ports.values())
        while number in taken:
            number += 1
        self.pod_ports[interface] = number
        return number


def plan_node(config: LabConfig, network: PodNetwork, node: NodeConfig, index: int, run: Path, datapath: str) -> Node:
    """Addresses and place of a node, and an empty machine for it."""
    cidr = pod_cidr(config, index)
    host = Host(node.name)
    return Node(
        node,
        index,
        node_address(config, index),
        node_subnet(config, index),
        cidr,
        config.pod_subnet if network.one_link else cidr,
        attach(config.fabric, index),
        network.gateway_mac or mac_of(cidr.network_address + 1),
        Machine(host, OpenVSwitch(host, run / node.name, datapath)),
    )


def node_object(node: Node) -> Object:
    """The node as the store holds it once it is built."""
    labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", **node.config.labels}
    if node.config.role == "control-plane":
        labels["node-role.kubernetes.io/control-plane"] = ""
    notes = {wiring.MAC: mac_of(node.ip), wiring.GATEWAY_MAC: node.gateway_mac, wiring.PID: str(node.machine.pid)}
    notes[wiring.SUBNET] = str(node.subnet)
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


def fill_object(have: Object, planned: Object) -> None:
    """Add to a node that was applied by hand what building it decides."""
    meta, ours = have["metadata"], planned["metadata"]
    meta["labels"] = {**ours["labels"], **meta.get("labels", {})}
    # These are facts; a manifest may have been written out of another lab.
    meta["annotations"] = {**meta.get("annotations", {}), **ours["annotations"]}
    have["spec"] = {**have.get("spec", {}), **planned["spec"]}
    have["status"] = planned["status"]


def count_restored(thing: Object) -> None:
    """Note on the node's object that its interfaces are new."""
    notes = thing["metadata"].setdefault("annotations", {})
    notes[wiring.RESTORED] = str(int(notes.get(wiring.RESTORED, "0")) + 1)


def node_bridges(node: Node, network: PodNetwork, tables: Tables) -> tuple[Bridge, Bridge]:
    """br-ex with the wire and the node's address; br-int with the gateway, the tunnel and, later, the pods."""
    # The switch would take a tunnel's packets before the kernel, whose device has them where pods hang on its bridge.
    tunnel = None if network.bridged else network.tunnel
    tunnel_ports = (
        (Port(tunnel.name, wiring.TUNNEL_PORT, tunnel.type, tuple(tunnel.options.items())),) if tunnel else ()
    )
    to_uplink = Port("patch-ex", wiring.UPLINK_PORT, "patch", (("peer", "patch-int"),))
    to_pods = Port("patch-int", wiring.PATCH_PORT, "patch", (("peer", "patch-ex"),))
    gateway = Port("gw0", wiring.GATEWAY_PORT, "internal", mac=node.gateway_mac)
    to_seal = [Port(wiring.SEAL_DEVICE, wiring.SEAL_PORT, "internal", mac=wiring.SEAL_MAC)] if network.sealed else []
    uplinks = (Port("eth0", wiring.WIRE_PORT), to_pods, *to_seal)
    return (
        Bridge("br-ex", uplinks, mac_of(node.ip), tables["br-ex"]),
        Bridge("br-int", (gateway, *tunnel_ports, to_uplink), "", tables["br-int"]),
    )


def prepare(machine: Machine, bridges: Sequence[Bridge], database: Path) -> None:
    """Bring the machine's wires up and its database into the state that its switch will start from."""
    links.no_ipv6(machine.pid)
    for port in (p for bridge in bridges for p in bridge.ports if not p.type):
        links.set_up(machine.pid, port.name, True)
    machine.switch.start_database(database)
    machine.switch.configure(bridges)


def configure_stack(node: Node, config: LabConfig, network: PodNetwork, mtu: int) -> None:
    """Give the node's own stack addresses, routes, masquerading and rejects. mtu: of the fabric, bytes."""
    machine, pid = node.machine, node.machine.pid
    links.sysctl(
        pid,
        net__ipv4__ip_forward="1",
        # The kernel's default; clients that the switch hides behind the node get lower ones.
        net__ipv4__ip_local_port_range="32768 60999",
        net__ipv4__conf__all__rp_filter="0",
        net__ipv4__conf__default__rp_filter="0",
        # The switch gives back what the node sends to a Service without endpoints; its source is the node itself.
        net__ipv4__conf__gw0__accept_local="1",
        # Of several equally good next hops each connection takes one: ports count, not addresses alone.
        net__ipv4__fib_multipath_hash_policy="1",
        # Every rejected connection gets its answer, not one a second (icmp(7)).
        net__ipv4__icmp_ratelimit="0",
    )
    prefix = node_subnet(config, node.index).prefixlen
    router = ("0.0.0.0/0", str(gateway_address(config, node.index)), "")
    links.configure(pid, "br-ex", f"{node.ip}/{prefix}", [router], mtu=mtu, loopback=True)
    machine.host.run("nft", "-f", "-", text=_rules(config, network))
    if network.bridged:
        return
    own = str(node.gateway_ip)
    pool = load_balancer_pool(config)
    pods = node.pod_cidr if network.routed else config.pod_subnet
    routes = [(str(net), "", own) for net in (pods, config.service_subnet, pool) if net]
    routes += [(f"{address}/32", "", own) for address in (wiring.HAIRPIN_IP, wiring.NODEPORT_IP)]
    links.configure(pid, "gw0", f"{own}/32", routes, mtu=network.mtu)


def greet(node: Node, others: Iterable[Node]) -> None:
    """Make the node resolve its peers' MACs: a tunnel drops what it carries until it knows its next hop's."""
    with inside(node.machine.pid), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for other in others:
            sock.sendto(b"", (str(other.ip), 9))  # discard (RFC 863); the ARP request before it is what counts


def _rules(config: LabConfig, network: PodNetwork) -> str:
    """What the node's kernel does for its pods: reject dead Services, masquerade what leaves the cluster.

    On the userspace datapath the kernel too sees what arrives at the switch's ports; it must take only what the switch
    hands to it. Source: kube-proxy's reject of Services without endpoints; flannel's and Calico's masquerade rules.
    Set a second time (flush, nft(8)), the rules leave the elements of set and map alone, which are the agent's.
    """
    pods, services = config.pod_subnet, config.service_subnet
    switched = 'iifname "eth0" drop' if network.bridged else 'iifname { "eth0", "veth*" } drop'
    return f"""
    table arp mininetes
    delete table arp mininetes
    table ip mininetes
    flush table ip mininetes
    table arp mininetes {{
      chain input {{
        type filter hook input priority 0;
        {switched}
      }}
    }}
    table ip mininetes {{
      chain prerouting {{
        type filter hook prerouting priority -300;
        iifname "gw0" ether saddr {wiring.REJECT_MAC} notrack
        {switched}
      }}
      chain refuse {{
        meta l4proto tcp reject with tcp reset
        reject with icmp type port-unreachable
      }}
      chain forward {{
        type filter hook forward priority 0;
        iifname "gw0" ether saddr {wiring.REJECT_MAC} jump refuse
      }}
      chain input {{
        type filter hook input priority 0;
        iifname "gw0" ether saddr {wiring.REJECT_MAC} jump refuse
      }}
      set neighbours {{ type ipv4_addr; }}
      set nodeports {{ type inet_proto . inet_service; }}
      map externals {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
      chain output {{
        type nat hook output priority -100;
        fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport @nodeports dnat to {wiring.NODEPORT_IP}
        dnat ip to ip daddr . meta l4proto . th dport map @externals
      }}
      chain postrouting {{
        type nat hook postrouting priority 100;
        ip saddr {wiring.HAIRPIN_IP} oifname != "gw0" masquerade
        oifname "gw0" ip daddr {services} ct status dnat masquerade
        ip saddr {pods} ip daddr != {pods} ip daddr != {services} ip daddr != @neighbours oifname "br-ex" masquerade
      }}
    }}
    """


def switch_bridge(ports: Mapping[int, str], tables: Tables) -> Bridge:
    """A fabric switch's bridge with these ports (OpenFlow number -> interface)."""
    return Bridge("br-fabric", tuple(Port(n, number) for number, n in ports.items()), "", tables["br-fabric"])


def processes(machine: Machine) -> dict[str, Any]:
    """The machine's daemons by program, as pids."""
    return {program: process.pid for program, process in machine.switch.processes.items()}

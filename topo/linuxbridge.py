"""Pods on a Linux bridge in their node, as the reference CNI plugin `bridge` attaches them, instead of on the switch.

Source: containernetworking plugins, main/bridge: the gateway's address on the bridge, hairpin mode on its ports;
Kubernetes, "Network Plugins": a bridge's packets must pass iptables (net/bridge/bridge-nf-call-iptables).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyroute2 import IPRoute

from topo import links
from topo.cluster.errors import PlatformError
from topo.nodes import Node
from topo.system import inside

BRIDGE = "cni0"
_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def configure(node: Node, mtu: int) -> None:
    """Make the node's bridge with the gateway's address, MTU in bytes. Raises PlatformError if iptables cannot see it.

    Proxy ARP is for pods whose gateway is no address of the node (Calico's 169.254.1.1).
    """
    pid = node.machine.pid
    with inside(pid):
        if not _FILTER.exists():
            missing = "iptables does not see what crosses a Linux bridge: this kernel has no br_netfilter loaded"
            raise PlatformError(missing, "modprobe br_netfilter, or a proxy mode of flows")
        with IPRoute() as ip:
            if not ip.link_lookup(ifname=BRIDGE):
                ip.link("add", ifname=BRIDGE, kind="bridge", address=node.gateway_mac)
        _FILTER.write_text("1")
    links.configure(pid, BRIDGE, f"{node.gateway_ip}/{node.pod_cidr.prefixlen}", mtu=mtu)
    links.sysctl(pid, **{f"net__ipv4__conf__{BRIDGE}__proxy_arp": "1", f"net__ipv4__conf__{BRIDGE}__rp_filter": "0"})


def attach(node: Node, interfaces: Sequence[str]) -> None:
    """Make these interfaces ports of the node's bridge; a packet may leave by the port it came from."""
    with inside(node.machine.pid), IPRoute() as ip:
        bridge = ip.link_lookup(ifname=BRIDGE)[0]
        for name in interfaces:
            index = ip.link_lookup(ifname=name)[0]
            ip.link("set", index=index, master=bridge)
            ip.brport("set", index=index, mode=1)  # IFLA_BRPORT_MODE: hairpin

"""A Linux bridge in a node for its pods, as the reference CNI plugin `bridge` makes one, instead of the switch.

Source: containernetworking plugins, main/bridge: the gateway's address on the bridge, hairpin mode on its ports;
Kubernetes, "Network Plugins": a bridge's packets must pass iptables (net/bridge/bridge-nf-call-iptables).
"""

from __future__ import annotations

from pathlib import Path

from pyroute2 import IPRoute

from topo import links
from topo.cluster.errors import PlatformError
from topo.nodes import Node
from topo.system import inside

_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def show_to_iptables(node: Node) -> None:
    """Have iptables see what crosses the node's Linux bridges. Raises PlatformError if it cannot."""
    with inside(node.machine.pid):
        if not _FILTER.exists():
            missing = "iptables does not see what crosses a Linux bridge: this kernel has no br_netfilter loaded"
            raise PlatformError(missing, "modprobe br_netfilter, or a proxy mode of flows")
        _FILTER.write_text("1")


def configure(node: Node, name: str, mtu: int) -> None:
    """Make the node's bridge with the gateway's address, MTU in bytes.

    Proxy ARP is for pods whose gateway is no address of the node (Calico's 169.254.1.1).
    """
    pid = node.machine.pid
    with inside(pid), IPRoute() as ip:
        if not ip.link_lookup(ifname=name):
            ip.link("add", ifname=name, kind="bridge", address=node.gateway_mac)
    links.configure(pid, name, f"{node.gateway_ip}/{node.pod_cidr.prefixlen}", mtu=mtu)
    links.sysctl(pid, **{f"net__ipv4__conf__{name}__proxy_arp": "1", f"net__ipv4__conf__{name}__rp_filter": "0"})

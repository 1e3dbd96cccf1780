"""Encapsulations, with what each adds to a packet: some Open vSwitch does itself, some the kernel of a node."""

from __future__ import annotations

from dataclasses import dataclass

from controllers.transports import ipip, wireguard
from topo.cluster.network import Tunnel


@dataclass(frozen=True, slots=True)
class Headers:
    """overhead: bytes round the inner IP packet but for the outer frame. headers: these, as tshark(1) names them."""

    overhead: int
    headers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Encapsulation(Headers):
    """type: as ovs-vswitchd.conf.db(5) has it."""

    type: str

    def tunnel(self, name: str, udp_port: str) -> Tunnel:
        """A port whose remote end and key the flows choose."""
        return Tunnel(name, self.type, {"remote_ip": "flow", "key": "flow", "dst_port": udp_port})


# IP 20 + UDP 8 + VXLAN 8 + inner Ethernet 14 (RFC 7348, section 5).
VXLAN = Encapsulation(50, ("ip", "udp", "vxlan", "eth"), "vxlan")
# IP 20 + UDP 8 + Geneve without options 8 + inner Ethernet 14 (RFC 8926, section 3.4).
GENEVE = Encapsulation(50, ("ip", "udp", "geneve", "eth"), "geneve")
# IP 20 + UDP 8 (flannel, backend udp: the packet is the datagram).
UDP = Headers(28, ("ip", "udp"))
IPIP = Headers(ipip.OVERHEAD, ("ip",))
WIREGUARD = Headers(wireguard.OVERHEAD, ("ip", "udp", "wg"))

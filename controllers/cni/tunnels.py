"""Encapsulations that Open vSwitch does itself, with what each adds to a packet."""

from __future__ import annotations

from dataclasses import dataclass

from topo.cluster.network import Tunnel


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """type: as ovs-vswitchd.conf.db(5) has it; overhead: bytes round the inner IP packet but for the outer frame.

    headers: these bytes, as tshark(1) names them.
    """

    type: str
    overhead: int
    headers: tuple[str, ...]

    def tunnel(self, name: str, udp_port: str) -> Tunnel:
        """A port whose remote end and key the flows choose."""
        return Tunnel(name, self.type, {"remote_ip": "flow", "key": "flow", "dst_port": udp_port})


# IP 20 + UDP 8 + VXLAN 8 + inner Ethernet 14 (RFC 7348, section 5).
VXLAN = Encapsulation("vxlan", 50, ("ip", "udp", "vxlan", "eth"))
# IP 20 + UDP 8 + Geneve without options 8 + inner Ethernet 14 (RFC 8926, section 3.4).
GENEVE = Encapsulation("geneve", 50, ("ip", "udp", "geneve", "eth"))

"""Sealing what goes to other nodes, tunnels and all: br-ex hands it to the node's kernel by seal0, and gets back what
was opened.

So br-int's flows, and what a tunnel's header says, are the same with and without (as Cilium encapsulates, then
encrypts). The kernel's own packets from and to the same addresses take their usual way: only where a packet came in
decides, by policy routing (ip-rule(8)), for which the rule of the local table, which the kernel asks first, has to
come later.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from controllers.agent.commands import run
from controllers.flow.fields import mac_text
from controllers.state import Node
from topo.cluster.wiring import SEAL_DEVICE
from topo.system import inside

# Routing tables: of what is to be sealed, and of what was opened; and the preferences of the rules for each, before the
# local table's new one.
_SEAL, _OPEN = 400, 401
_LOCAL_RULE = 100
# A neighbour that stands for the switch.
_SWITCH = "169.254.169.251"


class Sealing:
    """One node's routes to and from the device that seals; made again whenever either device is another one."""

    def __init__(self, pid: int, device: str, mtu: int) -> None:
        self._pid, self._device, self._mtu = pid, device, mtu
        self._made: tuple[int, int] | None = None

    def sync(self, node: Node, peers: Sequence[Node]) -> None:
        """Routes and rules. Raises RuntimeError, and OSError if a device is not there."""
        with inside(self._pid):
            devices = socket.if_nametoindex(self._device), socket.if_nametoindex(SEAL_DEVICE)
        if devices == self._made:
            return
        self._made = None
        settings = (f"{SEAL_DEVICE}.accept_local=1", f"{SEAL_DEVICE}.rp_filter=0", f"{self._device}.rp_filter=0")
        # What is sealed bears the node's own address.
        run(self._pid, "sysctl", "-qw", *(f"net.ipv4.conf.{setting}" for setting in settings))
        lines = commands(self._device, self._mtu, node, run(self._pid, "ip", "rule"))
        run(self._pid, "ip", "-batch", "-", text="\n".join(lines) + "\n")
        self._made = devices


def commands(device: str, mtu: int, node: Node, rules: str) -> list[str]:
    """For ip(8). rules: those there are, as it prints them."""
    lines = [
        f"link set {device} mtu {mtu} up",
        f"link set {SEAL_DEVICE} up",
        f"route replace default dev {device} table {_SEAL}",
        f"neigh replace {_SWITCH} lladdr {mac_text(node.mac)} dev {SEAL_DEVICE} nud permanent",
        f"route replace default via {_SWITCH} dev {SEAL_DEVICE} onlink table {_OPEN}",
    ]
    for preference, came_by, table in ((10, SEAL_DEVICE, _SEAL), (11, device, _OPEN)):
        if f"iif {came_by} lookup {table}" not in rules:
            lines.append(f"rule add pref {preference} iif {came_by} lookup {table}")
    if f"{_LOCAL_RULE}:" not in rules:
        lines += [f"rule add pref {_LOCAL_RULE} lookup local", "rule del pref 0"]
    return lines

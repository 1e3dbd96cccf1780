"""IP in IP between nodes (RFC 2003): the kernel's device, or the userspace tunnel where the kernel has none."""

from __future__ import annotations

from pathlib import Path

from controllers.agent.commands import run as run_in
from controllers.flow.fields import ip_text
from controllers.proxy import NodePart
from controllers.state import NodeView
from controllers.transports.routes import Behind, DeviceRoutes, everyone, through_node
from controllers.transports.userspace import UserspaceTunnel
from topo.system import has_device

# What it adds to a packet: one IPv4 header without options.
OVERHEAD = 20
DEVICE = "tunl0"


class KernelIpip:
    """The kernel's ipip device of one node."""

    def __init__(self, pid: int, mtu: int, behind: Behind) -> None:
        self._pid, self._behind = pid, behind
        self._routes = DeviceRoutes(pid, DEVICE, mtu, through_node)
        self._is_there = False

    def sync(self, view: NodeView) -> None:
        """The device once, then the routes. Raises OSError or RuntimeError."""
        if not self._is_there:
            # Every namespace has a tunl0 from the start, unless net.core.fb_tunnels_only_for_init_net says otherwise;
            # or an agent before this one has made it.
            if DEVICE not in run_in(self._pid, "ip", "-o", "link", "show", "type", "ipip"):
                run_in(self._pid, "ip", "link", "add", DEVICE, "type", "ipip", "local", ip_text(view.node.ip))
            self._is_there = True
        self._routes.sync(view.node, self._behind(view))

    def close(self) -> None:
        """The device goes with the node."""


def ipip(pid: int, run: Path, mtu: int, behind: Behind = everyone) -> NodePart:
    """Whichever the machine can have; `mininetes status` says if it is the second."""
    if has_device("ipip"):
        return KernelIpip(pid, mtu, behind)
    return UserspaceTunnel(pid, run, DEVICE, mtu, ("ipip",), behind)

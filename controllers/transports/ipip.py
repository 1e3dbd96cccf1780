"""IP in IP between nodes (RFC 2003): the kernel's device, or the userspace tunnel where the kernel has none."""

from __future__ import annotations

from controllers.agent.commands import run
from controllers.flow.fields import ip_text
from controllers.proxy import NodePart
from controllers.state import NodeView
from controllers.transports.routes import DeviceRoutes, through_node
from controllers.transports.userspace import UserspaceTunnel
from topo.system import has_device


class KernelIpip:
    """The kernel's ipip device of one node."""

    def __init__(self, pid: int, device: str, mtu: int) -> None:
        self._pid, self._device, self._mtu = pid, device, mtu
        self._routes = DeviceRoutes(pid, device, through_node)
        self._is_there = False

    def sync(self, view: NodeView) -> None:
        """The device once, then the routes. Raises OSError or RuntimeError."""
        if not self._is_there:
            # An agent before this one may have made it.
            if self._device not in run(self._pid, "ip", "-o", "link", "show", "type", "ipip"):
                run(self._pid, "ip", "link", "add", self._device, "type", "ipip", "local", ip_text(view.node.ip))
            run(self._pid, "ip", "link", "set", self._device, "mtu", str(self._mtu), "up")
            self._is_there = True
        self._routes.sync(view)

    def close(self) -> None:
        """The device goes with the node."""


def ipip(pid: int, device: str, mtu: int) -> NodePart:
    """Whichever the machine can have; `mininetes list kernel` says which."""
    if has_device("ipip"):
        return KernelIpip(pid, device, mtu)
    return UserspaceTunnel(pid, device, mtu, ("ipip",))

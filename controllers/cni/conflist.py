"""conflist: CNI plugins that the user brings, as a .conflist file and executables; nodes are each other's next hops.

Source: CNI specification 1.1.0; Kubernetes, "Network Plugins" (the first file of a folder by name; folders of
executables). Plugins like bridge with host-local know one machine alone: the routes to the other nodes' pod CIDRs are
added here, as flannel's backend host-gw would.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from controllers.cni import Cni, Traits, parts
from controllers.cni.options import mtu
from controllers.flow.program import Fragment
from controllers.state import NodeView
from topo.cluster.errors import InputError
from topo.cluster.network import Plugins, PodNetwork

# Where container runtimes look (containerd's conf_dir and bin_dir), and where Debian puts the reference plugins.
CONF_DIR, BIN_DIRS = "/etc/cni/net.d", ("/opt/cni/bin", "/usr/lib/cni")


class ConfList(Cni):
    """The CNI object."""

    name = "conflist"
    option = "routes"
    options = ("confDir", "binDirs", "mtu")
    variants = {
        "host-gw": Traits(
            "none",
            0,
            "routes per node",
            "CNI plugins of your own: options confDir (a folder with a .conflist) and binDirs",
            needs="a proxy mode kernel-*, unless the plugin is mininetes-cni",
            source="CNI specification 1.1.0",
        )
    }

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """The user's plugins decide how pods are attached; the MTU is what {{.MTU}} stands for."""
        self.variant(options)
        folder = options.get("confDir", CONF_DIR)
        if not isinstance(folder, str):
            raise InputError("mininetes.cni.confDir", f"{folder!r} is no folder", "a folder with a .conflist file")
        return PodNetwork(mtu(options, fabric_mtu), on_link=True, plugins=Plugins(folder, _folders(options)))

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """Where pods are on the switch (by mininetes-cni): neighbours, and a route per remote node."""
        if view.lab.attachment != "switch":
            return
        yield parts.gateway(self.name, view.node.gateway_ip, view.node.gateway_mac)
        for pod in view.pods:
            yield parts.neighbour(self.name, pod)
        for peer in view.peers:
            if peer.ready:
                yield parts.by_neighbour(self.name, view.node, peer, peer.pod_cidr)

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """Pod packets cross the fabric as they are."""
        yield parts.from_wire(self.name, view)


def _folders(options: Mapping[str, object]) -> tuple[str, ...]:
    """A list, or as CNI_PATH has them with colons in between."""
    given = options.get("binDirs", list(BIN_DIRS))
    folders = given.split(os.pathsep) if isinstance(given, str) else given
    if not isinstance(folders, list) or not all(isinstance(one, str) for one in folders):
        raise InputError("mininetes.cni.binDirs", f"{given!r} is wrong", "a list of folders with CNI plugins")
    return tuple(folders)


CNI = ConfList()

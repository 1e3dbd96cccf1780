"""What a pod has of its node: namespaces, an address, a place on the node's network."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address

from topo.cni.request import Attachment
from topo.fabric import mac_of
from topo.hosts import Host
from topo.nodes import Node


@dataclass(slots=True)
class Sandbox:
    """A pod's namespaces and its place on the node.

    port: its OpenFlow port, 0 where it is not on the switch. interface: the node's end of its veth, "" for none.
    attachment: what the CNI plugins were told, None where it shares the node's network (hostNetwork).
    """

    key: str
    host: Host
    node: Node
    ip: IPv4Address
    mac: str
    port: int
    interface: str
    attachment: Attachment | None = None

    @property
    def pid(self) -> int:
        """A process in the pod's namespaces."""
        return int(self.host.pid)

    def lives(self) -> bool:
        """Whether its namespaces are held open: what a kubelet calls a ready sandbox."""
        return self.host.holder.poll() is None


class HostNetwork(Host):
    """The network namespace of a node, with mounts of its own."""

    def __init__(self, name: str, node_pid: int) -> None:
        self._node_pid = node_pid
        super().__init__(name)

    def startShell(self, mnopts: str | None = None) -> None:
        """As a Host's, with unshare(1) in place of mnexec -n, which would make a network namespace too."""
        own = ["unshare", "--mount", "sh", "-c", "echo; exec sleep infinity"]
        command = ["mnexec", "-d", "-a", str(self._node_pid), *own]
        self.holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        self.holder.stdout.readline()
        self.holder.stdout.close()
        self.pid = self.holder.pid


def share_node(key: str, name: str, node: Node, own_files: bool) -> Sandbox:
    """A pod on the host's network: it has the node's address and namespaces, except its mounts if it has own files."""
    host = HostNetwork(name, node.machine.pid) if own_files else node.machine.host
    return Sandbox(key, host, node, node.ip, mac_of(node.ip), 0, "")

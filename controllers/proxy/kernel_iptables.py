"""kernel-iptables: the rules that kube-proxy's iptables mode writes, in every node's kernel; pods on Linux bridges."""

from __future__ import annotations

from controllers.kernel.mode import KernelMode
from controllers.kernel.part import KernelNode, ProxyChains
from controllers.proxy import NodePart


class KernelIptables(KernelMode):
    """The proxy mode object."""

    name = "kernel-iptables"
    description = "reference: kube-proxy's own iptables rules in each node's kernel, pods on a Linux bridge"

    def node_part(self, pid: int) -> NodePart | None:
        """Rules and routes."""
        return KernelNode(pid, ProxyChains)


PROXY = KernelIptables()

"""kernel-nftables: the table that kube-proxy's nftables mode writes, in every node's kernel; pods on Linux bridges."""

from __future__ import annotations

from controllers.kernel.mode import KernelMode
from controllers.kernel.part import KernelNode, NftablesRules
from controllers.proxy import NodePart


class KernelNftables(KernelMode):
    """The proxy mode object."""

    name = "kernel-nftables"
    description = "reference: kube-proxy's own nftables rules in each node's kernel, pods on a Linux bridge"

    def node_part(self, pid: int) -> NodePart | None:
        """Rules and routes."""
        return KernelNode(pid, NftablesRules)


PROXY = KernelNftables()

"""kernel-iptables: the rules that kube-proxy's iptables mode writes, in every node's kernel; pods on Linux bridges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controllers.flow.program import Fragment
from controllers.kernel.part import IptablesRules, KernelNode
from controllers.proxy import NodePart
from controllers.proxy.frontends import check_options
from controllers.state import NodeView


class KernelIptables:
    """The proxy mode object."""

    name = "kernel-iptables"
    description = "reference: kube-proxy's own iptables rules in each node's kernel, pods on a Linux bridge"
    attachment = "bridge"

    def check(self, options: Mapping[str, object]) -> None:
        """None but those of every mode."""
        check_options(self.name, options)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """None: the switch has no part in it."""
        return ()

    def counts_connections(self, options: Mapping[str, object]) -> bool:
        """No."""
        return False

    def node_part(self, pid: int) -> NodePart | None:
        """Rules and routes."""
        return KernelNode(pid, lambda node: IptablesRules(node, "legacy"))


PROXY = KernelIptables()

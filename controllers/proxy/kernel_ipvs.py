"""kernel-ipvs: the virtual servers that kube-proxy's ipvs mode makes, in every node's kernel; pods on Linux bridges."""

from __future__ import annotations

from collections.abc import Mapping

from controllers.kernel.ipvs_part import IpvsRules
from controllers.kernel.mode import KernelMode
from controllers.kernel.part import KernelNode
from controllers.proxy import NodePart
from controllers.proxy.frontends import check_options
from controllers.proxy.schedulers import SCHEDULERS, named


class KernelIpvs(KernelMode):
    """The proxy mode object."""

    name = "kernel-ipvs"
    description = (
        "reference: kube-proxy's own virtual servers in each node's kernel, pods on a Linux bridge; "
        f"scheduler: one of {', '.join(SCHEDULERS)}"
    )

    def check(self, options: Mapping[str, object]) -> None:
        """The scheduler must be one there is."""
        check_options(self.name, options, ("scheduler",))
        named(options)

    def needs(self, options: Mapping[str, object]) -> tuple[str, ...]:
        """ipvs with this scheduler, a device for its addresses, sets for its rules."""
        return *super().needs(options), f"ip_vs_{named(options)}", "dummy", "ip_set", "xt_ipvs"

    def node_part(self, pid: int) -> NodePart | None:
        """Virtual servers, rules and routes."""
        return KernelNode(pid, IpvsRules)


PROXY = KernelIpvs()

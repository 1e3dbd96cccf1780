"""docker: a Linux bridge docker0 on every node, each a world of its own: what Kubernetes' network model asks for and
Docker's default network does not give.

Source: Docker, "Bridge network driver", "Packet filtering and firewalls" and "Port publishing and mapping"; dockerd(8),
--mtu: 1500 whatever the host's interface has. Pods reach each other on their node and whatever answers the node's
address; other nodes' pods have no route, and are reached by ports that they publish (hostPort).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from controllers.agent.commands import run as run_in
from controllers.cni import Cni, Traits
from controllers.cni.ways import Way
from controllers.flow.program import Fragment
from controllers.kernel import docker
from controllers.kernel.part import IptablesRules
from controllers.proxy import NodePart
from controllers.state import Lab, Node, NodeView
from topo.cluster.network import PodNetwork


class Docker(Cni):
    """The CNI object."""

    name = "docker"
    option = "driver"
    variants = {
        "bridge": Traits(
            "none",
            0,
            "none between nodes",
            "a bridge a node; pods reach pods of their node, and published ports (hostPort) of others",
            layer="none",
            needs="bridge and br_netfilter in the kernel, iptables",
            source="Docker, Bridge network driver",
            fixed_mtu=1500,
            crosses=False,
            nodes_reach=("own",),
            masquerades=("pods", "nodes", "outside"),
        )
    }

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """Pods hang on docker0."""
        return PodNetwork(self.mtu(fabric_mtu, options), on_link=True, bridged=True, bridge=docker.BRIDGE)

    def way(self, view: NodeView, peer: Node) -> Way:
        """There is none."""
        return Way.NONE

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """The switch has no part in it."""
        return ()

    def node_part(self, lab: Lab, pid: int, run: Path) -> NodePart | None:
        """What dockerd does."""
        return DockerRules(pid)


class DockerRules:
    """One node's rules, and the policy that goes with them."""

    def __init__(self, pid: int) -> None:
        self._pid, self._is_first = pid, True
        self._rules = IptablesRules(pid, "legacy", docker.HOOKS)

    def sync(self, view: NodeView) -> None:
        """Write what changed. Raises RuntimeError."""
        self._rules.write(docker.rules(view))
        if self._is_first:
            run_in(self._pid, "iptables-legacy", "-w", "-P", "FORWARD", "DROP")
            # The node's own programs reach published ports at 127.0.0.1 too (kernel, ip-sysctl).
            run_in(self._pid, "sysctl", "-qw", f"net.ipv4.conf.{docker.BRIDGE}.route_localnet=1")
            self._is_first = False

    def close(self) -> None:
        """The rules go with the node."""


CNI = Docker()

"""What the proxy modes that write a kernel's rules have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from controllers.flow.program import Fragment
from controllers.proxy import NodePart
from controllers.proxy.frontends import check_options
from controllers.state import NodeView


class KernelMode(ABC):
    """A proxy mode without flows; name, description and node_part are its own."""

    name: str
    description: str
    attachment = "bridge"
    hides_clients = False

    def check(self, options: Mapping[str, object]) -> None:
        """None but those of every mode."""
        check_options(self.name, options)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """None: the switch has no part in it."""
        return ()

    def counts_connections(self, options: Mapping[str, object]) -> bool:
        """No."""
        return False

    def needs(self, options: Mapping[str, object]) -> tuple[str, ...]:
        """That iptables sees what crosses a Linux bridge."""
        return ("br_netfilter",)

    @abstractmethod
    def node_part(self, pid: int) -> NodePart | None:
        """What writes the rules of one node."""

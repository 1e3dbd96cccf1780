"""Service implementations (kube-proxy modes): one file each, which sets PROXY to an object with a name and flows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

from controllers.flow.program import Fragment
from controllers.state import NodeView


class NodePart(Protocol):
    """What a proxy mode does on one node beside flows: rules of its kernel, a process of its own."""

    def sync(self, view: NodeView) -> None:
        """Make the node as the view wants it; called again after every change. Raises OSError or RuntimeError."""

    def close(self) -> None:
        """End what runs; the node may be gone already."""


@runtime_checkable
class Annotating(Protocol):
    """A node's part that writes notes on its node's object; whoever runs it sets `annotate` (key, value) first."""

    annotate: Callable[[str, str], None]


class Proxy(Protocol):
    """What a proxy mode must be.

    attachment: "switch" if pods are ports of br-int, "bridge" if they are ports of a Linux bridge in the node.
    hides_clients: whether a pod takes the client's node for its client, and so do policies.
    """

    name: str
    description: str
    attachment: str
    hides_clients: bool

    def check(self, options: Mapping[str, object]) -> None:
        """Raise InputError for an option (lab file: mininetes.proxy) that the mode does not have or take."""

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """Flows and groups of br-int that turn Service addresses into endpoints."""

    def counts_connections(self, options: Mapping[str, object]) -> bool:
        """Whether its flows depend on how many connections each endpoint has (NodeView.loads)."""

    def needs(self, options: Mapping[str, object]) -> tuple[str, ...]:
        """Parts of the kernel without which it cannot be (topo/platform.py names them)."""

    def node_part(self, pid: int) -> NodePart | None:
        """The node's own part, or None for a mode of flows alone. pid: a process in the node's namespaces."""

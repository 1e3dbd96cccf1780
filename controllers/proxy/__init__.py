"""Service implementations (kube-proxy modes): one file each, which sets PROXY to an object with a name and flows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from controllers.flow.program import Fragment
from controllers.state import NodeView


class Proxy(Protocol):
    """What a proxy mode must be."""

    name: str
    description: str

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """Flows and groups of br-int that turn Service addresses into endpoints."""

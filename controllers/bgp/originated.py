"""Makes what the lab file has a node announce the node's own: every address of it is local there (ip-route(8))."""

from __future__ import annotations

from controllers.agent.commands import run
from controllers.bgp import options as bgp
from controllers.state import NodeView


class Originated:
    """The local routes of one node, which are there before anybody hears of them."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = False

    def sync(self, view: NodeView) -> None:
        """Once; a lab file does not change. Raises RuntimeError."""
        for one in () if self._done else bgp.of(view.lab).own(view.node.name):
            run(self._pid, "ip", "route", "replace", "local", one.prefix, "dev", "lo")
        self._done = True

    def close(self) -> None:
        """The routes go with the node."""

"""Forgets the connections of datagrams whose endpoint is gone: conntrack would go on with them for ever.

Source: kube-proxy's conntrack cleanup (CleanStaleEntries): UDP only, by the address asked and the endpoint.
"""

from __future__ import annotations

from contextlib import suppress

from controllers.agent.commands import run
from controllers.flow.fields import ip_text
from controllers.proxy.frontends import frontends, options
from controllers.state import NodeView

# Address asked, its port, endpoint.
Way = tuple[int, int, int]


class StaleDatagrams:
    """What one node's datagrams are translated to."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._held: frozenset[Way] = frozenset()

    def sync(self, view: NodeView) -> None:
        """Forget what followed a translation that is no more."""
        wanted = translations(view)
        for address, port, endpoint in sorted(self._held - wanted):
            where = ["--orig-dst", ip_text(address), "--orig-port-dst", str(port), "--dst-nat", ip_text(endpoint)]
            with suppress(RuntimeError):  # conntrack(8) fails where there was nothing to forget
                run(self._pid, "conntrack", "-D", "-p", "udp", *where)
        self._held = wanted

    def close(self) -> None:
        """Nothing runs."""


def translations(view: NodeView) -> frozenset[Way]:
    """Every way a datagram may be translated on the node."""
    rules = options(view.lab.options.get("proxy", {}))
    return frozenset(
        (one.address, one.port, endpoint.ip)
        for port in view.services.values()
        if port.protocol == "udp"
        for one in frontends(port, view.node, rules)
        for endpoint in one.endpoints
    )

"""Forgets connections of datagrams that rules would translate otherwise now: conntrack would go on with them for ever.

Source: kube-proxy's conntrack cleanup (CleanStaleEntries): UDP only; those to an endpoint that is gone, and those to an
address that had no endpoint, which were not translated at all.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress

from controllers.agent.commands import run
from controllers.flow.fields import ip_number, ip_text
from controllers.proxy.frontends import frontends, options
from controllers.state import NodeView

LOG = logging.getLogger("mininetes")
# conntrack(8): source, destination and ports of each direction, where answers come from in the second.
_CONNECTION = re.compile(r"^udp .*? dst=([\d.]+) sport=\d+ dport=(\d+) .*?src=([\d.]+) ")

# Address asked, its port, endpoint.
Way = tuple[int, int, int]


class StaleDatagrams:
    """What one node's datagrams are translated to."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._held: frozenset[Way] | None = None

    def sync(self, view: NodeView) -> None:
        """Forget what followed a translation that is no more, or none where there is one now."""
        wanted = translations(view)
        held = wanted | self._found() if self._held is None else self._held
        for address, port, endpoint in sorted(held - wanted):
            self._forget(address, port, "--dst-nat", ip_text(endpoint))
        for address, port in sorted(_asked(wanted) - _asked(held)):
            self._forget(address, port)
        self._held = wanted

    def _found(self) -> frozenset[Way]:
        """Ways that connections go which an agent before this one saw begin."""
        try:
            return ways(run(self._pid, "conntrack", "-L", "-p", "udp", "--dst-nat"))
        except RuntimeError as error:
            LOG.warning("connections of datagrams were not looked at: %s", error)
            return frozenset()

    def _forget(self, address: int, port: int, *more: str) -> None:
        where = ["--orig-dst", ip_text(address), "--orig-port-dst", str(port), *more]
        with suppress(RuntimeError):  # conntrack(8) fails where there was nothing to forget
            run(self._pid, "conntrack", "-D", "-p", "udp", *where)

    def close(self) -> None:
        """Nothing runs."""


def ways(text: str) -> frozenset[Way]:
    """Address and port that were asked, and who answers, of every connection that conntrack -L shows."""
    found = (_CONNECTION.search(line) for line in text.splitlines())
    return frozenset((ip_number(one[1]), int(one[2]), ip_number(one[3])) for one in found if one)


def _asked(ways: frozenset[Way]) -> set[tuple[int, int]]:
    return {(address, port) for address, port, _ in ways}


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

"""Connections that a node's switch follows to each endpoint of its Services: what ipvs' counting schedulers look at.

Read from connection tracking (ovs-vswitchd's control socket, "dpctl/dump-conntrack", ovs-vswitchd(8)), so that every
connection counts, whoever began it and however it ends.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from controllers.flow.fields import ip_number
from controllers.flow.program import Translation


class Server(NamedTuple):
    """An endpoint that connections were translated to."""

    protocol: str
    ip: int
    port: int


class Load(NamedTuple):
    """Connections as ipvs counts them (ip_vs(4)): active are established, inactive all others that are remembered."""

    active: int = 0
    inactive: int = 0


Loads = Mapping[Server, Load]

_LINE = re.compile(
    r"(tcp|udp|sctp),orig=\(src=[\d.]+,dst=([\d.]+),sport=\d+,dport=(\d+)\),"
    r"reply=\(src=([\d.]+),dst=[\d.]+,sport=(\d+),dport=\d+\)(.*)"
)


def parse(text: str) -> dict[Server, Load]:
    """Loads of the translated connections in a dump. UDP knows no states: what is remembered is active."""
    active: Counter[Server] = Counter()
    inactive: Counter[Server] = Counter()
    for match in _LINE.finditer(text):
        protocol, address, port, endpoint, endpoint_port, rest = match.groups()
        if (address, port) == (endpoint, endpoint_port):
            continue  # nothing was translated
        server = Server(protocol, ip_number(endpoint), int(endpoint_port))
        is_active = "state=" not in rest or "state=ESTABLISHED" in rest
        (active if is_active else inactive)[server] += 1
    return {server: Load(active[server], inactive[server]) for server in sorted({*active, *inactive})}


def datagrams(text: str) -> set[Translation]:
    """Ways that datagrams are translated in a dump, each a connection's."""
    found = set()
    for match in _LINE.finditer(text):
        protocol, address, port, endpoint, endpoint_port, _ = match.groups()
        if protocol == "udp" and (address, port) != (endpoint, endpoint_port):
            found.add(Translation(ip_number(address), int(port), ip_number(endpoint), int(endpoint_port)))
    return found

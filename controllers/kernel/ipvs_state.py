"""All that kube-proxy's ipvs mode wants of one node, put together from what each Service port wants; pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

from controllers.kernel import ipsets, ipvs, ipvs_chains
from controllers.kernel.iptables import Rules
from controllers.proxy.frontends import options
from controllers.proxy.schedulers import named
from controllers.services import ServicePort, reach
from controllers.state import Node, NodeView


@dataclass(frozen=True, slots=True)
class Wanted:
    """Virtual servers, the addresses of the dummy device, ipsets and chains."""

    table: ipvs.Table
    addresses: frozenset[int]
    sets: ipsets.Sets
    chains: Rules


def wanted(view: NodeView) -> Wanted:
    """A function of the view, which costs little for Service ports that did not change."""
    given = view.lab.options.get("proxy", {})
    table: dict[ipvs.Virtual, ipvs.Balanced] = {}
    sets: defaultdict[str, set[str]] = defaultdict(set)
    refused: list[str] = []
    for port in view.services.values():
        part = _of_port(port, view.node, named(given))
        table |= part.table
        refused += part.refused
        for name, entry in part.entries:
            sets[name].add(entry)
    frozen = {name: frozenset(sets[name]) for name in ipsets.TYPES}
    addresses = frozenset(v.address for v in table) - {view.node.ip}
    return Wanted(table, addresses, frozen, ipvs_chains.rules(frozen, refused, view.lab.pod_subnet, options(given)))


@dataclass(frozen=True, slots=True)
class _Part:
    table: ipvs.Table
    entries: tuple[tuple[str, str], ...]
    refused: tuple[str, ...]


@lru_cache(maxsize=1 << 17)
def _of_port(port: ServicePort, node: Node, scheduler: str) -> _Part:
    return _Part(
        dict(ipvs.virtual_servers(port, reach(port, node.name, node.zone), node.ip, scheduler)),
        tuple(ipsets.entries(port, node.name, node.ip)),
        tuple(ipvs_chains.refusals(port, node.ip)),
    )

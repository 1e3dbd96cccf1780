"""Which lab a case needs: some expectations hold only for pods of certain addresses, so its pod subnet must fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from scenarios.netpol.cases import Case
from topo import fabric
from topo.config import LabConfig

_BITS = 16


def grouped(cases: Sequence[Case], config: LabConfig) -> list[tuple[LabConfig, list[Case]]]:
    """The labs that these cases need, the one that was asked for first, each with its cases."""
    found: dict[IPv4Network, tuple[LabConfig, list[Case]]] = {}
    for case in cases:
        wanted = _config(case, config)
        found.setdefault(wanted.pod_subnet, (wanted, []))[1].append(case)
    return sorted(found.values(), key=lambda group: group[0].pod_subnet != config.pod_subnet)


def fits(case: Case, networks: Sequence[IPv4Network]) -> bool:
    """Whether pods of nodes with these pod CIDRs can have the addresses that the case needs."""
    fixed = [IPv4Address(p.ip) for p in case.cluster.pods.values() if p.ip and not p.host_network]
    return not case.needs_addresses or all(any(ip in n for n in networks) for ip in fixed)


def _config(case: Case, config: LabConfig) -> LabConfig:
    """The lab as asked for if it will do, else one whose pod subnet is the /16 of its addresses, if that may be."""
    nodes = len(config.nodes)
    if fits(case, [fabric.pod_cidr(config, i) for i in range(nodes)]):
        return config
    own = (p.ip for p in case.cluster.pods.values() if p.ip and not p.host_network)
    around = {IPv4Network((ip, _BITS), strict=False) for ip in own}
    other = (config.service_subnet, config.node_subnet, fabric.CLIENT_NETWORK, fabric.WORLD_NETWORK)
    if len(around) != 1 or any(network.overlaps(one) for network in around for one in other):
        return config
    return replace(config, pod_subnet=around.pop(), node_cidr_bits=_BITS + (nodes - 1).bit_length())

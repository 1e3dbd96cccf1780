"""ipvs' virtual servers on one node as kube-proxy's ipvs mode wants them, and what makes one table of another; pure.

Source: kube-proxy's ipvs proxier (pkg/proxy/ipvs: proxier.go, graceful_termination.go) and its README; ipvsadm(8).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from controllers.flow.fields import ip_number, ip_text
from controllers.services import Endpoint, Reach, ServicePort

# ipvsadm's option for a virtual server's protocol.
_OPTIONS = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}
_PROTOCOLS = {option: protocol for protocol, option in _OPTIONS.items()}


class Virtual(NamedTuple):
    """What a virtual server is known by."""

    protocol: str
    address: int
    port: int

    @property
    def text(self) -> str:
        """As ipvsadm(8) names it."""
        return f"{_OPTIONS[self.protocol]} {ip_text(self.address)}:{self.port}"


# Address and port of a real server.
Real = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Balanced:
    """How a virtual server shares out: persistence in seconds, 0 for none; weights: of its real servers."""

    scheduler: str
    persistence: int = 0
    weights: Mapping[Real, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """As ipvsadm(8) says it. kube-proxy has mh hash the source's port too (its FlagSourceHash)."""
        persistent = f" -p {self.persistence}" if self.persistence else ""
        return f"-s {self.scheduler}{persistent}{' -b mh-port' if self.scheduler == 'mh' else ''}"


Table = Mapping[Virtual, Balanced]
# How many connections each real server has, whether they are established or not.
Connections = Mapping[tuple[Virtual, Real], int]


def virtual_servers(
    port: ServicePort, found: Reach, node_ip: int, scheduler: str
) -> Iterator[tuple[Virtual, Balanced]]:
    """Those of one Service port."""
    inside = _balanced(port, _servers(port, found, port.internal_local), scheduler)
    yield Virtual(port.protocol, port.cluster_ip, port.port), inside
    if port.is_external:
        outside = _balanced(port, _servers(port, found, port.external_local), scheduler)
        for address in (*port.external_ips, *port.load_balancer_ips):
            yield Virtual(port.protocol, address, port.port), outside
        if port.node_port:
            yield Virtual(port.protocol, node_ip, port.node_port), outside


def _servers(port: ServicePort, found: Reach, is_local: bool) -> tuple[Endpoint, ...]:
    """With a policy Local and no local endpoint all of them: pods that ask are served, a client outside hears nothing.

    But none where the cluster IP is the only address and has the policy Local (CategorizeEndpoints).
    """
    anywhere = found.cluster if port.is_external or not port.internal_local else ()
    return (found.local or anywhere) if is_local else anywhere


def _balanced(port: ServicePort, servers: Iterable[Endpoint], scheduler: str) -> Balanced:
    return Balanced(scheduler, port.affinity, {(e.ip, e.port): e.weight for e in servers})


def graceful(wanted: Table, held: Table, busy: Connections) -> Table:
    """What is wanted, and with weight 0 the real servers that are to go but are busy.

    A datagram has no connection that would end: its server goes at once, and the next one finds another
    (net.ipv4.vs.expire_nodest_conn).
    """
    kept: dict[Virtual, Balanced] = {}
    for virtual, real in leaving(wanted, held):
        if busy.get((virtual, real)):
            has = kept.get(virtual, wanted[virtual])
            kept[virtual] = Balanced(has.scheduler, has.persistence, {**has.weights, real: 0})
    return {**wanted, **kept} if kept else wanted


def leaving(wanted: Table, held: Table) -> Iterator[tuple[Virtual, Real]]:
    """Real servers that are no longer wanted and may have connections."""
    for virtual, balanced in wanted.items():
        before = held.get(virtual)
        if before is not None and before is not balanced and virtual.protocol != "udp":
            yield from ((virtual, real) for real in before.weights if real not in balanced.weights)


def commands(new: Table, old: Table) -> list[str]:
    """What ipvsadm -R must be told so that a kernel with the table `old` has `new`: only what differs."""
    lines: list[str] = []
    for virtual, balanced in new.items():
        before = old.get(virtual)
        if before is balanced:
            continue
        if before is None:
            lines.append(f"-A {virtual.text} {balanced.text}")
        elif before.text != balanced.text:
            lines.append(f"-E {virtual.text} {balanced.text}")
        had = before.weights if before else {}
        for real, weight in balanced.weights.items():
            if had.get(real) != weight:
                verb = "-e" if real in had else "-a"
                lines.append(f"{verb} {virtual.text} -r {ip_text(real[0])}:{real[1]} -m -w {weight}")
        gone = (real for real in had if real not in balanced.weights)
        lines += [f"-d {virtual.text} -r {ip_text(address)}:{port}" for address, port in gone]
    return lines + [f"-D {virtual.text}" for virtual in old if virtual not in new]


def listing(table: Table) -> list[str]:
    """As ipvsadm -S -n shows it, sorted."""
    return commands(dict(sorted(table.items())), {})


def parse(text: str) -> Table:
    """What ipvsadm -S -n says."""
    table: dict[Virtual, Balanced] = {}
    weights: dict[Real, int] = {}
    for words in map(str.split, text.splitlines()):
        virtual = Virtual(_PROTOCOLS[words[1]], *_pair(words[2]))
        given = dict(pairwise(words[3:]))
        if words[0] == "-A":
            weights = {}
            table[virtual] = Balanced(given["-s"], int(given.get("-p", 0)), weights)
        else:
            weights[_pair(given["-r"])] = int(given["-w"])
    return table


def _pair(text: str) -> Real:
    address, _, port = text.partition(":")
    return ip_number(address), int(port)


def connections(text: str) -> Connections:
    """What /proc/net/ip_vs says; addresses and ports are hexadecimal there."""
    found: dict[tuple[Virtual, Real], int] = {}
    virtual = Virtual("", 0, 0)
    for words in map(str.split, text.splitlines()):
        if words[:1] == ["->"] and virtual.protocol:
            found[virtual, _hexadecimal(words[1])] = int(words[4]) + int(words[5])
        elif words and words[0].lower() in _OPTIONS:
            virtual = Virtual(words[0].lower(), *_hexadecimal(words[1]))
    return found


def _hexadecimal(text: str) -> Real:
    address, _, port = text.partition(":")
    return int(address, 16), int(port, 16)

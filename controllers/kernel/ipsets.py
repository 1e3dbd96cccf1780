"""The ipsets of kube-proxy's ipvs mode on one node, which let a few rules serve any number of Services; pure.

Source: kube-proxy's ipvs proxier (pkg/proxy/ipvs: ipset.go, proxier.go) and its README; ipset(8).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network

from controllers.flow.fields import ip_text
from controllers.services import ServicePort

TYPES = {
    "KUBE-LOOP-BACK": "hash:ip,port,ip",
    "KUBE-CLUSTER-IP": "hash:ip,port",
    "KUBE-EXTERNAL-IP": "hash:ip,port",
    "KUBE-EXTERNAL-IP-LOCAL": "hash:ip,port",
    "KUBE-LOAD-BALANCER": "hash:ip,port",
    "KUBE-LOAD-BALANCER-FW": "hash:ip,port",
    "KUBE-LOAD-BALANCER-LOCAL": "hash:ip,port",
    "KUBE-LOAD-BALANCER-SOURCE-IP": "hash:ip,port,ip",
    "KUBE-LOAD-BALANCER-SOURCE-CIDR": "hash:ip,port,net",
    "KUBE-NODE-PORT-TCP": "bitmap:port",
    "KUBE-NODE-PORT-LOCAL-TCP": "bitmap:port",
    "KUBE-NODE-PORT-UDP": "bitmap:port",
    "KUBE-NODE-PORT-LOCAL-UDP": "bitmap:port",
    "KUBE-NODE-PORT-SCTP-HASH": "hash:ip,port",
    "KUBE-NODE-PORT-LOCAL-SCTP-HASH": "hash:ip,port",
    "KUBE-HEALTH-CHECK-NODE-PORT": "bitmap:port",
    "KUBE-IPVS-IPS": "hash:ip",
}
# By which fields of a packet a set of each type is asked (iptables-extensions(8), set).
DIRECTIONS = {"hash:ip,port,ip": "dst,dst,src", "hash:ip,port,net": "dst,dst,src", "hash:ip,port": "dst,dst"}

# Name -> entries as `ipset save` prints them; all of the names in what is wanted.
Sets = Mapping[str, frozenset[str]]


def match(name: str) -> str:
    """The iptables match for packets whose destination (and source, where the set has both) is in the set."""
    return f"-m set --match-set {name} {DIRECTIONS.get(TYPES[name], 'dst')}"


def entries(port: ServicePort, node: str, node_ip: int) -> Iterator[tuple[str, str]]:
    """Set and entry, for each that one Service port has on the node."""
    for endpoint in port.endpoints:
        if endpoint.node == node:
            pod = ip_text(endpoint.ip)
            yield "KUBE-LOOP-BACK", f"{pod},{port.protocol}:{endpoint.port},{pod}"
    yield "KUBE-CLUSTER-IP", _at(port, port.cluster_ip)
    yield "KUBE-IPVS-IPS", ip_text(port.cluster_ip)
    for address in port.external_ips:
        yield f"KUBE-EXTERNAL-IP{'-LOCAL' if port.external_local else ''}", _at(port, address)
    for address in port.load_balancer_ips:
        yield from _balancer(port, address, node_ip)
    for address in (*port.external_ips, *port.load_balancer_ips):
        if address != node_ip:
            yield "KUBE-IPVS-IPS", ip_text(address)
    if port.node_port:
        is_hash = port.protocol == "sctp"
        entry = f"{ip_text(node_ip)},sctp:{port.node_port}" if is_hash else str(port.node_port)
        kind = f"{port.protocol.upper()}{'-HASH' if is_hash else ''}"
        yield f"KUBE-NODE-PORT-{kind}", entry
        if port.external_local:
            yield f"KUBE-NODE-PORT-LOCAL-{kind}", entry
    if port.health_port:
        yield "KUBE-HEALTH-CHECK-NODE-PORT", str(port.health_port)


def _balancer(port: ServicePort, address: int, node_ip: int) -> Iterator[tuple[str, str]]:
    where = _at(port, address)
    yield "KUBE-LOAD-BALANCER", where
    if port.external_local:
        yield "KUBE-LOAD-BALANCER-LOCAL", where
    if port.source_ranges:
        yield "KUBE-LOAD-BALANCER-FW", where
        for network in _networks(port.source_ranges):
            yield "KUBE-LOAD-BALANCER-SOURCE-CIDR", f"{where},{str(network).removesuffix('/32')}"
        if admits(port, node_ip):  # what the node itself asks bears the balancer's address, which is the node's too
            yield "KUBE-LOAD-BALANCER-SOURCE-IP", f"{where},{ip_text(address)}"


def admits(port: ServicePort, address: int) -> bool:
    """Whether the port's source ranges, if it has any, have the address."""
    ranges = _networks(port.source_ranges)
    return not port.source_ranges or any(IPv4Address(address) in network for network in ranges)


def _networks(ranges: tuple[str, ...]) -> Iterator[IPv4Network]:
    """A set cannot have 0.0.0.0/0 (ipset(8), hash:ip,port,net), so it gets both halves."""
    for text in ranges:
        network = IPv4Network(text, strict=False)
        yield from (network,) if network.prefixlen else network.subnets()


def _at(port: ServicePort, address: int) -> str:
    return f"{ip_text(address)},{port.protocol}:{port.port}"


def restore(new: Sets, old: Sets) -> str:
    """What `ipset restore` must be told so that a kernel with the sets `old` has `new`: only what differs."""
    lines: list[str] = []
    for name, kind in TYPES.items():
        if name not in old:
            how = "range 0-65535" if kind == "bitmap:port" else "family inet hashsize 1024 maxelem 65536"
            lines.append(f"create {name} {kind} {how}")
        before, wanted = old.get(name, frozenset()), new[name]
        lines += [f"del {name} {entry}" for entry in sorted(before - wanted)]
        lines += [f"add {name} {entry}" for entry in sorted(wanted - before)]
    return "".join(f"{line}\n" for line in lines)


def parse(text: str) -> Sets:
    """What `ipset save` says of these sets."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        verb, name, entry = line.split(" ", 2)
        if name in TYPES:
            held = found.setdefault(name, set())
            if verb == "add":
                held.add(entry)
    return {name: frozenset(held) for name, held in found.items()}

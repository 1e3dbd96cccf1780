"""kube-proxy's nftables rules for one node: one table, verdict maps by address and port, a chain a Service; pure.

Source: kube-proxy's nftables proxier: maps service-ips, service-nodeports, no-endpoint-services, firewall-ips, set
cluster-ips; chains service-, service-local- (this node's endpoints), external-, firewall-, endpoint-.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from controllers.flow.fields import ip_text
from controllers.proxy.frontends import Options, options
from controllers.services import Endpoint, Reach, ServicePort, reach
from controllers.state import NodeView

TABLE = "ip kube-proxy"
_MARK = "0x4000"
_ADDRESS = "ipv4_addr . inet_proto . inet_service : verdict"
_MAPS = {
    "service-ips": _ADDRESS,
    "no-endpoint-services": _ADDRESS,
    "firewall-ips": _ADDRESS,
    "service-nodeports": "inet_proto . inet_service : verdict",
    "no-endpoint-nodeports": "inet_proto . inet_service : verdict",
}
# Chains that packets come to by themselves: name -> hook and priority, rules.
_BASE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "filter-prerouting": ("filter hook prerouting priority -110", ("ct state new jump firewall-check",)),
    "filter-input": (
        "filter hook input priority -110",
        ("ct state new jump nodeport-endpoints-check", "ct state new jump service-endpoints-check"),
    ),
    "filter-forward": (
        "filter hook forward priority -110",
        ("ct state new jump service-endpoints-check", "ct state new jump cluster-ips-check"),
    ),
    "filter-output": (
        "filter hook output priority -110",
        ("ct state new jump service-endpoints-check", "ct state new jump firewall-check"),
    ),
    "filter-output-post-dnat": ("filter hook output priority -90", ("ct state new jump cluster-ips-check",)),
    "nat-prerouting": ("nat hook prerouting priority -100", ("jump services",)),
    "nat-output": ("nat hook output priority -100", ("jump services",)),
    "nat-postrouting": ("nat hook postrouting priority 100", ("jump masquerading",)),
}
_WHERE = "ip daddr . meta l4proto . th dport"


@dataclass(slots=True)
class Rules:
    """What the table holds: chains' rules, elements of maps and of the set of cluster IPs, affinity sets' seconds."""

    chains: dict[str, list[str]] = field(default_factory=dict)
    maps: dict[str, dict[str, str]] = field(default_factory=lambda: {name: {} for name in _MAPS})
    cluster_ips: set[str] = field(default_factory=set)
    affinity: dict[str, int] = field(default_factory=dict)


def rules(view: NodeView) -> Rules:
    """Everything of kube-proxy's on this node."""
    out = Rules()
    out.chains |= {
        "services": [
            f"{_WHERE} vmap @service-ips",
            f"ip daddr {ip_text(view.node.ip)} meta l4proto . th dport vmap @service-nodeports",
        ],
        "masquerading": [
            f"meta mark & {_MARK} == 0 return",
            f"meta mark set meta mark ^ {_MARK}",
            "masquerade fully-random",
        ],
        "mark-for-masquerade": [f"meta mark set meta mark | {_MARK}"],
        "reject-chain": ["meta l4proto tcp reject with tcp reset", "reject"],
        "service-endpoints-check": [f"{_WHERE} vmap @no-endpoint-services"],
        "nodeport-endpoints-check": [
            f"ip daddr {ip_text(view.node.ip)} meta l4proto . th dport vmap @no-endpoint-nodeports"
        ],
        "firewall-check": [f"{_WHERE} vmap @firewall-ips"],
        "cluster-ips-check": [
            "ip daddr @cluster-ips jump reject-chain",
            f"ip daddr {view.lab.service_subnet} drop",
        ],
    }
    rule_options = options(view.lab.options.get("proxy", {}))
    for port in view.services.values():
        _Port(port, reach(port, view.node.name, view.node.zone), view, rule_options).write(out)
    return out


class _Port:
    """Writes one Service port's rules."""

    def __init__(self, port: ServicePort, found: Reach, view: NodeView, rule_options: Options) -> None:
        self.port, self.reach, self.view, self.options = port, found, view, rule_options
        name, _, protocol = port.key.rpartition("/")
        self.name = f"{name.replace(':', '/')}/{protocol}"
        digest = b32encode(sha256(self.name.encode()).digest()).decode()[:8]
        self.cluster, self.local, self.outside, self.firewall = (
            f"{kind}-{digest}-{self.name}" for kind in ("service", "local", "external", "firewall")
        )

    def write(self, out: Rules) -> None:
        """All of them."""
        port = self.port
        out.cluster_ips.add(ip_text(port.cluster_ip))
        inside = self.reach.local if port.internal_local else self.reach.cluster
        target = f"goto {self.local if port.internal_local else self.cluster}"
        where = "service-ips" if inside else "no-endpoint-services"
        out.maps[where][self._key(port.cluster_ip)] = target if inside else self._nobody(port.internal_local)
        uses_local = port.internal_local or (port.external_local and port.is_external)
        if self.reach.cluster and (not port.internal_local or port.is_external):
            out.chains[self.cluster] = self._choice(self.reach.cluster, not port.internal_local)
        if self.reach.local and uses_local:
            out.chains[self.local] = self._choice(self.reach.local, port.internal_local)
        for endpoint in {*self.reach.cluster, *(self.reach.local if uses_local else ())}:
            self._endpoint(out, endpoint)
        if port.is_external:
            self._external(out)

    def _external(self, out: Rules) -> None:
        port = self.port
        endpoints = self.reach.local if port.external_local else self.reach.cluster
        addresses = [self._key(address) for address in (*port.load_balancer_ips, *port.external_ips)]
        node_port = f"{port.protocol} . {port.node_port}"
        if self.reach.cluster or self.reach.local:
            out.chains[self.outside] = self._from_outside()
            out.maps["service-ips"] |= dict.fromkeys(addresses, f"goto {self.outside}")
            if port.node_port:
                out.maps["service-nodeports"][node_port] = f"goto {self.outside}"
        if not endpoints:
            verdict = self._nobody(port.external_local)
            out.maps["no-endpoint-services"] |= dict.fromkeys(addresses, verdict)
            if port.node_port:
                out.maps["no-endpoint-nodeports"][node_port] = verdict
        if port.source_ranges and port.load_balancer_ips:
            out.chains[self.firewall] = [f"ip saddr != {{ {', '.join(sorted(set(port.source_ranges)))} }} drop"]
            balanced = map(self._key, port.load_balancer_ips)
            out.maps["firewall-ips"] |= dict.fromkeys(balanced, f"goto {self.firewall}")

    def _from_outside(self) -> list[str]:
        if not self.port.external_local:
            return ["jump mark-for-masquerade", f"goto {self.cluster}"]
        pods = [f"ip saddr {self.view.lab.pod_subnet} goto {self.cluster}"] if self.options.detect_local else []
        own = ["fib saddr type local jump mark-for-masquerade", f"fib saddr type local goto {self.cluster}"]
        return [*pods, *own, *([f"goto {self.local}"] if self.reach.local else [])]

    def _choice(self, endpoints: tuple[Endpoint, ...], has_cluster_ip: bool) -> list[str]:
        port, found = self.port, []
        if has_cluster_ip and (self.options.masquerade_all or self.options.detect_local):
            source = "" if self.options.masquerade_all else f" ip saddr != {self.view.lab.pod_subnet}"
            to = f"ip daddr {ip_text(port.cluster_ip)} {port.protocol} dport {port.port}"
            found.append(f"{to}{source} jump mark-for-masquerade")
        for endpoint in endpoints if port.affinity else ():
            name = self._endpoint_name(endpoint)
            found.append(f"ip saddr @affinity-{name} goto endpoint-{name}")
        turns = ", ".join(f"{i} : goto endpoint-{self._endpoint_name(e)}" for i, e in enumerate(endpoints))
        return [*found, f"numgen random mod {len(endpoints)} vmap {{ {turns} }}"]

    def _endpoint(self, out: Rules, endpoint: Endpoint) -> None:
        name = self._endpoint_name(endpoint)
        remember = [f"update @affinity-{name} {{ ip saddr }}"] if self.port.affinity else []
        if remember:
            out.affinity[f"affinity-{name}"] = self.port.affinity
        target = f"{ip_text(endpoint.ip)}:{endpoint.port}"
        out.chains[f"endpoint-{name}"] = [
            f"ip saddr {ip_text(endpoint.ip)} jump mark-for-masquerade",
            *remember,
            f"meta l4proto {self.port.protocol} dnat to {target}",
        ]

    def _endpoint_name(self, endpoint: Endpoint) -> str:
        text = f"{self.name}__{ip_text(endpoint.ip)}/{endpoint.port}"
        return f"{b32encode(sha256(text.encode()).digest()).decode()[:8]}-{text}"

    def _nobody(self, is_local: bool) -> str:
        return "drop" if is_local and self.reach.any_endpoint else "goto reject-chain"

    def _key(self, address: int) -> str:
        return f"{ip_text(address)} . {self.port.protocol} . {self.port.port}"


def transaction(new: Rules, old: Rules | None) -> str:
    """What nft -f must be told so that a kernel with `old` has `new`: all in one step, and only what changed.

    old: None for a kernel of which nothing is known.
    """
    lines = [] if old else [f"add table {TABLE}", f"delete table {TABLE}", f"add table {TABLE}", *_skeleton()]
    before = old or Rules()
    lines += [f"add chain {TABLE} {name}" for name in new.chains if name not in before.chains]
    lines += [
        f"add set {TABLE} {name} {{ type ipv4_addr; flags dynamic,timeout; timeout {seconds}s; }}"
        for name, seconds in new.affinity.items()
        if name not in before.affinity
    ]
    for name in new.maps:
        lines += _elements("delete", name, (k for k, v in before.maps[name].items() if new.maps[name].get(k) != v))
        added = ((k, v) for k, v in new.maps[name].items() if before.maps[name].get(k) != v)
        lines += _elements("add", name, (f"{k} : {v}" for k, v in added))
    lines += _elements("delete", "cluster-ips", sorted(before.cluster_ips - new.cluster_ips))
    lines += _elements("add", "cluster-ips", sorted(new.cluster_ips - before.cluster_ips))
    for name, found in new.chains.items():
        if before.chains.get(name) != found:
            lines += [f"flush chain {TABLE} {name}", *(f"add rule {TABLE} {name} {rule}" for rule in found)]
    gone = [name for name in before.chains if name not in new.chains]
    lines += [f"flush chain {TABLE} {name}" for name in gone] + [f"delete chain {TABLE} {name}" for name in gone]
    lines += [f"delete set {TABLE} {name}" for name in before.affinity if name not in new.affinity]
    if not old:
        lines += [f"add rule {TABLE} {name} {rule}" for name, (_, found) in _BASE.items() for rule in found]
    return "".join(f"{line}\n" for line in lines)


def _skeleton() -> list[str]:
    lines = [f"add map {TABLE} {name} {{ type {kind}; }}" for name, kind in _MAPS.items()]
    lines.append(f"add set {TABLE} cluster-ips {{ type ipv4_addr; }}")
    return lines + [f"add chain {TABLE} {name} {{ type {hook}; }}" for name, (hook, _) in _BASE.items()]


def _elements(verb: str, where: str, elements: Iterable[str]) -> list[str]:
    text = ", ".join(elements)
    return [f"{verb} element {TABLE} {where} {{ {text} }}"] if text else []

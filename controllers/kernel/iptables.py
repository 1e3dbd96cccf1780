"""kube-proxy's iptables rules for one node: chain name -> its rules, as iptables-restore(8) reads them; pure.

Source: kube-proxy's iptables proxier: chains KUBE-SERVICES, KUBE-NODEPORTS, KUBE-EXTERNAL-SERVICES, KUBE-SVC- (a
Service's endpoints), KUBE-SVL- (those of this node), KUBE-EXT- (from outside), KUBE-FW- (source ranges), KUBE-SEP- (one
endpoint).
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Iterator, Mapping
from hashlib import sha256

from controllers.flow.fields import ip_text
from controllers.proxy.frontends import Options, options
from controllers.services import Endpoint, Reach, ServicePort, reach
from controllers.state import NodeView

# Table -> chain -> rules without "-A CHAIN".
Rules = dict[str, dict[str, list[str]]]

MARK = "0x4000"
# Of chains KUBE-MARK-MASQ and KUBE-POSTROUTING: a mark says at the way out whose address is to be hidden.
MARKING = (f"-j MARK --or-mark {MARK}",)
POSTROUTING = (
    f"-m mark ! --mark {MARK}/{MARK} -j RETURN",
    f"-j MARK --xor-mark {MARK}",
    "-j MASQUERADE --random-fully",
)
# What sends packets into kube-proxy's chains; added to the kernel's own once and left there.
HOOKS: Mapping[str, tuple[str, ...]] = {
    "filter": (
        "INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL",
        "INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES",
        "FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL",
        "FORWARD -j KUBE-FORWARD",
        "FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
        "FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES",
        "OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL",
        "OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES",
    ),
    "nat": ("PREROUTING -j KUBE-SERVICES", "OUTPUT -j KUBE-SERVICES", "POSTROUTING -j KUBE-POSTROUTING"),
}


def chain(kind: str, *parts: str) -> str:
    """A chain's name: kube-proxy's own hash of what it is for, 16 characters of base32."""
    return f"KUBE-{kind}-{b32encode(sha256(''.join(parts).encode()).digest()).decode()[:16]}"


def rules(view: NodeView) -> Rules:
    """Every chain of kube-proxy's on this node. SCTP is written as the others; the kernel must have it."""
    found: Rules = {
        "filter": {
            "KUBE-EXTERNAL-SERVICES": [],
            "KUBE-FORWARD": [
                "-m conntrack --ctstate INVALID -j DROP",
                f"-m mark --mark {MARK}/{MARK} -j ACCEPT",
                "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            ],
            "KUBE-PROXY-FIREWALL": [],
            "KUBE-SERVICES": [],
        },
        "nat": {
            "KUBE-MARK-MASQ": list(MARKING),
            "KUBE-NODEPORTS": [],
            "KUBE-POSTROUTING": list(POSTROUTING),
            "KUBE-SERVICES": [],
        },
    }
    rule_options = options(view.lab.options.get("proxy", {}))
    for port in view.services.values():
        _Port(port, reach(port, view.node.name, view.node.zone), view, rule_options).write(found)
    # The last rule, for it matches every address of the node.
    found["nat"]["KUBE-SERVICES"].append("-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")
    return found


class _Port:
    """Writes one Service port's rules."""

    def __init__(self, port: ServicePort, found: Reach, view: NodeView, rule_options: Options) -> None:
        self.port, self.reach, self.view, self.options = port, found, view, rule_options
        self.name = port.key.rpartition("/")[0]
        self.cluster, self.local = (chain(kind, self.name, port.protocol) for kind in ("SVC", "SVL"))
        self.outside, self.firewall = (chain(kind, self.name, port.protocol) for kind in ("EXT", "FW"))

    def write(self, out: Rules) -> None:
        """All of them."""
        port, nat = self.port, out["nat"]
        inside = self.reach.local if port.internal_local else self.reach.cluster
        to_cluster_ip = self._to(port.cluster_ip, port.port)
        if inside:
            target = self.local if port.internal_local else self.cluster
            nat["KUBE-SERVICES"].append(f"{self._say('cluster IP')} {to_cluster_ip} -j {target}")
        else:
            verdict = "DROP" if port.internal_local and self.reach.any_endpoint else "REJECT"
            out["filter"]["KUBE-SERVICES"].append(f"{self._say('has no endpoints')} {to_cluster_ip} -j {verdict}")
        uses_local = port.internal_local or (port.external_local and port.is_external)
        if self.reach.cluster and (not port.internal_local or port.is_external):
            nat[self.cluster] = list(self._choice(self.reach.cluster, not port.internal_local))
        if self.reach.local and uses_local:
            nat[self.local] = list(self._choice(self.reach.local, port.internal_local))
        used = set(self.reach.cluster) | (set(self.reach.local) if uses_local else set())
        for endpoint in sorted(used):
            nat[self._endpoint_chain(endpoint)] = self._endpoint(endpoint)
        if port.is_external:
            self._external(out)

    def _external(self, out: Rules) -> None:
        """From outside: through KUBE-EXT-, or refused or dropped where there is nobody to reach."""
        port, nat, filtered = self.port, out["nat"], out["filter"]
        endpoints = self.reach.local if port.external_local else self.reach.cluster
        ways = [("external IP", self._to(a, port.port), "KUBE-SERVICES", self.outside) for a in port.external_ips]
        target = self.firewall if port.source_ranges else self.outside
        ways += [("loadbalancer IP", self._to(a, port.port), "KUBE-SERVICES", target) for a in port.load_balancer_ips]
        if port.node_port:
            where = f"-p {port.protocol} -m {port.protocol} --dport {port.node_port}"
            ways.append(("", where, "KUBE-NODEPORTS", self.outside))
        if self.reach.cluster or self.reach.local:
            nat[self.outside] = list(self._from_outside())
            for text, match, into, to in ways:
                nat[into].append(f"{self._say(text)} {match} -j {to}")
            if port.source_ranges and port.load_balancer_ips:
                self._ranges(out)
        if not endpoints:
            verdict = "DROP" if port.external_local and self.reach.any_endpoint else "REJECT"
            for text, match, into, _ in ways:
                is_local = "-m addrtype --dst-type LOCAL " if into == "KUBE-NODEPORTS" else ""
                filtered["KUBE-EXTERNAL-SERVICES"].append(f"{self._say(text)} {is_local}{match} -j {verdict}")

    def _from_outside(self) -> Iterator[str]:
        port = self.port
        if not port.external_local:
            yield f"{self._say('masquerade')} -j KUBE-MARK-MASQ"
            yield f"-j {self.cluster}"
            return
        # With the policy Local, pods and the node itself still reach every endpoint.
        if self.options.detect_local:
            yield f"{self._say('pod traffic')} -s {self.view.lab.pod_subnet} -j {self.cluster}"
        for target in ("KUBE-MARK-MASQ", self.cluster):
            yield f"{self._say('route LOCAL traffic')} -m addrtype --src-type LOCAL -j {target}"
        if self.reach.local:
            yield f"-j {self.local}"

    def _ranges(self, out: Rules) -> None:
        """loadBalancerSourceRanges: what none of them lets through is not translated, and then dropped."""
        port = self.port
        allowed = [f"-s {source} -j {self.outside}" for source in port.source_ranges]
        out["nat"][self.firewall] = [f"{self._say('loadbalancer IP')} {rule}" for rule in allowed]
        for address in port.load_balancer_ips:
            rule = f"{self._say('traffic not accepted')} {self._to(address, port.port)} -j DROP"
            out["filter"]["KUBE-PROXY-FIREWALL"].append(rule)

    def _choice(self, endpoints: tuple[Endpoint, ...], has_cluster_ip: bool) -> Iterator[str]:
        """Affinity first, then chance: the i-th of n is taken by one in n-i."""
        port = self.port
        if has_cluster_ip and (self.options.masquerade_all or self.options.detect_local):
            source = "" if self.options.masquerade_all else f"! -s {self.view.lab.pod_subnet} "
            yield f"{self._say('cluster IP')} {source}{self._to(port.cluster_ip, port.port)} -j KUBE-MARK-MASQ"
        for endpoint in endpoints if port.affinity else ():
            name = self._endpoint_chain(endpoint)
            yield f"-m recent --name {name} --rcheck --seconds {port.affinity} --reap -j {name}"
        for i, endpoint in enumerate(endpoints):
            left = len(endpoints) - i
            chance = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
            yield f"{self._say(f'-> {_text(endpoint)}')} {chance}-j {self._endpoint_chain(endpoint)}"

    def _endpoint(self, endpoint: Endpoint) -> list[str]:
        recent = f"-m recent --name {self._endpoint_chain(endpoint)} --set " if self.port.affinity else ""
        protocol = f"-p {self.port.protocol} -m {self.port.protocol}"
        return [
            f"{self._say('')} -s {ip_text(endpoint.ip)} -j KUBE-MARK-MASQ",
            f"{self._say('')} {recent}{protocol} -j DNAT --to-destination {_text(endpoint)}",
        ]

    def _endpoint_chain(self, endpoint: Endpoint) -> str:
        return chain("SEP", self.name, self.port.protocol, _text(endpoint))

    def _to(self, address: int, number: int) -> str:
        return f"-d {ip_text(address)} -p {self.port.protocol} -m {self.port.protocol} --dport {number}"

    def _say(self, text: str) -> str:
        """Names of Kubernetes objects have no quotes in them (RFC 1123 labels)."""
        return f'-m comment --comment "{self.name}{" " if text else ""}{text}"'


def _text(endpoint: Endpoint) -> str:
    return f"{ip_text(endpoint.ip)}:{endpoint.port}"


def restore(new: Rules, old: Rules) -> str:
    """What iptables-restore --noflush must be told so that a kernel with the chains of `old` has those of `new`.

    A chain that did not change is not named, so one endpoint's change is a few lines however many Services there are
    (kube-proxy's partial sync). A chain that is named is emptied first.
    """
    text = []
    for table, chains in new.items():
        before = old.get(table, {})
        changed = [name for name, lines in chains.items() if before.get(name) != lines]
        gone = [name for name in before if name not in chains]
        if not changed and not gone:
            continue
        text.append(f"*{table}")
        text += [f":{name} - [0:0]" for name in (*changed, *gone)]
        text += [f"-A {name} {line}" for name in changed for line in chains[name]]
        text += [f"-X {name}" for name in gone]
        text.append("COMMIT")
    return "".join(f"{line}\n" for line in text)

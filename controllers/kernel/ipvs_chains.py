"""The iptables chains of kube-proxy's ipvs mode: who is masqueraded, and what may not pass ipvs; pure.

They ask ipsets, so their number does not grow with the Services, but for load balancers with source ranges.
Source: kube-proxy's ipvs proxier (pkg/proxy/ipvs/proxier.go: writeIptablesRules) and its README.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from controllers.flow.fields import ip_text
from controllers.kernel.ipsets import Sets, admits, match
from controllers.kernel.iptables import MARK, MARKING, POSTROUTING, Rules
from controllers.proxy.frontends import Options
from controllers.services import ServicePort

# In the order in which packets meet them: kube-proxy puts each before those it wrote earlier.
HOOKS: Mapping[str, tuple[str, ...]] = {
    "filter": (
        "INPUT -j KUBE-IPVS-FILTER",
        "INPUT -j KUBE-PROXY-FIREWALL",
        "INPUT -j KUBE-NODE-PORT",
        "FORWARD -j KUBE-PROXY-FIREWALL",
        "FORWARD -j KUBE-FORWARD",
        "OUTPUT -j KUBE-IPVS-OUT-FILTER",
    ),
    "nat": ("PREROUTING -j KUBE-SERVICES", "OUTPUT -j KUBE-SERVICES", "POSTROUTING -j KUBE-POSTROUTING"),
}


def rules(sets: Sets, refused: Iterable[str], pod_subnet: str, options: Options) -> Rules:
    """Every chain on the node. refused: rules of KUBE-IPVS-OUT-FILTER, as `refusals` gives them."""

    def where(name: str, then: str, protocol: str = "") -> list[str]:
        """A rule that asks the set, if there is anything in it."""
        return [f"{protocol}{match(name)} -j {then}"] if sets[name] else []

    services = [
        "-s 127.0.0.0/8 -j RETURN",
        *where("KUBE-LOAD-BALANCER", "KUBE-LOAD-BALANCER"),
        *([_hidden_clients(pod_subnet, options)] if sets["KUBE-CLUSTER-IP"] else []),
        *where("KUBE-EXTERNAL-IP", "KUBE-MARK-MASQ"),
    ]
    for name in ("KUBE-EXTERNAL-IP", "KUBE-EXTERNAL-IP-LOCAL"):
        services += where(name, "ACCEPT", "-m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL ")
        services += where(name, "ACCEPT", "-m addrtype --dst-type LOCAL ")
    services.append("-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT")
    services += where("KUBE-CLUSTER-IP", "ACCEPT") + where("KUBE-LOAD-BALANCER", "ACCEPT")
    node_port: list[str] = []
    for protocol, end in (("tcp", "TCP"), ("udp", "UDP"), ("sctp", "SCTP-HASH")):
        node_port += where(f"KUBE-NODE-PORT-LOCAL-{end}", "RETURN", f"-p {protocol} ")
        node_port += where(f"KUBE-NODE-PORT-{end}", "KUBE-MARK-MASQ", f"-p {protocol} ")
    known = ("KUBE-LOAD-BALANCER", "KUBE-CLUSTER-IP", "KUBE-EXTERNAL-IP", "KUBE-EXTERNAL-IP-LOCAL")
    return {
        "filter": {
            "KUBE-FORWARD": [
                f"-m mark --mark {MARK}/{MARK} -j ACCEPT",
                "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            ],
            # A cluster IP is an address of the node too: nothing but its Service may be reached by it.
            "KUBE-IPVS-FILTER": [
                *(f"{match(name)} -j RETURN" for name in (*known, "KUBE-HEALTH-CHECK-NODE-PORT")),
                f"-m conntrack --ctstate NEW {match('KUBE-IPVS-IPS')} -j REJECT",
            ],
            "KUBE-IPVS-OUT-FILTER": list(refused),
            "KUBE-NODE-PORT": [f"{match('KUBE-HEALTH-CHECK-NODE-PORT')} -j ACCEPT"],
            "KUBE-PROXY-FIREWALL": where("KUBE-LOAD-BALANCER-FW", "KUBE-SOURCE-RANGES-FIREWALL"),
            "KUBE-SOURCE-RANGES-FIREWALL": [
                *where("KUBE-LOAD-BALANCER-SOURCE-CIDR", "RETURN"),
                *where("KUBE-LOAD-BALANCER-SOURCE-IP", "RETURN"),
                "-j DROP",
            ],
        },
        "nat": {
            "KUBE-LOAD-BALANCER": [*where("KUBE-LOAD-BALANCER-LOCAL", "RETURN"), "-j KUBE-MARK-MASQ"],
            "KUBE-MARK-MASQ": list(MARKING),
            "KUBE-NODE-PORT": node_port,
            # A pod that reaches itself must not see itself as its client.
            "KUBE-POSTROUTING": [*where("KUBE-LOOP-BACK", "MASQUERADE"), *POSTROUTING],
            "KUBE-SERVICES": services,
        },
    }


def _hidden_clients(pod_subnet: str, options: Options) -> str:
    """Whose connections to cluster IPs are masqueraded; without any other reason those that bear a cluster IP."""
    asked = match("KUBE-CLUSTER-IP")
    if options.masquerade_all:
        return f"{asked} -j KUBE-MARK-MASQ"
    if options.detect_local:
        return f"{asked} ! -s {pod_subnet} -j KUBE-MARK-MASQ"
    return f"{asked.replace('dst,dst', 'src,dst')} -j KUBE-MARK-MASQ"


def refusals(port: ServicePort, node_ip: int) -> Iterator[str]:
    """For load balancers whose source ranges leave the node out: it is its own client by that very address."""
    if not admits(port, node_ip):
        for address in map(ip_text, port.load_balancer_ips):
            yield f"-s {address} -m ipvs --vaddr {address} --vproto {port.protocol} --vport {port.port} -j DROP"

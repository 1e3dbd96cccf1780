"""What a lab can say of network policies: which have no effect, who reaches whom and why, and what packets say."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from controllers.flow.fields import ip_number, ip_text
from controllers.identities import RESERVED
from controllers.policy.evaluate import Cluster, Decision, End, Verdict, judge
from controllers.policy.index import PolicyIndex
from controllers.policy.model import DIRECTIONS, EGRESS, INGRESS, PROTOCOLS, Pod, Policy
from scenarios.netpol.cases import Probe
from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.lab import Lab

KINDS = ("NetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
# A node's flows with counters, in one table (scenarios/lab/flows.py); its own module imports too much for here.
Listing = Callable[[Lab, str, str], list[dict[str, Any]]]
# What is asked where a pod names no port.
_DEFAULT = ("TCP", 80)


def warnings(thing: Object, enforces: Collection[str], cni: str, proxy: str) -> Iterator[str]:
    """A sentence if an object is a policy, or has a direction, that is not enforced here; enforces: KIND/DIRECTION."""
    kind, spec = thing["kind"], thing.get("spec", {})
    if kind not in KINDS:
        return
    if kind == "NetworkPolicy":
        wanted = [d for d in DIRECTIONS if d.capitalize() in spec.get("policyTypes", ["Ingress"])]
    else:
        wanted = [d for d in DIRECTIONS if spec.get(d)]
    missing = [d for d in wanted if f"{kind}/{d}" not in enforces]
    if not missing:
        return
    what = "the policy" if missing == wanted else f"what it says of {missing[0]}"
    yield f"{what} has no effect: CNI {cni} with proxy mode {proxy} does not enforce it"


def _index(lab: Lab) -> PolicyIndex:
    index = PolicyIndex()
    for thing in lab.store:
        index.apply(thing["kind"], "ADDED", thing)
    return index


def cluster(lab: Lab) -> Cluster:
    """What the lab's policies speak of; of policies only what this lab enforces."""
    nodes = {int(a): n.name for n in lab.nodes.values() for a in (n.ip, n.gateway_ip)}
    whole = _index(lab).cluster(nodes)
    return replace(whole, policies=[_enforced(p, lab.parts.enforces) for p in whole.policies])


def identities(lab: Lab) -> list[dict[str, Any]]:
    """Number, labels and pods of every security identity. Raises InputError if the lab's CNI knows none."""
    if not lab.parts.identities:
        raise InputError("identity", f"CNI {lab.config.cni} knows no identities", "a lab with CNI cilium")
    found: list[dict[str, Any]] = [{"identity": n, "labels": [text], "pods": []} for n, text in RESERVED.items()]
    for number, (labels, pods) in _index(lab).identities.table().items():
        found.append({"identity": number, "labels": labels.split(","), "pods": pods})
    return found


def _enforced(policy: Policy, enforces: Collection[str]) -> Policy:
    kind = policy.key.partition(" ")[0]
    ingress, egress = (policy.rules(d) if f"{kind}/{d}" in enforces else None for d in (INGRESS, EGRESS))
    return replace(policy, ingress=ingress, egress=egress)


def end_of(whole: Cluster, lab: Lab, name: str) -> tuple[str, End]:
    """A pod by NAME or NAMESPACE/NAME, a node, or an address; with the name it is known by. Raises InputError."""
    key = name if "/" in name else f"default/{name}"
    found = [k for k in whole.pods if k == key] or sorted(k for k in whole.pods if k.startswith(f"{key}-"))
    if found:
        pod = whole.pods[found[0]]
        return found[0], End(pod.ip, None if pod.host_network else pod, pod.node if pod.host_network else "")
    if name in lab.nodes:
        return name, End(int(lab.nodes[name].ip), None, name)
    try:
        return name, whole.end(int(IPv4Address(name)))
    except ValueError:
        there = ", ".join([*sorted(whole.pods), *lab.nodes])
        raise InputError(f"pod {name}", "there is no such pod, node or address", f"one of: {there}") from None


def ports_of(lab: Lab, key: str) -> list[tuple[str, int]]:
    """(protocol, port) of a pod's container ports; none for what is no pod."""
    pod = lab.store.get("Pod", *key.split("/")) if "/" in key else None
    every = [p for c in (pod or {"spec": {"containers": []}})["spec"]["containers"] for p in c.get("ports") or ()]
    return list(dict.fromkeys((p.get("protocol", "TCP"), p["containerPort"]) for p in every))


def port_of(text: str, pod: Pod | None) -> tuple[str, int]:
    """80, 53/UDP, web, or icmp as (protocol, port). Raises InputError."""
    number, _, protocol = text.partition("/")
    protocol = (protocol or "TCP").upper()
    if text.upper() == "ICMP":
        return "ICMP", 0
    if protocol in PROTOCOLS and number.isdigit() and 0 < int(number) < 65536:
        return protocol, int(number)
    named = [p for p in (pod.ports if pod else ()) if p.name == number]
    if named:
        return named[0].protocol, named[0].number
    names = [p.name for p in (pod.ports if pod else ())]
    expected = ", ".join(["80", "53/UDP", "icmp", *names])
    raise InputError(
        f"port {text}", "is no port", f"a number, with /UDP or /SCTP if it is not TCP, or a name: {expected}"
    )


def explain(lab: Lab, source: str, target: str, port: str, listing: Listing) -> dict[str, Any]:
    """Why one end may open a connection to the other, or may not, with the counters of the flows that decided it."""
    whole = cluster(lab)
    source, one = end_of(whole, lab, source)
    target, two = end_of(whole, lab, target)
    asked = [port_of(port, two.pod)] if port else ports_of(lab, target) or [_DEFAULT]
    answers = []
    for protocol, number in asked:
        verdict = judge(whole, one, two, protocol, number)
        answers.append(
            {
                "protocol": protocol,
                "port": number,
                "allowed": verdict.allowed,
                **{d.direction: _told(lab, d, own, listing) for d, own in _sides(verdict, one, two)},
            }
        )
    return {
        "source": source,
        "sourceIP": ip_text(one.ip),
        "target": target,
        "targetIP": ip_text(two.ip),
        "enforced": bool(lab.parts.enforces),
        "cni": lab.config.cni,
        "ports": answers,
    }


def _sides(verdict: Verdict, source: End, target: End) -> Iterable[tuple[Decision, End]]:
    return (verdict.egress, source), (verdict.ingress, target)


def _told(lab: Lab, decision: Decision, own: End, listing: Listing) -> dict[str, Any]:
    pod = own.pod
    flows = []
    if pod is not None and decision.policy and pod.node in lab.nodes:
        flows = _deciding(listing(lab, pod.node, decision.direction), decision, pod)
    return {
        "allowed": decision.allowed,
        "why": decision.why,
        "policies": list(decision.selected_by),
        "policy": decision.policy,
        "rule": None if decision.rule is None else decision.rule + 1,
        "node": pod.node if pod else "",
        "flows": flows,
    }


def _deciding(every: list[dict[str, Any]], decision: Decision, pod: Pod) -> list[dict[str, Any]]:
    """The flows that do what the decision says: a rule's own, or the pod's where one rule wants everything of it."""
    rule = None if decision.rule is None else f"{decision.policy} {decision.direction} {decision.rule + 1}"
    pods = f"{decision.direction} of {pod.key}"
    found = []
    for flow in every:
        is_end = "conjunction(" not in flow["flow"]
        is_rule = rule is not None and (flow["owner"] == rule or flow["owner"].startswith(f"{rule} "))
        is_deny = rule is None and flow["owner"] == pods and "DropReason" in flow["flow"]
        is_all = rule is not None and flow["owner"] == pods and re.search(r"Policy|Admin", flow["table"])
        if is_end and (is_rule or is_deny or is_all):
            found.append({k: flow[k] for k in ("table", "flow", "packets", "bytes", "owner")})
    # A pod that some rule opens wholly never comes to its rules of clauses.
    return found


def matrix(lab: Lab, ports: list[str], namespaces: list[str], prober: Any = None) -> dict[str, Any]:
    """Who reaches whom, as the policies say; with a prober (scenarios/netpol/runner.py), as packets say, too."""
    whole = cluster(lab)
    boxes = lab.kubelet.sandboxes
    pods = sorted(
        key
        for key, pod in whole.pods.items()
        if pod.ip and not pod.host_network and key in boxes and (not namespaces or pod.namespace in namespaces)
    )
    asked = [port_of(text, None) for text in ports] or sorted({p for key in pods for p in ports_of(lab, key)})
    probes: dict[Probe, bool] = {}
    for protocol, number in asked:
        for source in pods:
            for target in pods:
                if ports or (protocol, number) in ports_of(lab, target):
                    one, two = whole.pods[source], whole.pods[target]
                    allowed = judge(whole, End(one.ip, one), End(two.ip, two), protocol, number).allowed
                    probes[Probe(source, target, protocol, number)] = allowed
    found: dict[str, Any] = {
        "cni": lab.config.cni,
        "enforced": bool(lab.parts.enforces),
        "pods": pods,
        "ports": [f"{protocol}/{number}" for protocol, number in asked],
        "expected": _by_port(probes),
    }
    if prober is not None:
        ends = {key: (boxes[key].pid, ip_text(ip_number(str(boxes[key].ip)))) for key in pods}
        others = {p: allowed for p, allowed in probes.items() if p.source != p.target}
        seen = prober.probe(ends, others)
        found["observed"] = _by_port(probes | seen)
        found["differences"] = [str(p) for p, allowed in others.items() if seen[p] != allowed]
    return found


def _by_port(probes: dict[Probe, bool]) -> dict[str, dict[str, dict[str, bool]]]:
    found: dict[str, dict[str, dict[str, bool]]] = {}
    for p, allowed in probes.items():
        found.setdefault(f"{p.protocol}/{p.port}", {}).setdefault(p.source, {})[p.target] = allowed
    return found

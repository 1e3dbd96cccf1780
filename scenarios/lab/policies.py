"""What a lab can say of network policies: which have no effect, who reaches whom and why, and what packets say."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from controllers.flow.fields import ip_number, ip_text
from controllers.flow.tables import LOW
from controllers.identities import RESERVED
from controllers.policy import read, read_calico
from controllers.policy.clauses import MOST, MOST_LOGS
from controllers.policy.evaluate import Cluster, Decision, End, Verdict, judge
from controllers.policy.index import PolicyIndex
from controllers.policy.model import DIRECTIONS, EGRESS, INGRESS, LOG, PROTOCOLS, TIERS, UNORDERED, Pod, Policy
from scenarios.netpol.cases import Probe
from topo.cluster.errors import InputError
from topo.cluster.store import Object, Store, key_of, kind_of
from topo.lab import Lab

KINDS = read.KINDS
# And what they speak of, beside pods and namespaces.
OBJECTS = (*KINDS, *read_calico.SETS)
# A node's flows with counters, in one table (scenarios/lab/flows.py); its own module imports too much for here.
Listing = Callable[[Lab, str, str], list[dict[str, Any]]]
# What is asked where a pod names no port.
_DEFAULT = ("TCP", 80)


def warnings(thing: Object, enforces: Collection[str], cni: str, proxy: str) -> Iterator[str]:
    """Sentences if an object is a policy, or has a part, that is not enforced here; enforces: KIND/DIRECTION."""
    kind, spec = kind_of(thing), thing.get("spec", {})
    if kind in read_calico.SETS and not any(e.partition("/")[0] == read_calico.GLOBAL_POLICY for e in enforces):
        yield f"the set has no effect: CNI {cni} with proxy mode {proxy} does not enforce Calico's policies"
    if kind not in KINDS:
        return
    for name in ("doNotTrack", "preDNAT"):
        if spec.get(name):
            yield f"the policy has no effect: with {name} it is for host endpoints, of which there are none here"
    types = spec.get("types" if kind in read_calico.POLICIES else "policyTypes")
    wanted = [d for d in DIRECTIONS if (d.capitalize() in types if types else spec.get(d))]
    missing = [d for d in wanted if f"{kind}/{d}" not in enforces]
    if missing:
        what = "the policy" if missing == wanted else f"what it says of {missing[0]}"
        yield f"{what} has no effect: CNI {cni} with proxy mode {proxy} does not enforce it"


def check(store: Store, objects: Iterable[Object]) -> None:
    """Refuse policies with more rules than flows have priorities for. Raises InputError."""
    every = {key_of(thing): thing for kind in KINDS for thing in store.list(kind)}
    new = {key_of(thing): thing for thing in objects if kind_of(thing) in KINDS}
    found = [policy for thing in (every | new).values() if (policy := read.policy(thing)) is not None] if new else []
    for direction in DIRECTIONS:
        for tier in TIERS:
            rules = [r for p in found if p.tier == tier and p.order != UNORDERED for r in p.rules(direction) or ()]
            logs = sum(rule.action == LOG for rule in rules)
            for count, most, what in ((len(rules), MOST, ""), (logs, MOST_LOGS, f" with action {LOG}")):
                if count > most:
                    where = f"{next(iter(new))[0]} {next(iter(new))[2]}"
                    raise InputError(where, f"makes {count} {direction} rules{what} of one tier", f"at most {most}")


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
    if one.node and two.pod is not None:  # a node asks pods by its address among its own
        one = replace(one, ip=int(lab.nodes[one.node].gateway_ip))
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
    every: list[dict[str, Any]] = []
    if pod is not None and pod.node in lab.nodes and (decision.policy or decision.logged):
        every = listing(lab, pod.node, decision.direction)
    rules = [_rule_name(policy, decision.direction, number) for policy, number in decision.logged]
    return {
        "allowed": decision.allowed,
        "why": decision.why,
        "policies": list(decision.selected_by),
        "policy": decision.policy,
        "rule": None if decision.rule is None else decision.rule + 1,
        "node": pod.node if pod else "",
        "flows": _deciding(every, decision, pod) if pod is not None and decision.policy else [],
        "logged": [{"rule": rule, "packets": _packets(every, rule)} for rule in rules],
    }


def _rule_name(policy: str, direction: str, number: int) -> str:
    """As the rule's flows call it."""
    return f"{policy} {direction} {number + 1}"


def _packets(every: Iterable[dict[str, Any]], rule: str) -> int:
    """That the rule's own flows counted; one that names ports has a flow for each number of theirs."""
    mine = (f for f in every if f["owner"] == rule or f["owner"].startswith(f"{rule} "))
    return sum(f["packets"] for f in mine if "conjunction(" not in f["flow"])


def log(lab: Lab, listing: Listing) -> list[dict[str, Any]]:
    """Every Log rule, and how many first packets of connections it has seen on each node."""
    logging = [
        (policy.key, direction, number)
        for policy in cluster(lab).policies
        for direction in DIRECTIONS
        for number, rule in enumerate(policy.rules(direction) or ())
        if rule.action == LOG
    ]
    nodes = {(n, d): listing(lab, n, d) for n in lab.nodes for d in DIRECTIONS} if logging else {}
    return [
        {
            "policy": policy,
            "direction": direction,
            "rule": number + 1,
            "nodes": {n: _packets(nodes[n, direction], _rule_name(policy, direction, number)) for n in lab.nodes},
        }
        for policy, direction, number in logging
    ]


def _deciding(every: list[dict[str, Any]], decision: Decision, pod: Pod) -> list[dict[str, Any]]:
    """The flows that do what the decision says: a rule's own, or the pod's where one rule wants everything of it."""
    rule = None if decision.rule is None else _rule_name(decision.policy, decision.direction, decision.rule)
    pods = f"{decision.direction} of {pod.key}"
    found = []
    for flow in every:
        if "conjunction(" in flow["flow"]:
            continue
        of_rule = rule is not None and (flow["owner"] == rule or flow["owner"].startswith(f"{rule} "))
        of_pod = flow["owner"] == pods and re.search(r"Policy|Admin|Default", flow["table"])
        isolates = f"priority={LOW}," in flow["flow"]
        if of_rule or (of_pod and isolates == (rule is None)):
            found.append({k: flow[k] for k in ("table", "flow", "packets", "bytes", "owner")})
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

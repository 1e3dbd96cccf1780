"""Whether the lab is whole: everything ready, flows confirmed, and packets of every pod go where they should."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from controllers import proxy as proxies
from controllers.flow.fields import ip_number
from controllers.policy.evaluate import Cluster, End, judge
from controllers.policy.model import Pod
from controllers.registry import discover
from scenarios.disorder.manifests import WORKLOADS
from scenarios.lab import policies
from scenarios.netpol.cases import Probe
from scenarios.netpol.prober_client import LIMIT, Prober
from topo.cluster.store import Object
from topo.lab import Lab, NotReady

_SHOWN = 4
# Seconds that all packets of one look may take at most; each look takes twice as long as the one before.
_LONGEST = 8 * LIMIT


class NotWhole(Exception):
    """What is still not as it should be."""


def converge(lab: Lab, prober: Prober, patience: float) -> float:
    """Wait until the lab is whole; the seconds that it took. Raises NotWhole after so many of them."""
    began = time.monotonic()
    deadline = began + patience
    try:
        lab.wait_ready(patience)
        lab.confirm(max(1.0, deadline - time.monotonic()))
    except NotReady as error:
        raise NotWhole(str(error)) from error
    limit = LIMIT
    while wrong := differences(lab, prober, limit):
        if time.monotonic() > deadline:
            more = f" and {len(wrong) - _SHOWN} more" if wrong[_SHOWN:] else ""
            raise NotWhole(f"packets after {patience:.0f} s: {'; '.join(wrong[:_SHOWN])}{more}")
        limit = min(2 * limit, _LONGEST)
    return time.monotonic() - began


def differences(lab: Lab, prober: Prober, limit: float) -> list[str]:
    """Pairs whose packets do not do what the store's policies and Services say, a sentence each.

    limit: seconds that all answers may take together; on a machine that does much else hundreds take long.
    """
    whole, boxes = policies.cluster(lab), dict(lab.kubelet.sandboxes)
    # Others may run what answers no probe.
    pods = {key: pod for key, pod in whole.pods.items() if pod.labels.get("app") in WORKLOADS and key in boxes}
    if gone := [key for key in pods if not boxes[key].lives()]:
        return [f"{key} has lost its namespaces" for key in gone]
    probes = dict(_between(lab, whole, pods))
    ends = {key: (boxes[key].pid, str(boxes[key].ip)) for key in pods}
    for name, service in _services(lab).items():
        ends[name] = (0, service["spec"]["clusterIP"])
        probes |= dict(_to_service(lab, whole, pods, name, service))
    seen = prober.probe(ends, probes, limit=limit)
    nodes = {key: f"{key} on {boxes[key].node.name}" for key in pods}
    return [
        f"{nodes[p.source]} -> {nodes.get(p.target, p.target)} {p.protocol}/{p.port} "
        f"{'is refused' if wanted else 'goes through'}"
        for p, wanted in probes.items()
        if seen[p] != wanted
    ]


def _between(lab: Lab, whole: Cluster, pods: Mapping[str, Pod]) -> Iterator[tuple[Probe, bool]]:
    for target, two in pods.items():
        for protocol, port in policies.ports_of(lab, target):
            for source, one in pods.items():
                if source != target:
                    probe = Probe(source, target, protocol, port)
                    yield probe, judge(whole, _end(one), _end(two), protocol, port).allowed


def _services(lab: Lab) -> dict[str, Object]:
    """Those in front of our pods, by a name that no pod has."""
    found = [
        s for s in lab.store.list("Service", "default") if (s["spec"].get("selector") or {}).get("app") in WORKLOADS
    ]
    return {f"Service {s['metadata']['namespace']}/{s['metadata']['name']}": s for s in found}


def _to_service(
    lab: Lab, whole: Cluster, pods: Mapping[str, Pod], name: str, service: Object
) -> Iterator[tuple[Probe, bool]]:
    """Where all endpoints would give the same answer; else it is a matter of which one is chosen."""
    by_address = {pod.ip: pod for pod in pods.values()}
    hidden = discover(proxies, "PROXY")[lab.parts.proxy_mode].hides_clients
    for port in service["spec"].get("ports", ()):
        protocol, behind = port.get("protocol", "TCP"), _endpoints(lab, service, port.get("name", ""))
        for source, one in pods.items():
            client = _node_of(lab, one) if hidden else _end(one)
            verdicts = {
                judge(whole, client, _end(by_address[ip]), protocol, number).allowed
                for ip, number in behind
                if ip in by_address
            }
            # A pod that is sent to itself comes from the node then, which policies do not refuse; a process that
            # stands in between takes a connection before it knows whether the endpoint does.
            taken = hidden and protocol == "TCP" and verdicts == {False}
            if one.ip not in {ip for ip, _ in behind} and len(verdicts) <= 1 and not taken:
                yield Probe(source, name, protocol, port["port"]), verdicts == {True}


def _endpoints(lab: Lab, service: Object, port: str) -> set[tuple[int, int]]:
    """(address, port) of those that are ready."""
    meta = service["metadata"]
    found = set()
    for one in lab.store.list("EndpointSlice", meta["namespace"]):
        if one["metadata"].get("labels", {}).get("kubernetes.io/service-name") != meta["name"]:
            continue
        for given in one.get("ports") or ():
            if given.get("name", "") == port:
                ready = [e for e in one["endpoints"] if (e.get("conditions") or {}).get("ready") is not False]
                found |= {(ip_number(address), given["port"]) for e in ready for address in e["addresses"]}
    return found


def _node_of(lab: Lab, pod: Pod) -> End:
    """As other pods see its node; it may be leaving."""
    node = lab.nodes.get(pod.node)
    return End(int(node.gateway_ip), None, pod.node) if node else End(0)


def _end(pod: Pod) -> End:
    return End(pod.ip, pod)

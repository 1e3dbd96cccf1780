"""EndpointSlices of a Service with a selector, as a pure function of its pods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from topo.cluster.labels import matches_labels
from topo.cluster.store import Object
from topo.control.children import is_ending, is_over, is_ready, sidecars

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
OURS = "endpointslice-controller.mininetes.dev"
SERVICE_NAME = "kubernetes.io/service-name"
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"
# Kubernetes, "Service: traffic distribution"; PreferClose is the old name of PreferSameZone.
_CLOSE = ("PreferClose", "PreferSameZone", "PreferSameNode")
_NO_NODES: Mapping[str, Object] = {}
# Kubernetes, "EndpointSlices": at most 100 endpoints a slice by default.
MOST = 100
PodsOf = Callable[[Object], Iterable[Object]]


def slices(service: Object, pods: Iterable[Object], nodes: Mapping[str, Object] = _NO_NODES) -> list[Object]:
    """The slices the Service should have: one group a set of port numbers (a named targetPort may differ by pod).

    nodes: by name. A pod on a node that is not ready is not ready (Kubernetes, "Nodes": the node controller).
    """
    spec, meta = service["spec"], service["metadata"]
    selector = spec.get("selector")
    if not selector or spec.get("type") == "ExternalName":
        return []
    groups: dict[tuple[tuple[str, str, int], ...], list[Object]] = {}
    for pod in pods:
        if pod["metadata"]["namespace"] != meta["namespace"] or is_over(pod):
            continue
        if matches_labels(selector, pod["metadata"].get("labels", {})) and pod.get("status", {}).get("podIP"):
            groups.setdefault(_ports(spec, pod), []).append(pod)
    parts = []
    for ports, members in sorted(groups.items()):
        members.sort(key=lambda p: str(p["metadata"]["name"]))
        parts += [(ports, members[i : i + MOST]) for i in range(0, len(members), MOST)]
    return [_slice(service, f"{meta['name']}-{i}", ports, members, nodes) for i, (ports, members) in enumerate(parts)]


def behind(
    services: Iterable[Object], pods_of: PodsOf, nodes: Mapping[str, Object], there: Iterable[Object]
) -> list[str]:
    """Services whose slices lack ready pods that they should have, a sentence each.

    pods_of: gives the pods that a Service may choose; there: the slices there are.
    """
    listed: dict[tuple[str, str], set[str]] = {}
    for one in there:
        key = one["metadata"]["namespace"], (one["metadata"].get("labels") or {}).get(SERVICE_NAME, "")
        listed.setdefault(key, set()).update(_ready(one))
    missing = []
    for service in services:
        key = service["metadata"]["namespace"], service["metadata"]["name"]
        wanted = {address for one in slices(service, pods_of(service), nodes) for address in _ready(one)}
        if not wanted <= listed.get(key, set()):
            missing.append(f"Service {key[1]} does not have all of its {len(wanted)} ready pods yet")
    return missing


def _ready(one: Object) -> set[str]:
    return {_address(e) for e in one["endpoints"] if (e.get("conditions") or {}).get("ready", True)}


def stepwise(have: Mapping[str, Object], wanted: Mapping[str, Object]) -> list[dict[str, list[Object]]]:
    """The endpoints to write by slice name, in one or two steps, so that none that stays is ever in no slice.

    have, wanted: slices by name. An endpoint that moves is in both slices between the two steps.
    """
    homes = {_address(e): name for name, one in wanted.items() for e in one["endpoints"]}
    moving: dict[str, list[Object]] = {}
    for name, one in have.items():
        for endpoint in one["endpoints"] if name in wanted else ():
            if homes.get(_address(endpoint), name) != name:
                moving.setdefault(name, []).append(endpoint)
    last = {name: one["endpoints"] for name, one in wanted.items()}
    if not moving:
        return [last]
    now = {_address(e): e for one in wanted.values() for e in one["endpoints"]}
    return [{name: own + [now[_address(e)] for e in moving.get(name, ())] for name, own in last.items()}, last]


def _address(endpoint: Object) -> str:
    return str(endpoint["addresses"][0])


def _ports(spec: dict[str, Any], pod: Object) -> tuple[tuple[str, str, int], ...]:
    """(name, protocol, number) of each Service port on this pod; a name the pod does not have is left out."""
    out = []
    for port in spec.get("ports", ()):
        protocol, target = port.get("protocol", "TCP"), port.get("targetPort", port["port"])
        if isinstance(target, str):
            target = next(
                (
                    p["containerPort"]
                    for c in (*pod["spec"]["containers"], *sidecars(pod))
                    for p in c.get("ports") or ()
                    if p.get("name") == target and p.get("protocol", "TCP") == protocol
                ),
                None,
            )
        if target is not None:
            out.append((port.get("name", ""), protocol, target or port["port"]))
    return tuple(out)


def _slice(
    service: Object,
    name: str,
    ports: tuple[tuple[str, str, int], ...],
    pods: list[Object],
    nodes: Mapping[str, Object],
) -> Object:
    meta, headless = service["metadata"], service["spec"].get("clusterIP") == "None"
    labels = {SERVICE_NAME: meta["name"], MANAGED_BY: OURS}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": labels | ({HEADLESS: ""} if headless else {}),
        },
        "addressType": "IPv4",
        "ports": [{"name": n, "protocol": protocol, "port": number} for n, protocol, number in ports],
        "endpoints": [_endpoint(service, pod, nodes.get(pod["spec"]["nodeName"])) for pod in pods],
    }


def _endpoint(service: Object, pod: Object, node: Object | None) -> Object:
    """Conditions as Kubernetes, "EndpointSlices" defines them: a terminating pod is ready only if all are published."""
    spec, wish = pod["spec"], service["spec"].get("trafficDistribution")
    serving, ending = is_ready(pod) and (node is None or is_node_ready(node)), is_ending(pod)
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not ending)
    out: Object = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": serving, "terminating": ending},
        "nodeName": spec["nodeName"],
        "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]},
    }
    # Kubernetes, "DNS for Services and Pods": a pod has a name of its own in the Service that is its subdomain.
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        out["hostname"] = spec["hostname"]
    zone = ((node or {}).get("metadata", {}).get("labels") or {}).get(ZONE)
    if zone:
        out["zone"] = zone
    # KEP-3015: only ready endpoints have hints; those by node come with those by zone, for clients on other nodes.
    hints: Object = {}
    if ready and zone and wish in _CLOSE:
        hints["forZones"] = [{"name": zone}]
    if ready and wish == "PreferSameNode":
        hints["forNodes"] = [{"name": spec["nodeName"]}]
    return out | ({"hints": hints} if hints else {})


def is_node_ready(node: Object) -> bool:
    """The node's Ready condition; a node that reports none counts as ready."""
    conditions = node.get("status", {}).get("conditions", ())
    return all(c["status"] == "True" for c in conditions if c["type"] == "Ready")

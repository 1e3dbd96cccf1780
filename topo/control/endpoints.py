"""EndpointSlices of a Service with a selector, as a pure function of its pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from topo.cluster.labels import matches_labels
from topo.cluster.store import Object
from topo.control.workloads import is_ending, is_over, is_ready

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
OURS = "endpointslice-controller.mininetes.dev"
SERVICE_NAME = "kubernetes.io/service-name"
ZONE = "topology.kubernetes.io/zone"
_NO_NODES: Mapping[str, Object] = {}
# Kubernetes, "EndpointSlices": at most 100 endpoints a slice by default.
MOST = 100


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


def _ports(spec: dict[str, Any], pod: Object) -> tuple[tuple[str, str, int], ...]:
    """(name, protocol, number) of each Service port on this pod; a name the pod does not have is left out."""
    out = []
    for port in spec.get("ports", ()):
        protocol, target = port.get("protocol", "TCP"), port.get("targetPort", port["port"])
        if isinstance(target, str):
            target = next(
                (
                    p["containerPort"]
                    for c in pod["spec"]["containers"]
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
    meta = service["metadata"]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": {SERVICE_NAME: meta["name"], MANAGED_BY: OURS},
        },
        "addressType": "IPv4",
        "ports": [{"name": n, "protocol": protocol, "port": number} for n, protocol, number in ports],
        "endpoints": [_endpoint(service["spec"], pod, nodes.get(pod["spec"]["nodeName"])) for pod in pods],
    }


def _endpoint(spec: Object, pod: Object, node: Object | None) -> Object:
    """Conditions as Kubernetes, "EndpointSlices" defines them: a terminating pod is never ready.

    spec: the Service's. Hints as its trafficDistribution asks for them (Kubernetes, "Service: traffic distribution").
    """
    always = bool(spec.get("publishNotReadyAddresses"))
    serving, ending = is_ready(pod) and (node is None or is_node_ready(node)), is_ending(pod)
    out: Object = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": always or (serving and not ending), "serving": serving, "terminating": ending},
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]},
    }
    if pod["spec"].get("hostname"):
        out["hostname"] = pod["spec"]["hostname"]
    zone = ((node or {}).get("metadata", {}).get("labels") or {}).get(ZONE)
    if zone:
        out["zone"] = zone
    wish = spec.get("trafficDistribution")
    if wish and zone and out["conditions"]["ready"]:
        out["hints"] = {"forZones": [{"name": zone}]}
    if wish == "PreferSameNode" and out["conditions"]["ready"]:
        out.setdefault("hints", {})["forNodes"] = [{"name": pod["spec"]["nodeName"]}]
    return out


def is_node_ready(node: Object) -> bool:
    """The node's Ready condition; a node that reports none counts as ready."""
    conditions = node.get("status", {}).get("conditions", ())
    return all(c["status"] == "True" for c in conditions if c["type"] == "Ready")

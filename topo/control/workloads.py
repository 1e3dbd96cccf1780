"""Which pods a workload should have: Deployment, ReplicaSet, StatefulSet, DaemonSet and Job, as pure functions."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from topo.cluster.labels import matches_labels
from topo.cluster.store import Object

WORKLOADS = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job")


@dataclass(frozen=True, slots=True)
class Plan:
    """Objects to create, objects to delete, and replica counts to set on owned ReplicaSets (by name)."""

    create: tuple[Object, ...] = ()
    delete: tuple[Object, ...] = ()
    scale: dict[str, int] = field(default_factory=dict)


def is_ready(pod: Object) -> bool:
    """The pod's Ready condition."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_ending(thing: Object) -> bool:
    """Whether the object is asked to go."""
    return "deletionTimestamp" in thing["metadata"]


def is_over(pod: Object) -> bool:
    """Whether the pod's containers ended for good."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def owned(owner: Object, things: Sequence[Object]) -> list[Object]:
    """Those of `things` that `owner` made."""
    uid = owner["metadata"]["uid"]
    return [t for t in things if any(r["uid"] == uid for r in t["metadata"].get("ownerReferences", ()))]


def plan(owner: Object, children: Sequence[Object], nodes: Sequence[Object], suffix: Callable[[], str]) -> Plan:
    """What must change so that `owner` has the children it should.

    children: the pods it owns (for a Deployment: its ReplicaSets and their pods); suffix: fresh five letters each call.
    """
    match owner["kind"]:
        case "Deployment":
            return _deployment(owner, children)
        case "ReplicaSet":
            return _replicas(owner, children, owner["spec"].get("replicas", 1), suffix)
        case "Job":
            return _replicas(owner, children, owner["spec"].get("parallelism", 1), suffix)
        case "StatefulSet":
            return _stateful(owner, children)
        case "DaemonSet":
            return _daemon(owner, children, nodes, suffix)
    raise ValueError(f"{owner['kind']} is no workload")


def template_hash(template: Object) -> str:
    """Ten hex digits that change when the pod template does (the pod-template-hash label)."""
    return hashlib.sha1(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def _child(owner: Object, kind: str, name: str, labels: dict[str, str], spec: Object, notes: Object) -> Object:
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    metadata = {"name": name, "namespace": owner["metadata"]["namespace"], "labels": labels}
    if notes:
        metadata["annotations"] = notes
    return {
        "apiVersion": "v1" if kind == "Pod" else owner["apiVersion"],
        "kind": kind,
        "metadata": {**metadata, "ownerReferences": [reference]},
        "spec": spec,
    }


def _pod(owner: Object, name: str, labels: dict[str, str] | None = None) -> Object:
    template = copy.deepcopy(owner["spec"]["template"])
    meta = template.get("metadata", {})
    all_labels = {**meta.get("labels", {}), **(labels or {})}
    return _child(owner, "Pod", name, all_labels, template["spec"], dict(meta.get("annotations", {})))


def _deployment(owner: Object, children: Sequence[Object]) -> Plan:
    """The new ReplicaSet grows at once; the old ones keep as many pods as the new one still lacks ready ones."""
    spec = owner["spec"]
    wanted = spec.get("replicas", 1)
    digest = template_hash(spec["template"])
    name = f"{owner['metadata']['name']}-{digest}"
    sets = [c for c in children if c["kind"] == "ReplicaSet"]
    current = next((s for s in sets if s["metadata"]["name"] == name), None)
    if current is None:
        template = copy.deepcopy(spec["template"])
        labels = {**template.setdefault("metadata", {}).get("labels", {}), "pod-template-hash": digest}
        template["metadata"]["labels"] = labels
        selector = copy.deepcopy(spec["selector"])
        selector.setdefault("matchLabels", {})["pod-template-hash"] = digest
        body = {"replicas": wanted, "selector": selector, "template": template}
        return Plan(create=(_child(owner, "ReplicaSet", name, labels, body, {}),))
    ready = sum(is_ready(p) and not is_ending(p) for p in owned(current, children))
    scale = {name: wanted}
    left = max(0, wanted - ready)
    for old in sets:
        if old is not current:
            scale[old["metadata"]["name"]] = keep = min(left, old["spec"].get("replicas", 0))
            left -= keep
    changed = {s["metadata"]["name"]: s["spec"].get("replicas") for s in sets}
    empty = tuple(s for s in sets if s is not current and s["spec"].get("replicas") == 0 and not owned(s, children))
    return Plan(delete=empty, scale={n: count for n, count in scale.items() if changed[n] != count})


def _replicas(owner: Object, pods: Sequence[Object], wanted: int, suffix: Callable[[], str]) -> Plan:
    """As many live pods as wanted; surplus ones go unscheduled first, then not ready, then youngest."""
    live = [p for p in pods if not is_ending(p) and not (is_over(p) and owner["kind"] == "ReplicaSet")]
    if len(live) < wanted:
        name = owner["metadata"]["name"]
        return Plan(create=tuple(_pod(owner, f"{name}-{suffix()}") for _ in range(wanted - len(live))))
    order = sorted(
        live,
        key=lambda p: ("nodeName" in p["spec"], is_ready(p), -int(p["metadata"]["resourceVersion"])),
    )
    return Plan(delete=tuple(order[: len(live) - wanted]))


def _stateful(owner: Object, pods: Sequence[Object]) -> Plan:
    """Pods name-0, name-1, ...: each after the one before is ready, unless podManagementPolicy is Parallel."""
    spec = owner["spec"]
    name, wanted = owner["metadata"]["name"], spec.get("replicas", 1)
    by_name = {p["metadata"]["name"]: p for p in pods}
    parallel = spec.get("podManagementPolicy") == "Parallel"
    create: list[Object] = []
    for i in range(wanted):
        pod = by_name.get(f"{name}-{i}")
        if pod is None:
            label = {"statefulset.kubernetes.io/pod-name": f"{name}-{i}", "apps.kubernetes.io/pod-index": str(i)}
            new = _pod(owner, f"{name}-{i}", label)
            new["spec"].setdefault("hostname", f"{name}-{i}")
            new["spec"].setdefault("subdomain", spec.get("serviceName", ""))
            create.append(new)
        if not parallel and (pod is None or not is_ready(pod)):
            break
    keep = {f"{name}-{i}" for i in range(wanted)}
    surplus = [p for n, p in by_name.items() if n not in keep and not is_ending(p)]
    surplus.sort(key=lambda p: int(p["metadata"]["name"].rpartition("-")[2]), reverse=True)
    return Plan(create=tuple(create), delete=tuple(surplus if parallel else surplus[:1]))


def _daemon(owner: Object, pods: Sequence[Object], nodes: Sequence[Object], suffix: Callable[[], str]) -> Plan:
    """One pod on every node that the template's nodeSelector chooses."""
    selector = owner["spec"]["template"]["spec"].get("nodeSelector") or {}
    wanted = {n["metadata"]["name"] for n in nodes if matches_labels(selector, n["metadata"].get("labels", {}))}
    live = [p for p in pods if not is_ending(p)]
    there = {p["spec"].get("nodeName") for p in live}
    create = []
    for node in sorted(wanted - there):
        pod = _pod(owner, f"{owner['metadata']['name']}-{suffix()}")
        pod["spec"]["nodeName"] = node
        create.append(pod)
    return Plan(create=tuple(create), delete=tuple(p for p in live if p["spec"].get("nodeName") not in wanted))

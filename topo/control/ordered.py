"""StatefulSets: pods with names of their own, made, updated and removed in order.

Source: Kubernetes, "StatefulSets" (deployment and scaling guarantees, update strategies); the steps are those of
pkg/controller/statefulset/stateful_set_control.go. As there, an update waits behind a pod that is broken, and a
template that is mended does not replace it: it has to be deleted by hand ("Forced rollback").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from topo.cluster.store import Object, copied
from topo.control.children import (
    REVISION,
    Plan,
    child,
    is_available,
    is_ending,
    is_live,
    is_over,
    is_ready,
    new_pod,
    template_hash,
)


def stateful_set(owner: Object, children: Sequence[Object], now: datetime) -> Plan:
    """children: its pods and its ControllerRevisions, which keep the templates that pods below a partition are of."""
    spec, name = owner["spec"], owner["metadata"]["name"]
    pods = {p["metadata"]["name"]: p for p in children if p["kind"] == "Pod"}
    revisions = {r["metadata"]["name"]: r for r in children if r["kind"] == "ControllerRevision"}
    update = f"{name}-{template_hash(spec['template'])}"
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    partition = rolling.get("partition", 0)
    first = (spec.get("ordinals") or {}).get("start", 0)
    names = [f"{name}-{first + i}" for i in range(spec.get("replicas", 1))]
    create = [] if update in revisions else [_revision(owner, update, revisions)]
    waiting = []
    delete: list[Object] = []
    in_order = spec.get("podManagementPolicy") != "Parallel"
    min_ready = spec.get("minReadySeconds", 0)

    for i, one in enumerate(names):
        pod = pods.get(one)
        if pod is None:
            revision = update if i >= partition else _kept(names[:partition], pods, revisions, update)
            create.append(_pod(owner, one, revision, revisions))
        elif is_over(pod) and not is_ending(pod):
            delete.append(pod)
        if pod is None or not is_available(pod, min_ready, now):
            waiting.append(one)
            if in_order:
                return Plan(tuple(create), tuple(delete))
    surplus = sorted((p for n, p in pods.items() if n not in names), key=_ordinal, reverse=True)
    delete += _surplus(surplus, in_order)
    if in_order and surplus:
        return Plan(tuple(create), tuple(delete))
    if (spec.get("updateStrategy") or {}).get("type") != "OnDelete":
        for one in reversed(names[partition:]):
            pod = pods.get(one)
            if pod is not None and is_live(pod) and pod["metadata"]["labels"].get(REVISION) != update:
                delete.append(pod)
                break
            if one in waiting:
                break
    return Plan(tuple(create), tuple(delete) + _forgotten(revisions, update, partition, pods))


def _surplus(surplus: Sequence[Object], in_order: bool) -> list[Object]:
    """Which of the pods beyond the wanted number go now. surplus: highest ordinal first."""
    if not in_order:
        return [p for p in surplus if not is_ending(p)]
    if not surplus or is_ending(surplus[0]):
        return []
    # One that is not ready goes only when no lower one is broken too, for that would have to be mended first.
    last = surplus[0]
    lower_broken = any(not is_ready(p) for p in surplus[1:])
    return [last] if is_ready(last) or not lower_broken else []


def _kept(below: Sequence[str], pods: Mapping[str, Object], revisions: Mapping[str, Object], update: str) -> str:
    """The revision of pods below the partition: that of the others there, else the one before the update."""
    found = [pods[n]["metadata"]["labels"].get(REVISION, "") for n in below if n in pods]
    others = [r for r in found if r != update and r in revisions]
    if others:
        return str(others[0])
    if found and not others:
        return update
    older = sorted((r for r in revisions if r != update), key=lambda r: int(revisions[r]["revision"]))
    return older[-1] if older else update


def _forgotten(
    revisions: Mapping[str, Object], update: str, partition: int, pods: Mapping[str, Object]
) -> tuple[Object, ...]:
    """Revisions that no pod is of and none will be."""
    used = {p["metadata"]["labels"].get(REVISION) for p in pods.values()} | {update}
    return () if partition else tuple(r for n, r in revisions.items() if n not in used)


def _revision(owner: Object, name: str, others: Mapping[str, Object]) -> Object:
    number = max((int(r["revision"]) for r in others.values()), default=0) + 1
    data = {"spec": {"template": copied(owner["spec"]["template"])}}
    return child(owner, "ControllerRevision", name, {}, {}, data=data, revision=number)


def _pod(owner: Object, name: str, revision: str, revisions: Mapping[str, Object]) -> Object:
    labels = {
        "statefulset.kubernetes.io/pod-name": name,
        "apps.kubernetes.io/pod-index": name.rpartition("-")[2],
        REVISION: revision,
    }
    kept = revisions.get(revision)
    made = new_pod(owner, name, labels, kept["data"]["spec"]["template"] if kept else None)
    made["spec"].setdefault("hostname", name)
    made["spec"].setdefault("subdomain", owner["spec"].get("serviceName", ""))
    return made


def _ordinal(pod: Object) -> int:
    return int(pod["metadata"]["name"].rpartition("-")[2])

"""What a workload's plan is made of: the state of its pods, the objects it makes, and the plan itself."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from topo.cluster.store import Object, copied, parse_time

# Kubernetes, "Well-Known Labels": the template a pod of a StatefulSet or DaemonSet was made from.
REVISION = "controller-revision-hash"


@dataclass(frozen=True, slots=True)
class Plan:
    """Objects to create, objects to delete, and replica counts to set on owned ReplicaSets (by name).

    again: seconds until it is worth planning again although nothing happens (a pod becomes available), or None.
    """

    create: tuple[Object, ...] = ()
    delete: tuple[Object, ...] = ()
    scale: dict[str, int] = field(default_factory=dict)
    again: float | None = None


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


def is_live(pod: Object) -> bool:
    """Whether the pod counts: neither over nor asked to go."""
    return not is_ending(pod) and not is_over(pod)


def sidecars(pod: Object) -> list[Object]:
    """Init containers that go on running beside the others (Kubernetes, "Sidecar Containers")."""
    return [c for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"]


def ready_since(pod: Object) -> datetime | None:
    """When the pod became ready; None if it is not, or does not say."""
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "Ready" and condition["status"] == "True":
            return parse_time(condition.get("lastTransitionTime"))
    return None


def wait_for(pod: Object, min_ready: float, now: datetime) -> float:
    """Seconds for which a ready pod must stay so until it is available (minReadySeconds); 0 if it is."""
    since = ready_since(pod)
    if not min_ready or since is None:
        return 0
    return max(0.0, (since + timedelta(seconds=min_ready) - now).total_seconds())


def is_available(pod: Object, min_ready: float, now: datetime) -> bool:
    """Whether the pod counts for its workload: live, and ready for min_ready seconds."""
    return is_live(pod) and is_ready(pod) and not wait_for(pod, min_ready, now)


def owned(owner: Object, things: Iterable[Object]) -> list[Object]:
    """Those of `things` that `owner` made."""
    uid = owner["metadata"]["uid"]
    return [t for t in things if any(r["uid"] == uid for r in t["metadata"].get("ownerReferences", ()))]


def share(value: int | str, of: int, up: bool) -> int:
    """A count, or a percentage of `of` rounded up or down (Kubernetes: IntOrString)."""
    if isinstance(value, int):
        return value
    percent = int(value.removesuffix("%"))
    return (of * percent + (99 if up else 0)) // 100


def template_hash(template: Object) -> str:
    """Ten hex digits that change when the pod template does (the pod-template-hash label)."""
    return hashlib.sha1(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def child(owner: Object, kind: str, name: str, labels: dict[str, str], notes: Object, **parts: object) -> Object:
    """An object that `owner` makes. parts: all but what every object has."""
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
        **parts,
    }


def new_pod(owner: Object, name: str, labels: dict[str, str] | None = None, template: Object | None = None) -> Object:
    """A pod of the owner's template, or of another one."""
    template = copied(template or owner["spec"]["template"])
    meta = template.get("metadata") or {}
    all_labels = {**(meta.get("labels") or {}), **(labels or {})}
    return child(owner, "Pod", name, all_labels, dict(meta.get("annotations") or {}), spec=template["spec"])


def first_to_go(pods: Sequence[Object]) -> list[Object]:
    """Pods in the order in which a ReplicaSet gives them up.

    Source: Kubernetes, "ReplicaSet", "Scaling a ReplicaSet" (and "Pod deletion cost"); then, as in
    pkg/controller/controller_utils.go, the less long ready, the more often restarted, the younger.
    """
    crowd = Counter(p["spec"].get("nodeName") for p in pods)

    def rank(pod: Object) -> tuple[object, ...]:
        notes, status = pod["metadata"].get("annotations") or {}, pod.get("status", {})
        since = ready_since(pod)
        return (
            "nodeName" in pod["spec"],
            status.get("phase", "Pending") != "Pending",
            is_ready(pod),
            _cost(notes.get("controller.kubernetes.io/pod-deletion-cost", "0")),
            -crowd[pod["spec"].get("nodeName")],
            -since.timestamp() if since else 0,
            -sum(c.get("restartCount", 0) for c in status.get("containerStatuses", ())),
            -int(pod["metadata"]["resourceVersion"]),
        )

    return sorted(pods, key=rank)


def _cost(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


Suffix = Callable[[], str]

"""What of the store's objects is not yet as they ask; pure."""

from __future__ import annotations

from collections import Counter
from functools import partial

from topo.cluster.store import Object, Store
from topo.control.endpoints import behind
from topo.control.selections import pods_behind
from topo.control.workloads import is_ready


def waiting_for(store: Store) -> list[str]:
    """Workloads without all their pods, pods that are not ready, Services behind their pods, a sentence each."""
    missing, pods = [], store.list("Pod")
    ready = Counter(uid for pod in pods if is_ready(pod) for uid in _owner_uids(pod))
    # A Deployment's are those of its ReplicaSets.
    for one in store.list("ReplicaSet"):
        for uid in _owner_uids(one):
            ready[uid] += ready[one["metadata"]["uid"]]
    for kind in ("Deployment", "ReplicaSet", "StatefulSet", "Job"):
        for owner in store.list(kind):
            wanted = owner["spec"].get("parallelism" if kind == "Job" else "replicas", 1)
            have = ready[owner["metadata"]["uid"]]
            if have != wanted:
                missing.append(f"{kind} {owner['metadata']['name']} has {have} of {wanted} pods ready")
    missing += [f"pod {p['metadata']['name']} is {_state(p)}" for p in pods if not is_ready(p)]
    # Pods are ready before their Services' slices say so.
    nodes = {node["metadata"]["name"]: node for node in store.list("Node")}
    return missing or behind(store.list("Service"), partial(pods_behind, store), nodes, store.list("EndpointSlice"))


def _owner_uids(thing: Object) -> set[str]:
    return {r["uid"] for r in thing["metadata"].get("ownerReferences", ())}


def _state(pod: Object) -> str:
    if "nodeName" not in pod["spec"]:
        return "not scheduled"
    return str(pod.get("status", {}).get("phase", "being made")) + ", not ready"

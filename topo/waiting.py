"""What of the store's objects is not yet as they ask; pure."""

from __future__ import annotations

from topo.cluster.store import Object, Store
from topo.control.endpoints import behind
from topo.control.workloads import is_ready


def waiting_for(store: Store) -> list[str]:
    """Workloads without all their pods, pods that are not ready, Services behind their pods, a sentence each."""
    missing = []
    for kind in ("Deployment", "ReplicaSet", "StatefulSet", "Job"):
        for owner in store.list(kind):
            wanted = owner["spec"].get("parallelism" if kind == "Job" else "replicas", 1)
            have = _count(store, owner)
            if have != wanted:
                missing.append(f"{kind} {owner['metadata']['name']} has {have} of {wanted} pods ready")
    pods = store.list("Pod")
    missing += [f"pod {p['metadata']['name']} is {_state(p)}" for p in pods if not is_ready(p)]
    # Pods are ready before their Services' slices say so.
    nodes = {node["metadata"]["name"]: node for node in store.list("Node")}
    return missing or behind(store.list("Service"), pods, nodes, store.list("EndpointSlice"))


def _count(store: Store, owner: Object) -> int:
    """Ready pods of a workload, through its ReplicaSets."""
    uids = {owner["metadata"]["uid"]}
    if owner["kind"] == "Deployment":
        uids |= {s["metadata"]["uid"] for s in store.list("ReplicaSet") if _owner_uids(s) & uids}
    return sum(is_ready(p) for p in store.list("Pod") if _owner_uids(p) & uids)


def _owner_uids(thing: Object) -> set[str]:
    return {r["uid"] for r in thing["metadata"].get("ownerReferences", ())}


def _state(pod: Object) -> str:
    if "nodeName" not in pod["spec"]:
        return "not scheduled"
    return str(pod.get("status", {}).get("phase", "being made")) + ", not ready"

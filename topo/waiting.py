"""What of the store's objects is not yet as they ask; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial

from topo.cluster.store import DELETED, Event, Key, Object, Store, key_of
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
    missing += [_unready(p) for p in pods if not is_ready(p)]
    # Pods are ready before their Services' slices say so.
    nodes = {node["metadata"]["name"]: node for node in store.list("Node")}
    return missing or behind(store.list("Service"), partial(pods_behind, store), nodes, store.list("EndpointSlice"))


class UnreadyPods:
    """The pods that are not ready, kept by events: while there are some, nobody need look at all the others."""

    def __init__(self, things: Iterable[Object]) -> None:
        self._pods: dict[Key, Object] = {}
        for thing in things:
            self._note(thing, False)

    def follow(self, events: Iterable[Event]) -> None:
        """Take what happened since."""
        for event in events:
            self._note(event.object, event.type == DELETED)

    def sentences(self) -> list[str]:
        """What they are instead, as waiting_for says it."""
        return [_unready(pod) for pod in self._pods.values()]

    def _note(self, thing: Object, gone: bool) -> None:
        if thing["kind"] == "Pod":
            key = key_of(thing)
            if gone or is_ready(thing):
                self._pods.pop(key, None)
            else:
                self._pods[key] = thing


def _owner_uids(thing: Object) -> set[str]:
    return {r["uid"] for r in thing["metadata"].get("ownerReferences", ())}


def _unready(pod: Object) -> str:
    phase = pod.get("status", {}).get("phase", "being made")
    state = f"{phase}, not ready" if "nodeName" in pod["spec"] else "not scheduled"
    return f"pod {pod['metadata']['name']} is {state}"

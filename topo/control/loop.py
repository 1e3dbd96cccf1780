"""Carries the control plane's decisions out: watches the store and makes it what workloads and Services ask for."""

from __future__ import annotations

import logging
import random
import string
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from topo.cluster.ipam import AddressPool
from topo.cluster.store import CLUSTER_SCOPED, DELETED, Event, Key, NotFound, Object, Store, key_of
from topo.control import endpoints, scheduler, workloads
from topo.control.allocation import ServiceAllocator
from topo.control.events import record

LOG = logging.getLogger("mininetes")


class ControlLoop:
    """One thread that reconciles. `rng` names pods, so that a seed gives the same names again."""

    def __init__(
        self, store: Store, services: AddressPool, rng: random.Random, load_balancers: AddressPool | None = None
    ) -> None:
        self.store, self.rng = store, rng
        self._watch = store.watch()[2]
        self._allocator = ServiceAllocator(services, load_balancers)
        # Dictionaries for sets: what is worth looking at, in the order in which it became so.
        self._workloads: dict[Key, None] = {}
        self._services: dict[Key, None] = {}
        # Services that lack something that another one may give back.
        self._starved: dict[Key, None] = {}
        self._schedule = False
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        """Begin to reconcile."""
        self._thread.start()

    def _run(self) -> None:
        while (batch := self._watch.batch()) is not None:
            try:
                self.reconcile(batch)
            except Exception:  # one bad object must not stop the others; it is retried at its next event
                LOG.exception("control loop")

    def reconcile(self, batch: Iterable[Event]) -> None:
        """Take these events and do all that follows from the store's present state."""
        for event in batch:
            self._note(event)
        services, self._services = self._services, {}
        owners, self._workloads = self._workloads, {}
        self._allocate(services)
        for key in owners:
            try:
                self._workload(key)
            except Exception:  # one that cannot have its pods must not stop the others; its next event tries again
                LOG.exception("control loop: %s", "/".join(key))
        if self._schedule:
            self._schedule = False
            self._place_pods()
        pods_of: dict[str, list[Object]] = {}
        for pod in self.store.list("Pod") if services else ():
            pods_of.setdefault(pod["metadata"]["namespace"], []).append(pod)
        nodes = {node["metadata"]["name"]: node for node in self.store.list("Node")}
        for key in services:
            self._endpoints(key, pods_of.get(key[1], []), nodes)

    def _note(self, event: Event) -> None:
        """What an event makes worth looking at."""
        thing, kind, gone = event.object, event.object["kind"], event.type == DELETED
        if kind == "Service":
            self._services[key_of(thing)] = None
            if gone:
                self._allocator.forget(key_of(thing))
                self._services |= self._starved
        elif kind == "Namespace" and gone:
            self._empty(thing["metadata"]["name"])
        elif kind == "Pod":
            namespace = thing["metadata"]["namespace"]
            selecting = (s for s in self.store.list("Service", namespace) if s["spec"].get("selector"))
            self._services |= dict.fromkeys(key_of(s) for s in selecting)
            self._workloads |= self._owner_keys(thing)
            self._schedule = self._schedule or gone or "nodeName" not in thing["spec"]
        elif kind in workloads.WORKLOADS:
            self._workloads[key_of(thing)] = None
            self._workloads |= self._owner_keys(thing)
            if gone:
                self._orphans(thing)
        elif kind == "Node":
            self._schedule = True
            self._services |= dict.fromkeys(key_of(s) for s in self.store.list("Service") if s["spec"].get("selector"))
            self._workloads |= dict.fromkeys(key_of(d) for d in self.store.list("DaemonSet"))
            if gone:
                self._lost_node(thing["metadata"]["name"])

    def _owner_keys(self, thing: Object) -> dict[Key, None]:
        """Its owners and theirs: a Deployment rolls on when a pod of its ReplicaSet becomes ready."""
        found: dict[Key, None] = {}
        for reference in _owners(thing):
            key = reference["kind"], thing["metadata"]["namespace"], reference["name"]
            owner = self.store.get(*key)
            found |= {key: None} | (self._owner_keys(owner) if owner else {})
        return found

    def _orphans(self, owner: Object) -> None:
        """Garbage collection: what a deleted workload owned goes too."""
        for kind in ("ReplicaSet", "Pod"):
            for child in workloads.owned(owner, self.store.list(kind, owner["metadata"]["namespace"])):
                self._remove(child)

    def _empty(self, namespace: str) -> None:
        """What a deleted Namespace held goes with it (Kubernetes, "Namespaces": deletion)."""
        for thing in list(self.store):
            if thing["kind"] not in CLUSTER_SCOPED and thing["metadata"].get("namespace") == namespace:
                self._remove(thing)

    def _lost_node(self, name: str) -> None:
        for pod in self.store.list("Pod"):
            if pod["spec"].get("nodeName") == name:
                self.store.delete(*key_of(pod))

    def _remove(self, thing: Object) -> None:
        """Pods that run end gracefully, everything else goes at once."""
        try:
            if thing["kind"] == "Pod" and "nodeName" in thing["spec"]:
                self.store.mark_deleted(*key_of(thing))
            else:
                self.store.delete(*key_of(thing))
        except NotFound:
            pass  # somebody was faster

    def _workload(self, key: Key) -> None:
        owner = self.store.get(*key)
        if owner is None:
            return
        pods = self.store.list("Pod", key[1])
        if key[0] == "Deployment":
            sets = workloads.owned(owner, self.store.list("ReplicaSet", key[1]))
            children = sets + [p for s in sets for p in workloads.owned(s, pods)]
        else:
            children = workloads.owned(owner, pods)
        todo = workloads.plan(owner, children, self.store.list("Node"), self._suffix)
        for thing in todo.create:
            self.store.create(thing)
        for thing in todo.delete:
            self._remove(thing)
        for name, count in todo.scale.items():
            self.store.update("ReplicaSet", key[1], name, _setter("spec", replicas=count))

    def _suffix(self) -> str:
        return "".join(self.rng.choices(string.ascii_lowercase + string.digits, k=5))

    def _place_pods(self) -> None:
        pods, nodes = self.store.list("Pod"), self.store.list("Node")
        load = Counter(p["spec"]["nodeName"] for p in pods if "nodeName" in p["spec"])
        for pod in pods:
            if "nodeName" in pod["spec"] or workloads.is_ending(pod):
                continue
            try:
                node = scheduler.choose(pod, nodes, load)
            except scheduler.Unschedulable as error:
                record(self.store, pod, "FailedScheduling", str(error))
                continue
            load[node] += 1
            self.store.update(*key_of(pod), _setter("spec", nodeName=node))

    def _allocate(self, keys: Iterable[Key]) -> None:
        """Give Services their addresses and ports: what manifests choose first, for all, and then the rest."""
        changed = [service for key in keys if (service := self.store.get(*key)) is not None]
        refused = {key_of(service): self._allocator.claim(service) for service in changed}
        for service in changed:
            key = key_of(service)
            wanted, missing = self._allocator.settle(service)
            for problem in (*refused[key], *missing):
                record(self.store, service, "AllocationFailed", problem)
            self._starved.pop(key, None)
            if missing:
                self._starved[key] = None
            self.store.update(*key, _replace(spec=wanted["spec"], status=wanted.get("status")))

    def _endpoints(self, key: Key, pods: list[Object], nodes: Mapping[str, Object]) -> None:
        service = self.store.get(*key)
        wanted = {s["metadata"]["name"]: s for s in endpoints.slices(service, pods, nodes)} if service else {}
        have = {
            s["metadata"]["name"]
            for s in self.store.list("EndpointSlice", key[1])
            if s["metadata"].get("labels", {}).get(endpoints.SERVICE_NAME) == key[2]
            and s["metadata"]["labels"].get(endpoints.MANAGED_BY) == endpoints.OURS
        }
        for name, one in wanted.items():
            if name in have:
                self.store.update(
                    "EndpointSlice", key[1], name, _setter("", ports=one["ports"], endpoints=one["endpoints"])
                )
            else:
                self.store.create(one)
        for name in have - set(wanted):
            self.store.delete("EndpointSlice", key[1], name)


def _setter(part: str, **values: Any) -> Callable[[Object], None]:
    """An edit that writes these values into a part of an object ("" for its top level)."""
    return lambda thing: (thing[part] if part else thing).update(values)


def _replace(**parts: Any) -> Callable[[Object], None]:
    """An edit that puts these parts in the place of an object's own; None leaves what there is."""
    return lambda thing: thing.update({name: part for name, part in parts.items() if part is not None})


def _owners(thing: Object) -> list[Object]:
    return [r for r in thing["metadata"].get("ownerReferences", ()) if r["kind"] in workloads.WORKLOADS]

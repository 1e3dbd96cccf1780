"""Carries the control plane's decisions out: watches the store and makes it what workloads and Services ask for."""

from __future__ import annotations

import logging
import random
import string
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from topo.cluster.ipam import AddressPool
from topo.cluster.store import CLUSTER_SCOPED, DELETED, Conflict, Event, Key, NotFound, Object, Store, key_of
from topo.control import endpoints, scheduler, workloads
from topo.control.allocation import ServiceAllocator
from topo.control.events import record
from topo.control.selections import Selections, pods_behind

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
        self._chosen_by = Selections()
        # When a workload is worth planning again although nothing happens (time.monotonic).
        self._due: dict[Key, float] = {}
        self._schedule = False
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        """Begin to reconcile."""
        self._thread.start()

    def _run(self) -> None:
        while True:
            patience = max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None
            batch = self._watch.batch(patience)
            if batch is None:
                return
            self.reconcile(batch)

    def reconcile(self, batch: Iterable[Event]) -> None:
        """Take these events and do all that follows from the store's present state.

        What fails is logged and tried again at its next event; it stops nothing else.
        """
        for event in batch:
            with _logged(event.object["kind"]):
                self._note(event)
        for key in [key for key, moment in self._due.items() if moment <= time.monotonic()]:
            self._workloads[key] = None
        services, self._services = self._services, {}
        owners, self._workloads = self._workloads, {}
        self._allocate(services)
        for key in owners:
            with _logged(*key):
                self._workload(key)
        if self._schedule:
            self._schedule = False
            with _logged("scheduler"):
                self._place_pods()
        nodes = {node["metadata"]["name"]: node for node in self.store.list("Node")} if services else {}
        for key in services:
            with _logged(*key):
                self._endpoints(key, nodes)

    def _note(self, event: Event) -> None:
        """What an event makes worth looking at."""
        thing, kind, gone = event.object, event.object["kind"], event.type == DELETED
        if kind == "Service":
            self._services[key_of(thing)] = None
            self._chosen_by.note_service(thing, gone)
            if gone:
                self._allocator.forget(key_of(thing))
        elif kind == "Namespace" and gone:
            self._empty(thing["metadata"]["name"])
        elif kind == "Pod":
            self._services |= self._chosen_by.note_pod(thing, gone)
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
        self._due.pop(key_of(owner), None)
        for child in self.store.owned(owner["metadata"]["uid"]):
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
        self._due.pop(key, None)
        owner = self.store.get(*key)
        if owner is None:
            return
        own = self.store.owned(owner["metadata"]["uid"])
        made = [one for one in own if one["kind"] != "Pod"]
        mine = [*own, *(pod for parent in made for pod in self.store.owned(parent["metadata"]["uid"]))]
        todo = workloads.plan(owner, mine, self.store.list("Node"), self._suffix, self.store.now())
        if todo.again is not None:
            self._due[key] = time.monotonic() + todo.again
        for thing in todo.create:
            try:
                self.store.create(thing)
            except Conflict as error:  # the event that frees the name, or the owner's next one, tries again
                have = self.store.get(*key_of(thing))
                if have is not None and not workloads.is_ending(have):
                    record(self.store, owner, "FailedCreate", str(error))
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

    def _allocate(self, keys: dict[Key, None]) -> None:
        """Give Services their addresses and ports: what manifests choose first, for all, and then the rest."""
        changed = [service for key in keys if (service := self.store.get(*key)) is not None]
        refused: dict[Key, list[str]] = {}
        for service in changed:
            with _logged(*key_of(service)):
                refused[key_of(service)] = self._allocator.claim(service)
        for service in changed:
            with _logged(*key_of(service)):
                self._settle(service, refused.get(key_of(service), []))
        if self._allocator.gave_back:  # by these, or by those that were deleted
            self._allocator.gave_back = False
            waiting, self._starved = self._starved, {}
            waiting = {key: None for key in waiting if self.store.get(*key) is not None}
            if waiting:
                self._allocate(waiting)

    def _settle(self, service: Object, problems: list[str]) -> None:
        key = key_of(service)
        wanted, missing = self._allocator.settle(service)
        for problem in (*problems, *missing):
            record(self.store, service, "AllocationFailed", problem)
        self._starved.pop(key, None)
        if missing:
            self._starved[key] = None
        self.store.update(*key, _replace(spec=wanted["spec"], status=wanted.get("status")))

    def _endpoints(self, key: Key, nodes: Mapping[str, Object]) -> None:
        service = self.store.get(*key)
        found = endpoints.slices(service, pods_behind(self.store, service), nodes) if service else []
        wanted = {s["metadata"]["name"]: s for s in found}
        ours = {endpoints.SERVICE_NAME: key[2], endpoints.MANAGED_BY: endpoints.OURS}
        have = {s["metadata"]["name"]: s for s in self.store.labelled("EndpointSlice", key[1], ours)}
        for step in endpoints.stepwise(have, wanted):
            for name, members in step.items():
                one, there = wanted[name], self.store.get("EndpointSlice", key[1], name)
                if there is None:
                    self.store.create({**one, "endpoints": members})
                elif (there["endpoints"], there["ports"]) != (members, one["ports"]):
                    self.store.update("EndpointSlice", key[1], name, _filled(one, members))
        for name in set(have) - set(wanted):
            self.store.delete("EndpointSlice", key[1], name)


@contextmanager
def _logged(*what: str) -> Iterator[None]:
    """What goes wrong in here is logged and no more."""
    try:
        yield
    except Exception:
        LOG.exception("control loop: %s", "/".join(what))


def _filled(one: Object, members: list[Object]) -> Callable[[Object], None]:
    """An edit that gives a slice these endpoints, and the ports and labels of `one`."""

    def change(thing: Object) -> None:
        thing["metadata"]["labels"] = one["metadata"]["labels"]
        thing.update(ports=one["ports"], endpoints=members)

    return change


def _setter(part: str, **values: Any) -> Callable[[Object], None]:
    """An edit that writes these values into a part of an object ("" for its top level)."""
    return lambda thing: (thing[part] if part else thing).update(values)


def _replace(**parts: Any) -> Callable[[Object], None]:
    """An edit that puts these parts in the place of an object's own; None leaves what there is."""
    return lambda thing: thing.update({name: part for name, part in parts.items() if part is not None})


def _owners(thing: Object) -> list[Object]:
    return [r for r in thing["metadata"].get("ownerReferences", ()) if r["kind"] in workloads.WORKLOADS]

"""The cluster's objects: list, watch and change them, with resourceVersions as the Kubernetes API has them."""

from __future__ import annotations

import queue
import threading
import uuid
from builtins import list as List  # Store.list hides the built-in name inside the class
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from topo.cluster.index import Index

Object = dict[str, Any]
Key = tuple[str, str, str]  # kind, namespace ("" where the kind has none), name
Given = dict[str, frozenset[str]]  # "labels" and "annotations" -> keys that an apply gave

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"
CLUSTER_SCOPED = frozenset(
    {"Namespace", "Node", "Lab", "FabricSwitch", "Outside", "Attachment", "IngressClass"}
    | {"AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "GlobalNetworkPolicy", "GlobalNetworkSet"}
)
# Kinds whose name Kubernetes has taken: what they are called here, which is what kubectl calls them.
_GROUPED = {("NetworkPolicy", "projectcalico.org"): "NetworkPolicy.projectcalico.org"}
NAMESAKES = tuple(_GROUPED.values())


# Kubernetes API, PodSpec.terminationGracePeriodSeconds.
_GRACE = 30


class Conflict(Exception):
    """The object exists already, or has changed since it was read."""


class NotFound(Exception):
    """There is no such object."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `object` is the state after it (before it, for DELETED) and must not be changed."""

    type: str
    object: Object
    revision: int


class Watch:
    """Events in order, from the moment of the list it began with. Close it when done."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    def put(self, event: Event | None) -> None:
        """Called by the store."""
        self._queue.put(event)

    def batch(self, timeout: float | None = None) -> list[Event] | None:
        """Every event that waits, at least one unless `timeout` seconds pass first; None once the watch is closed."""
        try:
            events = [self._queue.get(timeout=timeout)]
        except queue.Empty:
            return []
        while True:
            try:
                events.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return None if None in events else [e for e in events if e is not None]

    def close(self) -> None:
        """Stop; a reader that waits gets None."""
        self._store.unwatch(self)
        self.put(None)


def copied(value: Any) -> Any:
    """A deep copy of an object or a part of it: JSON, for which copy.deepcopy would take eight times as long."""
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    if isinstance(value, list):
        return [copied(part) for part in value]
    return value


def time_text(moment: datetime) -> str:
    """A moment as the Kubernetes API writes it, in whole seconds."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def parse_time(text: str | None) -> datetime | None:
    """The moment that such a text tells; None of nothing."""
    return datetime.fromisoformat(text) if text else None


def kind_of(thing: Object) -> str:
    """The kind by which an object is kept; with its group where Kubernetes itself has a kind of that name."""
    kind: str = thing["kind"]
    return _GROUPED.get((kind, thing.get("apiVersion", "").partition("/")[0]), kind)


def key_of(thing: Object) -> Key:
    """Kind, namespace and name of an object."""
    meta, kind = thing["metadata"], kind_of(thing)
    namespace = "" if kind in CLUSTER_SCOPED else meta.get("namespace", "default")
    return kind, namespace, meta["name"]


class Store:
    """All objects of one lab. Every method may be called from any thread; objects handed out are read-only."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._objects: dict[str, dict[Key, Object]] = {}
        self._index: Index[Key] = Index()
        self._given: dict[Key, Given] = {}
        self._watches: list[Watch] = []
        self._lock = threading.RLock()
        self._clock = clock
        self.revision = 0

    def list(self, kind: str, namespace: str | None = None) -> list[Object]:
        """Every object of the kind, in the order of creation."""
        with self._lock:
            found = self._objects.get(kind, {})
            return [thing for key, thing in found.items() if namespace is None or key[1] == namespace]

    def labelled(self, kind: str, namespace: str, labels: Mapping[str, str]) -> List[Object]:
        """Those of the kind and namespace that bear all of these labels, one at least, in the order of creation.

        Takes time for the objects with the rarest of them, and not for all there are.
        """
        with self._lock:
            found = self._index.find((kind, namespace, *label) for label in labels.items())
            return [self._objects[kind][key] for key in found]

    def owned(self, uid: str) -> List[Object]:
        """What the object with this uid has made, of any kind, in the order of creation."""
        with self._lock:
            return [self._objects[key[0]][key] for key in self._index.find([uid])]

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, or None."""
        with self._lock:
            return self._objects.get(kind, {}).get((kind, namespace, name))

    def create(self, thing: Object) -> Object:
        """Add an object; gives it uid, creationTimestamp and resourceVersion. Raises Conflict if it exists."""
        with self._lock:
            key = key_of(thing)
            if key in self._objects.get(key[0], {}):
                raise Conflict(f"{key[0]} {key[1]}/{key[2]} already exists")
            new = copied(thing)
            meta = new["metadata"]
            if key[1]:
                meta["namespace"] = key[1]
            if key[0] == "Namespace":  # Kubernetes, "Namespaces": automatic labelling
                meta["labels"] = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": key[2]}
            meta.setdefault("uid", str(uuid.uuid4()))
            meta["creationTimestamp"] = time_text(self._clock())
            return self._put(ADDED, key, new)

    def update(self, kind: str, namespace: str, name: str, change: Callable[[Object], None]) -> Object:
        """Let `change` edit a copy of the object and store it. Raises NotFound.

        An edit that changes nothing makes no event and no new resourceVersion.
        """
        with self._lock:
            old = self.get(kind, namespace, name)
            if old is None:
                raise NotFound(f"{kind} {namespace}/{name} is not there")
            new = copied(old)
            change(new)
            return old if new == old else self._put(MODIFIED, (kind, namespace, name), new)

    def apply(self, thing: Object) -> tuple[str, Object]:
        """Create the object, or replace spec, labels and annotations of the one that is there, keeping its status.

        Returns "created", "configured" or "unchanged", as kubectl apply says it.
        """
        with self._lock:
            key = key_of(thing)
            old = self.get(*key)
            if old is None:
                self._given[key] = _given(thing)
                return "created", self.create(thing)
            new = self.update(*key, change=lambda have: _merge(have, thing, self._given.get(key, {})))
            self._given[key] = _given(thing)
            return ("unchanged" if new is old else "configured"), new

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Remove the object at once. Raises NotFound."""
        with self._lock:
            thing = self._objects.get(kind, {}).pop((kind, namespace, name), None)
            if thing is None:
                raise NotFound(f"{kind} {namespace}/{name} is not there")
            self._index.take((kind, namespace, name))
            self._given.pop((kind, namespace, name), None)
            self.revision += 1
            self._tell(Event(DELETED, thing, self.revision))

    def mark_deleted(self, kind: str, namespace: str, name: str, grace: int | None = None) -> None:
        """Ask whoever runs the object to end it, by `grace` seconds from now at the latest. Raises NotFound.

        grace: None for a pod's own terminationGracePeriodSeconds. Asked again, the end can only come earlier
        (Kubernetes, "Pod Lifecycle", "Pod termination flow").
        """

        def mark(thing: Object) -> None:
            own = thing.get("spec", {}).get("terminationGracePeriodSeconds", _GRACE) if kind == "Pod" else 0
            seconds = own if grace is None else grace
            end = time_text(self._clock() + timedelta(seconds=seconds))
            meta = thing["metadata"]
            if end < meta.get("deletionTimestamp", "z"):
                meta["deletionTimestamp"], meta["deletionGracePeriodSeconds"] = end, seconds

        self.update(kind, namespace, name, mark)

    def now(self) -> datetime:
        """The cluster's time."""
        return self._clock()

    def watch(self) -> tuple[List[Object], int, Watch]:
        """Everything there is, its revision, and a watch that goes on from there with no gap."""
        with self._lock:
            watch = Watch(self)
            self._watches.append(watch)
            return [thing for found in self._objects.values() for thing in found.values()], self.revision, watch

    def unwatch(self, watch: Watch) -> None:
        """Send no more events there."""
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)

    def __iter__(self) -> Iterator[Object]:
        with self._lock:
            return iter([thing for found in self._objects.values() for thing in found.values()])

    def _put(self, event: str, key: Key, thing: Object) -> Object:
        self.revision += 1
        thing["metadata"]["resourceVersion"] = str(self.revision)
        self._objects.setdefault(key[0], {})[key] = thing
        self._index.put(key, _marks(key, thing))
        self._tell(Event(event, thing, self.revision))
        return thing

    def _tell(self, event: Event) -> None:
        for watch in self._watches:
            watch.put(event)


def _marks(key: Key, thing: Object) -> Iterator[Hashable]:
    """What the object is found by: its labels, and the uids of those that made it."""
    meta = thing["metadata"]
    for label in (meta.get("labels") or {}).items():
        yield key[0], key[1], *label
    for reference in meta.get("ownerReferences") or ():
        yield reference["uid"]


def _merge(have: Object, want: Object, before: Given) -> None:
    """Everything but identity and status comes from `want`; what the cluster filled in itself stays.

    before: labels and annotations that the apply before this one gave; those it gives no longer go.
    """
    for name in set(want) - {"metadata", "status"}:
        if isinstance(want[name], dict) and isinstance(have.get(name), dict):
            kept = {k: v for k, v in have[name].items() if k in _FILLED_IN and not want[name].get(k)}
            new = {**copied(want[name]), **kept}
            if (
                new.get("type") in ("NodePort", "LoadBalancer")
                and new.get("allocateLoadBalancerNodePorts") is not False
            ):
                _keep_node_ports(have[name], new)
            have[name] = new
        else:
            have[name] = copied(want[name])
    for name in ("labels", "annotations"):
        given = want["metadata"].get(name) or {}
        others = {k: v for k, v in have["metadata"].get(name, {}).items() if k not in before.get(name, ())}
        have["metadata"][name] = {**others, **given}
        if not have["metadata"][name]:
            del have["metadata"][name]


def _keep_node_ports(old: Object, new: Object) -> None:
    """What a port of this name was given it keeps, unless another port asks for it now (Kubernetes' API server too)."""
    given = {p.get("name", ""): p["nodePort"] for p in old.get("ports", ()) if p.get("nodePort")}
    taken = {p["nodePort"] for p in new.get("ports", ()) if p.get("nodePort")}
    for port in new.get("ports", ()):
        number = given.get(port.get("name", ""))
        if not port.get("nodePort") and number and number not in taken:
            port["nodePort"] = number


def _given(thing: Object) -> Given:
    return {name: frozenset(thing["metadata"].get(name) or ()) for name in ("labels", "annotations")}


_FILLED_IN = frozenset({"healthCheckNodePort", "clusterIP", "clusterIPs", "podCIDR", "nodeName"})

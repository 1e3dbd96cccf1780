"""Which pods a Service chooses, and which Services a pod's change concerns; neither by a look at all of them."""

from __future__ import annotations

from collections.abc import Sequence

from topo.cluster.index import Index
from topo.cluster.labels import matches_labels
from topo.cluster.store import Key, Object, Store, key_of


def pods_behind(store: Store, service: Object) -> Sequence[Object]:
    """The pods whose labels the Service's selector chooses; none of a Service without one."""
    selector = service["spec"].get("selector")
    return store.labelled("Pod", service["metadata"]["namespace"], selector) if selector else ()


class Selections:
    """Services by their selectors, and which of them chose each pod when it was last seen."""

    def __init__(self) -> None:
        # By one label that a pod must have to be chosen.
        self._services: Index[Key] = Index()
        self._selectors: dict[Key, Object] = {}
        self._last: dict[Key, dict[Key, None]] = {}

    def note_service(self, service: Object, gone: bool) -> None:
        """It is, or is not any more. Who calls looks at a Service itself again when that changes."""
        key, selector = key_of(service), service["spec"].get("selector")
        if gone or not selector:
            self._services.take(key)
            self._selectors.pop(key, None)
        else:
            self._services.put(key, [(key[1], *next(iter(selector.items())))])
            self._selectors[key] = selector

    def note_pod(self, pod: Object, gone: bool) -> dict[Key, None]:
        """The Services to look at again: those that choose it now, and those that did before."""
        key, labels = key_of(pod), pod["metadata"].get("labels") or {}
        found = (one for label in labels.items() for one in self._services.find([(key[1], *label)]))
        now = {one: None for one in found if matches_labels(self._selectors[one], labels)}
        before = self._last.pop(key, {})
        if not gone:
            self._last[key] = now
        return before | now

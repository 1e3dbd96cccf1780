"""Events: what the cluster has to say about an object, kept in the store as Kubernetes keeps them."""

from __future__ import annotations

from contextlib import suppress
from zlib import crc32

from topo.cluster.store import Conflict, NotFound, Object, Store, key_of, kind_of

# Older ones are forgotten, so that a lab that runs for days does not grow. Kubernetes forgets them by age
# (kube-apiserver(1), --event-ttl).
MOST = 1000


def record(store: Store, about: Object, reason: str, message: str, kind: str = "Warning") -> None:
    """Note an event once; the same words about the same object count up."""
    meta = about["metadata"]
    namespace = meta.get("namespace", "default")
    digest = crc32((kind_of(about) + reason + message).encode())
    name = f"{meta['name']}.{digest:08x}"
    try:
        store.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": {"kind": kind_of(about), "name": meta["name"], "namespace": namespace},
                "reason": reason,
                "message": message,
                "type": kind,
                "count": 1,
            }
        )
        for old in store.list("Event")[:-MOST]:
            with suppress(NotFound):
                store.delete(*key_of(old))
    except Conflict:
        store.update("Event", namespace, name, lambda e: e.update(count=e["count"] + 1))

"""Events: what the cluster has to say about an object, kept in the store as Kubernetes keeps them."""

from __future__ import annotations

from zlib import crc32

from topo.cluster.store import Conflict, Object, Store, kind_of


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
    except Conflict:
        store.update("Event", namespace, name, lambda e: e.update(count=e["count"] + 1))

"""What a lab waits for, and that looking for it in a large lab does not take a look at every pod for every workload."""

from __future__ import annotations

import random
from ipaddress import IPv4Network
from typing import Any

import pytest

from topo import waiting
from topo.cluster.ipam import service_pool
from topo.cluster.store import Object, Store
from topo.control import endpoints
from topo.control.children import is_over
from topo.control.loop import ControlLoop
from topo.control.workloads import is_ready

COUNT = 30
READY = [{"type": "Ready", "status": "True"}]


def thing(kind: str, name: str, owner: Object | None = None, **more: Any) -> Object:
    meta: Object = {"name": name, "namespace": "default"}
    if owner is not None:
        meta["ownerReferences"] = [
            {"kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
        ]
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, **more}


def pod(name: str, owner: Object, ready: bool) -> Object:
    state = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    return thing("Pod", name, owner, spec={"nodeName": "n"}, status=state)


def filled(store: Store, ready: bool = True) -> None:
    """So many Deployments of two pods each."""
    for n in range(COUNT):
        deployment = store.create(thing("Deployment", f"d-{n}", spec={"replicas": 2}))
        replicas = store.create(thing("ReplicaSet", f"d-{n}-x", deployment, spec={"replicas": 2}))
        for m in range(2):
            store.create(pod(f"d-{n}-x-{m}", replicas, ready or n != 7 or m != 1))


def test_a_deployment_has_the_pods_of_its_replica_sets() -> None:
    store = Store()
    filled(store)
    assert waiting.waiting_for(store) == []


def test_whoever_lacks_a_pod_is_named_and_so_is_the_pod() -> None:
    store = Store()
    filled(store, ready=False)
    assert waiting.waiting_for(store) == [
        "Deployment d-7 has 1 of 2 pods ready",
        "ReplicaSet d-7-x has 1 of 2 pods ready",
        "pod d-7-x-1 is Running, not ready",
    ]


def test_every_pod_is_looked_at_a_few_times_however_many_workloads_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    store, looked = Store(), []
    filled(store)

    def look(one: Object) -> bool:
        looked.append(one)
        return is_ready(one)

    monkeypatch.setattr(waiting, "is_ready", look)
    assert waiting.waiting_for(store) == []
    assert len(looked) <= 2 * 2 * COUNT


def test_the_control_loop_lists_pods_once_for_all_workloads_of_a_batch() -> None:
    class Counting(Store):
        listed = 0

        def list(self, kind: str, namespace: str | None = None) -> list[Object]:
            self.listed += kind == "Pod"
            return super().list(kind, namespace)

    store = Counting()
    loop = ControlLoop(store, service_pool(IPv4Network("10.96.0.0/16")), random.Random(1))
    filled(store)
    batch = loop._watch.batch(0)
    assert batch is not None
    store.listed = 0
    loop.reconcile(batch)
    assert store.listed <= 3


def test_a_services_pods_are_found_without_a_look_at_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    store, looked = Store(), []
    for n in range(COUNT):
        one = thing("Pod", f"p-{n}", spec={"nodeName": "n"}, status={"podIP": f"10.0.0.{n}", "conditions": READY})
        one["metadata"]["labels"] = {"app": f"a-{n}", "tier": "web"}
        store.create(one)
        store.create(thing("Service", f"a-{n}", spec={"selector": {"tier": "web", "app": f"a-{n}"}, "ports": []}))

    def look(one: Object) -> bool:
        looked.append(one)
        return is_over(one)

    monkeypatch.setattr(endpoints, "is_over", look)
    assert len(waiting.waiting_for(store)) == COUNT
    assert len(looked) == COUNT


def test_pods_that_are_not_ready_are_known_by_what_happens_to_them() -> None:
    store = Store()
    filled(store, ready=False)
    things, _, watch = store.watch()
    unready = waiting.UnreadyPods(things)
    assert unready.sentences() == ["pod d-7-x-1 is Running, not ready"]
    owner = store.list("ReplicaSet")[0]
    store.create(pod("late", owner, False))
    store.update("Pod", "default", "d-7-x-1", lambda one: one["status"].update(conditions=READY))
    store.create(thing("Pod", "lost", owner, spec={}))
    unready.follow(watch.batch(0) or ())
    assert unready.sentences() == ["pod late is Running, not ready", "pod lost is not scheduled"]
    store.delete("Pod", "default", "lost")
    store.update("Pod", "default", "late", lambda one: one["status"].update(conditions=READY))
    unready.follow(watch.batch(0) or ())
    assert unready.sentences() == []

"""The control loop, driven event by event: what it makes of a store, and that only the final objects matter."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topo.cluster.ipam import AddressPool, service_pool
from topo.cluster.labels import matches_labels
from topo.cluster.store import Object, Store, Watch, key_of
from topo.control import endpoints, selections
from topo.control.children import is_over
from topo.control.endpoints import SERVICE_NAME
from topo.control.loop import ControlLoop
from topo.control.workloads import is_ending, is_ready, owned

NETWORK = IPv4Network("10.96.0.0/16")
NODES = ("n1", "n2", "n3")


def node(name: str, **labels: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def workload(kind: str, name: str = "web", replicas: int = 1, image: str = "v1", **spec: Any) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    size = {"DaemonSet": {}, "Job": {"parallelism": replicas}}.get(kind, {"replicas": replicas})
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **size, **spec},
    }


def service(name: str = "web", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": 80}], "selector": {"app": name}, **spec},
    }


def pod(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "i"}], **spec},
    }


class Cluster:
    """A store, its control loop and a kubelet, each of which acts when it is told."""

    def __init__(self, *nodes: str, pool: AddressPool | None = None) -> None:
        self.store = Store()
        self.pool = service_pool(NETWORK) if pool is None else pool
        self.loop = ControlLoop(self.store, self.pool, random.Random(7))
        self.watch: Watch = self.loop._watch
        self._next = int(IPv4Address("10.244.0.1"))
        for name in nodes:
            self.store.create(node(name))

    def reconcile(self) -> None:
        """Until no events are left."""
        for _ in range(500):
            batch = self.watch.batch(0)
            if not batch:
                return
            self.loop.reconcile(batch)
        raise AssertionError("the loop keeps making events")

    def kubelet(self) -> bool:
        """On its node a pod that is asked to go does, and any other runs and is ready. False if there is none such."""
        acted = False
        for one in (p for p in self.store.list("Pod") if "nodeName" in p["spec"]):
            if is_ending(one):
                self.store.delete(*key_of(one))
                acted = True
            elif not is_ready(one):
                self._next += 1
                self.store.update(*key_of(one), running(str(IPv4Address(self._next))))
                acted = True
        return acted

    def settle(self) -> None:
        """Until nobody has anything to do."""
        self.reconcile()
        for _ in range(100):
            if not self.kubelet():
                return
            self.reconcile()
        raise AssertionError("does not settle")

    def apply(self, *things: Object) -> None:
        for thing in things:
            self.store.apply(thing)

    def delete(self, kind: str, name: str) -> None:
        self.store.delete(kind, "" if kind == "Node" else "default", name)

    @property
    def pods(self) -> list[Object]:
        return self.store.list("Pod")

    def get(self, kind: str, name: str) -> Object:
        found = self.store.get(kind, "" if kind == "Node" else "default", name)
        assert found is not None, f"{kind} {name} is not there"
        return found

    def address(self, name: str) -> str:
        return str(self.get("Service", name)["spec"].get("clusterIP", ""))

    def endpoints(self, name: str) -> list[str]:
        """Ready addresses of a Service."""
        slices = [s for s in self.store.list("EndpointSlice") if s["metadata"]["labels"][SERVICE_NAME] == name]
        return sorted(e["addresses"][0] for s in slices for e in s["endpoints"] if e["conditions"]["ready"])

    def events(self, reason: str) -> list[str]:
        return [e["message"] for e in self.store.list("Event") if e["reason"] == reason]


def running(address: str) -> Callable[[Object], None]:
    status = {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]}
    return lambda one: one.update(status=status)


def ready(value: bool) -> Callable[[Object], None]:
    return lambda one: one["status"].update(conditions=[{"type": "Ready", "status": "True" if value else "False"}])


def images(cluster: Cluster) -> list[str]:
    return [p["spec"]["containers"][0]["image"] for p in cluster.pods]


# From objects to pods, addresses and endpoints


def test_a_pods_change_costs_no_look_at_other_services_and_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, names = Cluster(*NODES), [f"app-{n}" for n in range(20)]
    cluster.apply(*(workload("Deployment", name, replicas=2) for name in names), *map(service, names))
    cluster.settle()
    looked: list[Object] = []

    def noted(thing: Object) -> bool:
        looked.append(thing)
        return is_over(thing)

    def chosen(selector: Object, labels: Object) -> bool:
        looked.append(selector)
        return matches_labels(selector, labels)

    monkeypatch.setattr(endpoints, "is_over", noted)
    monkeypatch.setattr(selections, "matches_labels", chosen)
    cluster.store.update(*key_of(cluster.pods[0]), ready(False))
    cluster.reconcile()
    assert len(cluster.endpoints("app-0")) == 1
    # Its Service is matched, and both of the Service's pods are looked at.
    assert len(looked) == 3


def test_a_deployment_and_a_service_become_pods_on_nodes_an_address_and_endpoints() -> None:
    cluster = Cluster(*NODES)
    cluster.apply(workload("Deployment", replicas=6), service())
    cluster.settle()
    assert Counter(p["spec"]["nodeName"] for p in cluster.pods) == {"n1": 2, "n2": 2, "n3": 2}
    assert cluster.address("web") == "10.96.1.0"
    assert cluster.get("Service", "web")["spec"]["clusterIPs"] == ["10.96.1.0"]
    assert cluster.endpoints("web") == sorted(p["status"]["podIP"] for p in cluster.pods)
    assert len(cluster.endpoints("web")) == 6


@pytest.mark.parametrize("first", ["Service", "Deployment", "Node"])
def test_the_order_of_objects_does_not_matter(first: str) -> None:
    cluster = Cluster()
    things = [workload("Deployment", replicas=2), service(), node("n1")]
    for thing in sorted(things, key=lambda t: t["kind"] != first):
        cluster.apply(thing)
        cluster.settle()
    assert len(cluster.endpoints("web")) == 2


def test_deleting_a_deployment_removes_its_replica_sets_pods_and_endpoints() -> None:
    cluster = Cluster(*NODES)
    cluster.apply(workload("Deployment", replicas=3), service(), workload("Deployment", "other"))
    cluster.settle()
    cluster.delete("Deployment", "web")
    cluster.settle()
    assert [p["metadata"]["labels"]["app"] for p in cluster.pods] == ["other"]
    assert [s["metadata"]["labels"]["app"] for s in cluster.store.list("ReplicaSet")] == ["other"]
    assert cluster.endpoints("web") == []


def test_a_deployment_deleted_before_it_was_looked_at_leaves_nothing() -> None:
    cluster = Cluster(*NODES)
    cluster.apply(workload("Deployment"), service())
    cluster.delete("Deployment", "web")
    cluster.delete("Service", "web")
    cluster.settle()
    assert {t["kind"] for t in cluster.store} == {"Node"}
    assert len(cluster.pool) == 0


@pytest.mark.parametrize("kind", ["ReplicaSet", "StatefulSet", "DaemonSet", "Job"])
def test_deleting_a_workload_removes_its_pods(kind: str) -> None:
    cluster = Cluster(*NODES)
    cluster.apply(workload(kind, replicas=2))
    cluster.settle()
    assert cluster.pods
    cluster.delete(kind, "web")
    cluster.settle()
    assert cluster.pods == []


def test_a_running_pod_of_a_deleted_workload_ends_gracefully_and_a_waiting_one_at_once() -> None:
    cluster = Cluster("n1")
    cluster.apply(workload("ReplicaSet"), pod("web-waits", nodeSelector={"disk": "ssd"}))
    cluster.settle()
    mine = cluster.get("ReplicaSet", "web")
    reference = {"kind": "ReplicaSet", "name": "web", "uid": mine["metadata"]["uid"]}
    cluster.store.update("Pod", "default", "web-waits", lambda p: p["metadata"].update(ownerReferences=[reference]))
    cluster.delete("ReplicaSet", "web")
    cluster.reconcile()
    (left,) = cluster.pods
    assert is_ending(left)
    assert left["spec"]["nodeName"] == "n1"


def test_a_deleted_replica_set_of_a_deployment_comes_back() -> None:
    cluster = Cluster("n1")
    cluster.apply(workload("Deployment", replicas=2))
    cluster.settle()
    (old,) = cluster.store.list("ReplicaSet")
    cluster.store.delete(*key_of(old))
    cluster.settle()
    (new,) = cluster.store.list("ReplicaSet")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert len(owned(new, cluster.pods)) == len(cluster.pods) == 2


def test_a_deployment_deleted_and_made_again_at_once_has_new_pods_only() -> None:
    cluster = Cluster("n1")
    cluster.apply(workload("Deployment", replicas=2))
    cluster.settle()
    before = {p["metadata"]["uid"] for p in cluster.pods}
    cluster.delete("Deployment", "web")
    cluster.apply(workload("Deployment", replicas=2))
    cluster.settle()
    assert len(cluster.pods) == 2
    assert before.isdisjoint(p["metadata"]["uid"] for p in cluster.pods)


def test_a_roll_goes_all_the_way_and_keeps_the_endpoints() -> None:
    cluster = Cluster(*NODES)
    cluster.apply(workload("Deployment", replicas=4), service())
    cluster.settle()
    cluster.apply(workload("Deployment", replicas=4, image="v2"))
    cluster.reconcile()
    assert len(cluster.endpoints("web")) == 3  # a quarter less, and a quarter more on their way
    while cluster.kubelet():
        cluster.reconcile()
        assert len(cluster.endpoints("web")) >= 3
    assert images(cluster) == ["v2"] * 4
    assert len(cluster.store.list("ReplicaSet")) == 1


# Nodes


def test_the_pods_of_a_deleted_node_are_replaced_on_the_others() -> None:
    cluster = Cluster(*NODES)
    cluster.apply(workload("Deployment", replicas=6), service())
    cluster.settle()
    cluster.delete("Node", "n2")
    cluster.settle()
    assert Counter(p["spec"]["nodeName"] for p in cluster.pods) == {"n1": 3, "n3": 3}
    assert len(cluster.endpoints("web")) == 6


def test_a_stateful_pod_of_a_deleted_node_comes_back_under_its_name() -> None:
    cluster = Cluster("n1")
    cluster.apply(workload("StatefulSet", replicas=2))
    cluster.settle()
    cluster.apply(node("n2"))
    cluster.delete("Node", "n1")
    cluster.settle()
    assert [(p["metadata"]["name"], p["spec"]["nodeName"]) for p in cluster.pods] == [("web-0", "n2"), ("web-1", "n2")]


def test_pods_that_fit_no_node_wait_for_one_and_say_why() -> None:
    cluster = Cluster("n1")
    cluster.store.update("Node", "", "n1", lambda n: n["spec"].update(unschedulable=True))
    cluster.apply(pod("a"))
    cluster.settle()
    assert "nodeName" not in cluster.get("Pod", "a")["spec"]
    assert cluster.events("FailedScheduling") == ["0/1 nodes are available: 1 node(s) were unschedulable"]
    cluster.store.update("Node", "", "n1", lambda n: n["spec"].update(unschedulable=False))
    cluster.settle()
    assert cluster.get("Pod", "a")["spec"]["nodeName"] == "n1"


def test_the_last_node_takes_its_pods_with_it_and_a_new_one_gets_them_again() -> None:
    cluster = Cluster("n1")
    cluster.apply(workload("Deployment", replicas=2), workload("DaemonSet", "agent"), service())
    cluster.settle()
    cluster.delete("Node", "n1")
    cluster.settle()
    assert [p["spec"].get("nodeName") for p in cluster.pods] == [None, None]
    assert cluster.endpoints("web") == []
    cluster.apply(node("n9"))
    cluster.settle()
    assert [p["spec"].get("nodeName") for p in cluster.pods] == ["n9"] * 3


def test_a_daemon_set_follows_nodes_that_join_and_leave() -> None:
    cluster = Cluster("n1", "n2")
    cluster.apply(workload("DaemonSet"))
    cluster.settle()
    cluster.apply(node("n3"))
    cluster.delete("Node", "n1")
    cluster.settle()
    assert sorted(p["spec"]["nodeName"] for p in cluster.pods) == ["n2", "n3"]


def test_the_load_counts_pods_of_all_namespaces() -> None:
    cluster = Cluster("n1", "n2")
    elsewhere = pod("a", nodeName="n1")
    elsewhere["metadata"]["namespace"] = "other"
    cluster.apply(elsewhere, pod("b"))
    cluster.settle()
    assert cluster.get("Pod", "b")["spec"]["nodeName"] == "n2"


# Services


def test_readiness_moves_endpoints_in_and_out() -> None:
    cluster = Cluster("n1")
    cluster.apply(workload("Deployment", replicas=2), service())
    cluster.settle()
    one = cluster.pods[0]
    cluster.store.update(*key_of(one), ready(False))
    cluster.reconcile()
    assert cluster.endpoints("web") == [cluster.pods[1]["status"]["podIP"]]
    cluster.store.update(*key_of(one), ready(True))
    cluster.reconcile()
    assert len(cluster.endpoints("web")) == 2


def test_a_change_of_the_selector_moves_the_endpoints() -> None:
    cluster = Cluster("n1")
    cluster.apply(pod("a"), pod("b"), service("web", selector={"app": "a"}))
    cluster.settle()
    assert cluster.endpoints("web") == [cluster.get("Pod", "a")["status"]["podIP"]]
    cluster.apply(service("web", selector={"app": "b"}))
    cluster.settle()
    assert cluster.endpoints("web") == [cluster.get("Pod", "b")["status"]["podIP"]]


def test_a_relabelled_pod_leaves_the_endpoints() -> None:
    cluster = Cluster("n1")
    cluster.apply(pod("web"), service())
    cluster.settle()
    cluster.store.update("Pod", "default", "web", lambda p: p["metadata"].update(labels={"app": "none"}))
    cluster.settle()
    assert cluster.endpoints("web") == []


def test_a_deleted_service_takes_its_slices_along_and_gives_its_address_back() -> None:
    cluster = Cluster("n1")
    cluster.apply(pod("web"), service())
    cluster.settle()
    assert len(cluster.pool) == 1
    cluster.delete("Service", "web")
    cluster.settle()
    assert cluster.store.list("EndpointSlice") == []
    assert len(cluster.pool) == 0


def test_slices_that_shrink_are_removed() -> None:
    cluster = Cluster("n1")
    cluster.apply(workload("ReplicaSet", replicas=101), service())
    cluster.settle()
    assert len(cluster.store.list("EndpointSlice")) == 2
    cluster.apply(workload("ReplicaSet", replicas=100))
    cluster.settle()
    assert [len(s["endpoints"]) for s in cluster.store.list("EndpointSlice")] == [100]


def test_a_chosen_address_is_kept_and_not_given_to_others() -> None:
    cluster = Cluster()
    cluster.apply(service("chosen", clusterIP="10.96.1.0"))
    cluster.settle()
    cluster.apply(service("a"), service("b"))
    cluster.settle()
    assert cluster.address("chosen") == "10.96.1.0"
    assert {cluster.address("a"), cluster.address("b")} == {"10.96.1.1", "10.96.1.2"}


def test_headless_and_external_name_services_get_no_address() -> None:
    cluster = Cluster()
    cluster.apply(service("a", clusterIP="None"), service("b", type="ExternalName", externalName="example.org"))
    cluster.settle()
    assert (cluster.address("a"), cluster.address("b")) == ("None", "")
    assert len(cluster.pool) == 0


def test_a_service_without_selector_gets_an_address_and_keeps_the_slices_of_its_owner() -> None:
    cluster = Cluster("n1")
    manual = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-mine", "namespace": "default", "labels": {SERVICE_NAME: "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": True}}],
    }
    made = service()
    del made["spec"]["selector"]
    cluster.apply(made, manual, pod("web"))
    cluster.settle()
    assert cluster.address("web") == "10.96.1.0"
    assert cluster.endpoints("web") == ["192.0.2.1"]


def test_without_a_free_address_a_service_says_so() -> None:
    cluster = Cluster(pool=AddressPool(IPv4Network("10.96.0.0/30")))
    for name in ("a", "b", "c"):
        cluster.apply(service(name))
        cluster.settle()
    assert cluster.address("c") == ""
    assert cluster.events("AllocationFailed") == ["10.96.0.0/30 has no free address: 2 in use"]


def test_a_settled_cluster_makes_no_more_events() -> None:
    cluster = Cluster(*NODES)
    cluster.apply(workload("Deployment", replicas=3), workload("StatefulSet", "db", 2), service())
    cluster.settle()
    before = cluster.store.revision
    for kind in ("Deployment", "StatefulSet", "ReplicaSet", "Service", "Pod", "Node"):
        for thing in cluster.store.list(kind):
            cluster.store.update(*key_of(thing), lambda t: t["metadata"].setdefault("annotations", {}).update(x="1"))
    touched = cluster.store.revision
    assert touched > before
    cluster.settle()
    assert cluster.store.revision == touched


def test_what_fails_for_one_object_does_not_stop_the_others() -> None:
    cluster = Cluster("n1")
    cluster.apply(service("bad", clusterIP="no address"), workload("ReplicaSet"), service())
    cluster.settle()
    assert cluster.address("web").startswith("10.96.1.")
    assert len(cluster.endpoints("web")) == 1


def test_a_starved_service_gets_what_another_one_gives_back_without_going() -> None:
    cluster = Cluster(pool=AddressPool(IPv4Network("10.96.0.0/30")))
    for name in ("a", "b", "c"):
        cluster.apply(service(name))
        cluster.settle()
    cluster.apply(service("b", type="ExternalName", externalName="example.org"))
    cluster.settle()
    assert cluster.address("c") == "10.96.0.2"


def test_endpoints_tell_the_zone_of_their_node_also_when_it_changes() -> None:
    cluster = Cluster("n1")
    cluster.apply(pod("web"), service(trafficDistribution="PreferClose"))
    cluster.settle()
    for zone in ("a", "b"):
        label = {"topology.kubernetes.io/zone": zone}
        cluster.store.update("Node", "", "n1", lambda n, label=label: n["metadata"].update(labels=label))  # type: ignore[misc]
        cluster.reconcile()
        (one,) = cluster.store.list("EndpointSlice")
        assert one["endpoints"][0]["zone"] == zone
        assert one["endpoints"][0]["hints"] == {"forZones": [{"name": zone}]}


def test_an_endpoint_that_moves_to_another_slice_is_never_in_none() -> None:
    cluster = Cluster("n1")
    cluster.apply(workload("ReplicaSet", replicas=150), service())
    cluster.settle()
    _, _, watch = cluster.store.watch()
    slices = {s["metadata"]["name"]: s for s in cluster.store.list("EndpointSlice")}
    first = min(cluster.pods, key=lambda p: str(p["metadata"]["name"]))
    cluster.store.mark_deleted(*key_of(first))
    cluster.settle()
    there = {e["addresses"][0] for s in slices.values() for e in s["endpoints"]} - {first["status"]["podIP"]}
    for event in watch.batch(0) or ():
        if event.object["kind"] == "EndpointSlice":
            slices[event.object["metadata"]["name"]] = event.object
            assert there <= {e["addresses"][0] for s in slices.values() for e in s["endpoints"]}


def test_a_deployment_goes_on_when_a_pod_has_been_ready_for_long_enough() -> None:
    cluster = Cluster("n1")
    cluster.apply(workload("Deployment", minReadySeconds=1))
    cluster.settle()
    now = cluster.store.now().isoformat(timespec="seconds")
    since = [{"type": "Ready", "status": "True", "lastTransitionTime": now}]
    cluster.store.update(*key_of(cluster.pods[0]), lambda p: p["status"].update(conditions=since))
    cluster.reconcile()
    assert ("Deployment", "default", "web") in cluster.loop._due
    cluster.loop.start()
    deadline = time.monotonic() + 5
    while cluster.loop._due:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    cluster.watch.close()


def test_the_thread_ends_with_its_watch_and_a_failing_object_does_not_end_it() -> None:
    cluster = Cluster("n1")
    cluster.apply(pod("db-0"), workload("StatefulSet", "db"))  # the name is taken
    cluster.loop.start()
    listed, _, watch = cluster.store.watch()
    cluster.apply(workload("ReplicaSet"))
    placed = any(t["spec"].get("nodeName") for t in listed if t["metadata"]["name"].startswith("web-"))
    while not placed:
        batch = watch.batch(5)
        assert batch, "the loop does not work on"
        placed = any(
            e.object["metadata"]["name"].startswith("web-") and e.object["spec"].get("nodeName") for e in batch
        )
    cluster.watch.close()
    cluster.loop._thread.join(5)
    assert not cluster.loop._thread.is_alive()


# What the loop gets wrong


def test_no_two_services_have_one_address() -> None:
    cluster = Cluster()
    cluster.apply(service("automatic"))
    cluster.settle()
    cluster.apply(service("chosen", clusterIP="10.96.1.0"))
    cluster.settle()
    assert cluster.address("automatic") != cluster.address("chosen")


def test_a_service_that_found_no_address_gets_the_next_one_that_is_given_back() -> None:
    cluster = Cluster(pool=AddressPool(IPv4Network("10.96.0.0/30")))
    for name in ("a", "b", "c"):
        cluster.apply(service(name))
        cluster.settle()
    cluster.delete("Service", "a")
    cluster.settle()
    assert cluster.address("c") == "10.96.0.1"


def test_a_service_that_becomes_an_external_name_gives_its_address_back() -> None:
    cluster = Cluster()
    cluster.apply(service("web"))
    cluster.settle()
    cluster.apply(service("web", type="ExternalName", externalName="example.org"))
    cluster.settle()
    assert cluster.address("web") == ""
    assert len(cluster.pool) == 0


def test_applying_an_empty_cluster_ip_again_keeps_the_address() -> None:
    cluster = Cluster()
    for _ in range(2):
        cluster.apply(service("web", clusterIP=""))
        cluster.settle()
    assert cluster.address("web") == "10.96.1.0"
    assert len(cluster.pool) == 1


def test_a_stateful_set_deleted_and_made_again_at_once_has_new_pods() -> None:
    cluster = Cluster("n1")
    cluster.apply(workload("StatefulSet", "db"))
    cluster.settle()
    cluster.delete("StatefulSet", "db")
    cluster.apply(workload("StatefulSet", "db"))
    cluster.settle()
    assert [p["metadata"]["name"] for p in cluster.pods] == ["db-0"]


def test_a_workload_that_cannot_have_its_pods_does_not_stop_the_others() -> None:
    cluster = Cluster("n1")
    blocked, names = [f"db{i}" for i in range(6)], [f"w{i}" for i in range(20)]
    cluster.apply(*(pod(f"{name}-0") for name in blocked), *(workload("StatefulSet", name) for name in blocked))
    cluster.apply(*(workload("ReplicaSet", name) for name in names))
    for _ in range(20):
        cluster.settle()
    assert {p["metadata"]["labels"]["app"] for p in cluster.pods} == {f"{name}-0" for name in blocked} | {*names}


def test_a_seed_gives_the_same_names_and_addresses_in_every_process() -> None:
    script = (
        "from test_control_loop import Cluster, service, workload\n"
        "cluster = Cluster('n1')\n"
        "for i in range(6):\n"
        "    cluster.apply(workload('ReplicaSet', f'w{i}'), service(f's{i}'))\n"
        "cluster.settle()\n"
        "print([cluster.address(f's{i}') for i in range(6)], sorted(p['metadata']['name'] for p in cluster.pods))\n"
    )
    folder = Path(__file__).parent
    found = set()
    for seed in (1, 2):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": f"{folder}:{folder.parents[1]}"}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_a_deleted_namespace_takes_its_objects_along() -> None:
    cluster = Cluster("n1")
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}, pod("a"), service())
    cluster.settle()
    cluster.store.delete("Namespace", "", "default")
    cluster.settle()
    assert {t["kind"] for t in cluster.store} <= {"Node", "Event"}


# Only the final objects matter


WORKLOAD = st.sampled_from(
    [("Deployment", "a"), ("Deployment", "b"), ("ReplicaSet", "r"), ("StatefulSet", "s"), ("Job", "j")]
)
ACTION = st.one_of(
    st.tuples(st.just("apply"), WORKLOAD, st.integers(0, 4), st.sampled_from(["v1", "v2"])),
    st.tuples(st.just("daemon"), st.booleans()),
    st.tuples(st.just("delete"), WORKLOAD),
    st.tuples(st.just("service"), st.sampled_from("abs"), st.sampled_from("abrs"), st.booleans()),
    st.tuples(st.just("unservice"), st.sampled_from("abs")),
    st.tuples(st.just("kill"), st.integers(0, 30)),
    st.tuples(st.just("node"), st.sampled_from(["n2", "n3"])),
    st.tuples(st.just("loop")),
    st.tuples(st.just("kubelet")),
    st.tuples(st.just("settle")),
)


def act(cluster: Cluster, action: tuple[Any, ...]) -> None:
    """One thing a user, the loop or a kubelet does."""
    store = cluster.store
    match action:
        case "apply", (kind, name), size, image:
            # A ReplicaSet and a Job do not change their pods with their template.
            cluster.apply(workload(kind, name, size, image if kind in ("Deployment", "StatefulSet") else "v1"))
        case "daemon", True:
            cluster.apply(workload("DaemonSet", "d"))
        case "daemon", False:
            remove(cluster, "DaemonSet", "d")
        case "delete", (kind, name):
            remove(cluster, kind, name)
            if kind == "StatefulSet":
                cluster.settle()  # the names must be free before they are used again
        case "service", name, app, publish:
            cluster.apply(service(name, selector={"app": app}, publishNotReadyAddresses=publish))
        case "unservice", name:
            remove(cluster, "Service", name)
        case "kill", number:
            if pods := [p for p in cluster.pods if "nodeName" in p["spec"]]:
                store.mark_deleted(*key_of(pods[number % len(pods)]))
        case "node", name:
            if store.get("Node", "", name):
                cluster.delete("Node", name)
            else:
                cluster.apply(node(name))
        case ("loop",):
            cluster.reconcile()
        case ("kubelet",):
            cluster.kubelet()
        case ("settle",):
            cluster.settle()


def remove(cluster: Cluster, kind: str, name: str) -> None:
    if cluster.store.get(kind, "default", name):
        cluster.delete(kind, name)


def summary(cluster: Cluster) -> dict[str, Any]:
    """The state without names and addresses that may differ."""
    store = cluster.store
    assert all(is_ready(p) and p["spec"]["nodeName"] for p in cluster.pods)
    addresses = [cluster.address(s["metadata"]["name"]) for s in store.list("Service")]
    assert len(set(addresses)) == len(addresses) == len(cluster.pool)
    assert all(IPv4Address(a) in NETWORK for a in addresses)
    return {
        "pods": Counter((p["metadata"]["labels"]["app"], p["spec"]["containers"][0]["image"]) for p in cluster.pods),
        "sets": Counter(
            (s["metadata"]["labels"]["app"], s["spec"]["replicas"])
            for s in store.list("ReplicaSet")
            if "ownerReferences" in s["metadata"]
        ),
        "daemons": sorted(p["spec"]["nodeName"] for p in cluster.pods if p["metadata"]["labels"]["app"] == "d"),
        "stateful": sorted(p["metadata"]["name"] for p in cluster.pods if p["metadata"]["labels"]["app"] == "s"),
        "services": {s["metadata"]["name"]: s["spec"]["selector"] for s in store.list("Service")},
        "endpoints": {
            s["metadata"]["name"]: len(cluster.endpoints(s["metadata"]["name"])) for s in store.list("Service")
        },
        "slices": Counter(s["metadata"]["labels"][SERVICE_NAME] for s in store.list("EndpointSlice")),
    }


@given(st.lists(ACTION, max_size=25))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_ends_as_if_only_the_final_objects_had_been_applied(actions: list[tuple[Any, ...]]) -> None:
    cluster = Cluster("n1")
    for action in actions:
        act(cluster, action)
    cluster.settle()
    fresh = Cluster()
    kinds = ("Node", "Deployment", "StatefulSet", "DaemonSet", "Job", "Service")
    final = [t for kind in kinds for t in cluster.store.list(kind)]
    final += [s for s in cluster.store.list("ReplicaSet") if "ownerReferences" not in s["metadata"]]
    for thing in final:
        applied = {k: v for k, v in thing.items() if k not in ("metadata", "status")}
        meta = {k: v for k, v in thing["metadata"].items() if k in ("name", "namespace", "labels")}
        if thing["kind"] == "Service":
            applied["spec"] = {k: v for k, v in thing["spec"].items() if k not in ("clusterIP", "clusterIPs")}
        fresh.apply({**applied, "metadata": meta})
    fresh.settle()
    assert summary(cluster) == summary(fresh)

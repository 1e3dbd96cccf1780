"""Workloads have the pods that Kubernetes would give them: their plans, carried out step by step on a small model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topo.cluster.store import Object, Store, key_of
from topo.control.rollout import limits
from topo.control.workloads import Plan, is_ending, is_over, is_ready, owned, plan, template_hash


def workload(kind: str, replicas: int | None = None, image: str = "v1", **spec: Any) -> Object:
    """A workload named web."""
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    more = {} if replicas is None else {"parallelism" if kind == "Job" else "replicas": replicas}
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "kind": kind,
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, **more, **spec},
    }


def node(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def set_ready(pod: Object, ready: bool = True) -> None:
    """What a kubelet writes when it runs the pod."""
    pod["spec"].setdefault("nodeName", "n")
    pod["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}


def replicas(wanted: int) -> Callable[[Object], None]:
    """An edit that sets a ReplicaSet's size."""
    return lambda one: one["spec"].update(replicas=wanted)


class World:
    """One workload in a store, its plans carried out when asked, its pods under the test's control."""

    def __init__(self, owner: Object, *nodes: Object) -> None:
        self.store = Store()
        self.key = key_of(self.store.create(owner))
        self.nodes = list(nodes)
        self.now = datetime(2024, 1, 1, tzinfo=UTC)
        self._names = count()

    @property
    def pods(self) -> list[Object]:
        return self.store.list("Pod")

    @property
    def names(self) -> list[str]:
        """Pods that are not asked to go."""
        return [p["metadata"]["name"] for p in self.pods if not is_ending(p)]

    @property
    def sets(self) -> list[Object]:
        return self.store.list("ReplicaSet")

    def apply(self, owner: Object) -> None:
        self.store.apply(owner)

    def edit(self, pod: Object, change: Callable[[Object], None]) -> None:
        self.store.update(*key_of(pod), change)

    def plan(self, key: tuple[str, str, str] | None = None) -> Plan:
        """What the workload wants done now."""
        owner = self.store.get(*(key or self.key))
        assert owner is not None
        children = owned(owner, self.sets + self.store.list("ControllerRevision") + self.pods)
        if owner["kind"] == "Deployment":
            children += [p for s in children for p in owned(s, self.pods)]
        return plan(owner, children, self.nodes, lambda: f"x{next(self._names):04}", self.now)

    def step(self) -> bool:
        """Carry out one plan of each: the workload, then its ReplicaSets. False if nothing was to be done."""
        acted = False
        for key in [self.key, *(key_of(s) for s in self.sets)]:
            if self.store.get(*key) is None:
                continue
            todo = self.plan(key)
            acted = acted or todo != Plan()
            for thing in todo.create:
                self.store.create(thing)
            for thing in todo.delete:
                if thing["kind"] == "Pod" and "nodeName" in thing["spec"]:
                    self.store.mark_deleted(*key_of(thing))
                else:
                    self.store.delete(*key_of(thing))
            for name, wanted in todo.scale.items():
                self.store.update("ReplicaSet", "shop", name, replicas(wanted))
        return acted

    def end_pods(self) -> bool:
        """The kubelet's part: pods that are asked to go do."""
        ending = [p for p in self.pods if is_ending(p)]
        for pod in ending:
            self.store.delete(*key_of(pod))
        return bool(ending)

    def start_pods(self) -> bool:
        """The kubelet's part: pods that are not ready become so."""
        waiting = [p for p in self.pods if not is_ready(p) and not is_ending(p)]
        for pod in waiting:
            self.edit(pod, set_ready)
        return bool(waiting)

    def settle(self) -> None:
        """Until nobody has anything to do."""
        for _ in range(200):
            if not any([self.step(), self.end_pods(), self.start_pods()]):
                return
        raise AssertionError(f"does not settle: {self.names}")

    def ready(self) -> int:
        return sum(is_ready(p) and not is_ending(p) for p in self.pods)

    def images(self) -> list[str]:
        return [image(p) for p in self.pods if not is_ending(p)]


def image(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])


# Deployment


def test_a_deployment_makes_a_replica_set_that_makes_its_pods() -> None:
    world = World(workload("Deployment", 3))
    world.settle()
    (made,) = world.sets
    digest = template_hash(workload("Deployment")["spec"]["template"])
    assert made["metadata"]["name"] == f"web-{digest}"
    assert made["spec"]["replicas"] == 3
    assert made["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}
    for pod in world.pods:
        assert pod["metadata"]["labels"] == {"app": "web", "pod-template-hash": digest}
        assert pod["metadata"]["name"].startswith(f"web-{digest}-")
        assert pod["metadata"]["namespace"] == "shop"
    assert len(world.pods) == 3


def test_children_name_their_owner_as_controller() -> None:
    world = World(workload("Deployment", 1))
    world.settle()
    deployment = world.store.get(*world.key)
    (made,), (pod,) = world.sets, world.pods
    assert deployment is not None
    for child, owner in ((made, deployment), (pod, made)):
        (reference,) = child["metadata"]["ownerReferences"]
        assert reference == {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "controller": True,
        }


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "Job"])
def test_one_replica_is_the_default(kind: str) -> None:
    world = World(workload(kind))
    world.settle()
    assert len(world.names) == 1


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "Job"])
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4))
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_scaling_ends_at_the_wanted_number_of_ready_pods(kind: str, sizes: list[int]) -> None:
    world = World(workload(kind, sizes[0]))
    for size in sizes:
        world.apply(workload(kind, size))
        world.settle()
        assert world.ready() == len(world.pods) == size


def test_scaling_keeps_the_pods_that_stay() -> None:
    world = World(workload("Deployment", 2))
    world.settle()
    before = set(world.names)
    world.apply(workload("Deployment", 4))
    world.settle()
    assert before < set(world.names)
    world.apply(workload("Deployment", 2))
    world.settle()
    assert before == set(world.names)  # the youngest go first


def test_a_deployment_that_is_as_it_should_be_wants_nothing() -> None:
    world = World(workload("Deployment", 2))
    world.settle()
    assert world.plan() == Plan()


def test_a_new_template_is_rolled_out_and_the_old_replica_set_removed() -> None:
    world = World(workload("Deployment", 3))
    world.settle()
    world.apply(workload("Deployment", 3, image="v2"))
    world.settle()
    assert world.images() == ["v2"] * 3
    assert [s["spec"]["replicas"] for s in world.sets] == [3]


@pytest.mark.parametrize(
    ("rolling", "wanted", "expected"),
    [
        ({}, 4, (1, 1)),
        ({}, 3, (1, 0)),  # a quarter of three: one more, none less
        ({}, 10, (3, 2)),
        ({"maxSurge": 2, "maxUnavailable": "50%"}, 5, (2, 2)),
        ({"maxSurge": 0, "maxUnavailable": 0}, 3, (0, 1)),
        ({"maxSurge": "0%", "maxUnavailable": "10%"}, 3, (0, 1)),
    ],
)
def test_a_roll_may_have_so_many_pods_more_and_so_many_less(
    rolling: Object, wanted: int, expected: tuple[int, int]
) -> None:
    assert limits(rolling, wanted) == expected


def test_old_pods_stay_until_new_ones_are_ready_one_for_one() -> None:
    world = World(workload("Deployment", 3))
    world.settle()
    world.apply(workload("Deployment", 3, image="v2"))
    for old in (3, 2, 1):
        while world.step() or world.end_pods():
            pass
        assert sorted(world.images()) == ["v1"] * old + ["v2"] * (4 - old)
        fresh = next(p for p in world.pods if not is_ready(p))
        world.edit(fresh, set_ready)
    world.settle()
    assert world.images() == ["v2"] * 3


def test_recreating_makes_new_pods_when_the_last_old_one_is_gone() -> None:
    again = {"strategy": {"type": "Recreate"}}
    world = World(workload("Deployment", 3, **again))
    world.settle()
    world.apply(workload("Deployment", 3, image="v2", **again))
    while world.step():
        pass
    assert world.images() == []
    assert len(world.pods) == 3
    world.end_pods()
    world.settle()
    assert world.images() == ["v2"] * 3
    assert len(world.sets) == 1


def test_a_paused_deployment_is_scaled_but_not_rolled() -> None:
    world = World(workload("Deployment", 2))
    world.settle()
    world.apply(workload("Deployment", 4, image="v2", paused=True))
    world.settle()
    assert world.images() == ["v1"] * 4
    world.apply(workload("Deployment", 1, image="v2", paused=True))
    world.settle()
    assert world.images() == ["v1"]


def test_a_pod_counts_only_after_it_has_been_ready_for_so_many_seconds() -> None:
    world = World(workload("Deployment", 1))
    world.settle()
    world.apply(workload("Deployment", 1, image="v2", minReadySeconds=10))
    while world.step():
        pass
    fresh = next(p for p in world.pods if not is_ready(p))
    world.edit(fresh, set_ready)
    since = {"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}
    world.edit(fresh, lambda p: p["status"].update(conditions=[since]))
    world.now += timedelta(seconds=4)
    assert world.plan() == Plan(again=6)
    assert sorted(world.images()) == ["v1", "v2"]
    world.now += timedelta(seconds=6)
    world.settle()
    assert world.images() == ["v2"]


def test_a_template_that_never_becomes_ready_leaves_the_old_pods_alone() -> None:
    world = World(workload("Deployment", 2))
    world.settle()
    world.apply(workload("Deployment", 2, image="broken"))
    while world.step() or world.end_pods():
        pass
    assert sorted(world.images()) == ["broken"] + ["v1"] * 2
    world.apply(workload("Deployment", 2))  # and back
    while world.step() or world.end_pods():
        pass
    assert world.images() == ["v1"] * 2
    assert len(world.sets) == 1


def test_a_pod_that_loses_its_readiness_during_a_roll_does_not_bring_old_pods_back() -> None:
    world = World(workload("Deployment", 2))
    world.settle()
    world.apply(workload("Deployment", 2, image="v2"))
    world.settle()
    world.edit(world.pods[0], lambda p: set_ready(p, False))
    assert not world.step()
    assert world.images() == ["v2"] * 2


def test_an_old_replica_set_stays_as_long_as_a_pod_of_it_does() -> None:
    world = World(workload("Deployment", 1))
    world.settle()
    world.apply(workload("Deployment", 1, image="v2"))
    while world.step() or world.start_pods():
        pass
    assert [is_ending(p) for p in world.pods] == [True, False]
    assert len(world.sets) == 2
    world.end_pods()
    while world.step():
        pass
    assert len(world.sets) == 1


def test_a_change_of_the_template_alone_makes_a_new_replica_set() -> None:
    world = World(workload("Deployment", 1))
    world.settle()
    world.apply(workload("Deployment", 1, minReadySeconds=1))
    world.settle()
    assert len(world.sets) == 1
    changed = workload("Deployment", 1)
    changed["spec"]["template"]["metadata"]["annotations"] = {"restarted": "now"}
    before = world.names
    world.apply(changed)
    world.settle()
    assert len(world.sets) == 1
    assert before != world.names
    assert world.pods[0]["metadata"]["annotations"] == {"restarted": "now"}


def test_the_template_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert template_hash({"a": 1, "b": 2}) == template_hash({"b": 2, "a": 1}) != template_hash({"a": 1, "b": 3})


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("plan"), st.just(0)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.just("start"), st.integers(0, 20)),
        st.tuples(st.just("roll"), st.integers(1, 3)),
    ),
    max_size=40,
)


@given(st.integers(1, 4), STEPS)
@settings(max_examples=60, deadline=None)
def test_rolling_keeps_within_its_limits(wanted: int, steps: list[tuple[str, int]]) -> None:
    world = World(workload("Deployment", wanted))
    world.settle()
    image = 1
    for action, number in steps:
        waiting = [p for p in world.pods if not is_ready(p) and not is_ending(p)]
        match action:
            case "plan":
                world.step()
            case "end":
                world.end_pods()
            case "start" if waiting:
                world.edit(waiting[number % len(waiting)], set_ready)
            case "roll":
                image = number
                world.apply(workload("Deployment", wanted, image=f"v{number}"))
        surge, unavailable = limits({}, wanted)
        assert world.ready() >= wanted - unavailable
        assert len(world.names) <= wanted + surge
    world.settle()
    assert world.images() == [f"v{image}"] * wanted
    assert len(world.sets) == 1


def test_scaling_down_in_the_middle_of_a_roll_keeps_a_ready_pod() -> None:
    world = World(workload("Deployment", 3))
    world.step()  # v1 never becomes ready
    world.apply(workload("Deployment", 3, image="v2"))
    for _ in range(2):
        while world.step() or world.end_pods():
            pass
        world.edit(next(p for p in world.pods if image(p) == "v2" and not is_ready(p)), set_ready)
    while world.step() or world.end_pods():
        pass
    assert world.ready() == 2
    world.apply(workload("Deployment", 1, image="v3"))
    while world.step() or world.end_pods():
        pass
    assert world.ready() == 1


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(0, 8)), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_rolling_and_scaling_together_never_lose_more_than_is_allowed(changes: list[tuple[int, int, int]]) -> None:
    world = World(workload("Deployment", changes[0][0]))
    world.settle()
    for wanted, number, steps in changes:
        before = world.ready()
        world.apply(workload("Deployment", wanted, image=f"v{number}"))
        _, unavailable = limits({}, wanted)
        for i in range(steps):
            world.step()
            world.end_pods()
            waiting = [p for p in world.pods if not is_ready(p) and not is_ending(p)]
            if waiting and i % 3 == 2:
                world.edit(waiting[0], set_ready)
            assert world.ready() >= min(before, wanted - unavailable)
    world.settle()
    assert world.images() == [f"v{changes[-1][1]}"] * changes[-1][0]


# ReplicaSet and Job


def test_pods_that_are_asked_to_go_are_replaced_at_once() -> None:
    world = World(workload("ReplicaSet", 2))
    world.settle()
    world.store.mark_deleted(*key_of(world.pods[0]))
    world.step()
    assert len(world.names) == 2
    assert len(world.pods) == 3


def test_a_replica_set_replaces_pods_that_ended_and_a_job_does_not() -> None:
    def after_end(kind: str) -> int:
        world = World(workload(kind, 2))
        world.settle()
        world.edit(world.pods[0], lambda p: p.update(status={"phase": "Succeeded"}))
        world.step()
        return len(world.pods)

    assert after_end("ReplicaSet") == 3
    assert after_end("Job") == 2


def test_surplus_pods_go_unscheduled_first_then_not_ready_then_youngest() -> None:
    world = World(workload("ReplicaSet", 6))
    world.step()
    old, young, waiting, late, oldest, unplaced = world.pods
    for pod in (oldest, old, young):
        world.edit(pod, set_ready)
    for pod in (waiting, late):
        world.edit(pod, lambda p: set_ready(p, False))
    order = []
    for size in range(5, -1, -1):
        world.apply(workload("ReplicaSet", size))
        before = set(world.names)
        world.step()
        (gone,) = before - set(world.names)
        order.append(gone)
    expected = (unplaced, late, waiting, young, old, oldest)
    assert order == [p["metadata"]["name"] for p in expected]


@pytest.mark.parametrize(("completions", "made"), [(None, 2), (2, 2), (3, 3), (4, 4)])
def test_a_job_makes_pods_until_so_many_have_succeeded(completions: int | None, made: int) -> None:
    world = World(workload("Job", 2, **({} if completions is None else {"completions": completions})))
    for _ in range(6):
        world.step()
        for one in [p for p in world.pods if not is_over(p)]:
            world.edit(one, lambda p: p.update(status={"phase": "Succeeded"}))
    assert len(world.pods) == made


def test_a_job_gives_up_after_so_many_failures() -> None:
    world = World(workload("Job", 1, backoffLimit=2))
    for _ in range(6):
        world.step()
        for one in [p for p in world.pods if not is_over(p)]:
            world.edit(one, lambda p: p.update(status={"phase": "Failed"}))
    assert len(world.pods) == 3


def test_pods_of_a_low_deletion_cost_and_of_crowded_nodes_go_first() -> None:
    world = World(workload("ReplicaSet", 4))
    world.step()
    cheap, alone, first, second = world.pods
    for pod, node_name in ((cheap, "a"), (alone, "b"), (first, "c"), (second, "c")):
        world.edit(pod, set_ready)
        world.edit(pod, lambda p, n=node_name: p["spec"].update(nodeName=n))  # type: ignore[misc]
    cost = {"controller.kubernetes.io/pod-deletion-cost": "-1"}
    world.edit(cheap, lambda p: p["metadata"].update(annotations=cost))
    world.apply(workload("ReplicaSet", 2))
    world.step()
    assert world.names == [alone["metadata"]["name"], first["metadata"]["name"]]


def test_a_job_runs_as_many_pods_at_a_time_as_its_parallelism() -> None:
    world = World(workload("Job", 3))
    world.settle()
    assert len(world.names) == 3
    assert world.plan() == Plan()


def test_pods_of_others_are_not_counted() -> None:
    world = World(workload("ReplicaSet", 1))
    stranger = copy.deepcopy(workload("ReplicaSet"))
    stranger["metadata"]["uid"] = "another"
    todo = plan(stranger, [], [], lambda: "aaaaa", world.now)
    world.store.create(todo.create[0])
    world.step()
    assert len(world.pods) == 2


def test_every_pod_has_a_spec_of_its_own() -> None:
    world = World(workload("ReplicaSet", 2))
    first, second = world.plan().create
    first["spec"]["containers"][0]["image"] = "changed"
    assert second["spec"]["containers"][0]["image"] == "v1"
    stored = world.store.get(*world.key)
    assert stored is not None
    assert stored["spec"]["template"]["spec"]["containers"][0]["image"] == "v1"


# StatefulSet


def test_ordered_pods_come_one_after_the_other_each_when_the_one_before_is_ready() -> None:
    world = World(workload("StatefulSet", 3))
    for i in range(3):
        while world.step():
            pass
        assert world.names == [f"web-{n}" for n in range(i + 1)]
        world.start_pods()
    assert not world.step()


def test_parallel_pods_come_and_go_at_once() -> None:
    parallel = {"podManagementPolicy": "Parallel"}
    world = World(workload("StatefulSet", 3, **parallel))
    world.step()
    assert world.names == ["web-0", "web-1", "web-2"]
    world.start_pods()
    world.apply(workload("StatefulSet", 0, **parallel))
    world.step()
    assert world.names == []


def test_ordered_pods_go_from_the_end() -> None:
    world = World(workload("StatefulSet", 12))
    world.settle()
    world.apply(workload("StatefulSet", 0))
    order = []
    while world.names:
        before = set(world.names)
        world.step()
        order += sorted(before - set(world.names))
        world.end_pods()
    assert order == [f"web-{i}" for i in range(11, -1, -1)]


@pytest.mark.parametrize("policy", ["OrderedReady", "Parallel"])
def test_a_lost_pod_comes_back_under_its_name(policy: str) -> None:
    world = World(workload("StatefulSet", 3, podManagementPolicy=policy))
    world.settle()
    old = {p["metadata"]["name"]: p["metadata"]["uid"] for p in world.pods}
    world.store.delete("Pod", "shop", "web-1")
    world.settle()
    new = {p["metadata"]["name"]: p["metadata"]["uid"] for p in world.pods}
    assert sorted(new) == sorted(old)
    assert {name for name in old if old[name] != new[name]} == {"web-1"}


def test_a_pod_that_is_still_going_is_not_made_again_under_its_name() -> None:
    world = World(workload("StatefulSet", 2))
    world.settle()
    world.store.mark_deleted("Pod", "shop", "web-1")
    assert not world.step()
    world.end_pods()
    world.step()
    assert world.names == ["web-0", "web-1"]


def test_pods_of_a_stateful_set_know_their_name_index_and_service() -> None:
    world = World(workload("StatefulSet", 1, serviceName="db"))
    world.settle()
    (pod,) = world.pods
    assert pod["metadata"]["labels"] == {
        "app": "web",
        "statefulset.kubernetes.io/pod-name": "web-0",
        "apps.kubernetes.io/pod-index": "0",
        "controller-revision-hash": f"web-{template_hash(workload('StatefulSet')['spec']['template'])}",
    }
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("web-0", "db")


def test_an_ordered_pod_goes_only_when_its_successor_is_gone() -> None:
    world = World(workload("StatefulSet", 3))
    world.settle()
    world.apply(workload("StatefulSet", 0))
    world.step()
    assert not world.step()
    assert world.names == ["web-0", "web-1"]


def test_an_ordered_pod_waits_while_its_predecessor_is_going() -> None:
    world = World(workload("StatefulSet", 1))
    world.settle()
    world.store.mark_deleted("Pod", "shop", "web-0")
    world.apply(workload("StatefulSet", 2))
    world.step()
    assert [p["metadata"]["name"] for p in world.pods] == ["web-0"]


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_a_new_template_reaches_the_pods_that_are_there(kind: str) -> None:
    world = World(workload(kind), node("n"))
    world.settle()
    world.apply(workload(kind, image="v2"))
    world.settle()
    assert world.images() == ["v2"]


def rolled(world: World) -> list[tuple[str, str]]:
    """Names and images while a StatefulSet's update goes on, a pod at a time."""
    for _ in range(20):
        busy = world.step() or world.end_pods()
        assert len(world.names) >= 2
        if not busy and not world.start_pods():
            return sorted((p["metadata"]["name"], image(p)) for p in world.pods)
    raise AssertionError("does not settle")


def test_an_update_goes_from_the_last_pod_to_the_first_one_at_a_time() -> None:
    world = World(workload("StatefulSet", 3))
    world.settle()
    world.apply(workload("StatefulSet", 3, image="v2"))
    world.step()
    assert world.names == ["web-0", "web-1"]
    assert not world.step()
    world.end_pods()
    world.step()
    assert not world.step()  # web-2 is not ready yet
    world.start_pods()
    world.step()
    assert world.names == ["web-0", "web-2"]
    assert rolled(world) == [("web-0", "v2"), ("web-1", "v2"), ("web-2", "v2")]
    assert len(world.store.list("ControllerRevision")) == 1


def test_pods_below_the_partition_stay_as_they_were_even_if_one_is_lost() -> None:
    update = {"updateStrategy": {"rollingUpdate": {"partition": 2}}}
    world = World(workload("StatefulSet", 3, **update))
    world.settle()
    world.apply(workload("StatefulSet", 3, image="v2", **update))
    assert rolled(world) == [("web-0", "v1"), ("web-1", "v1"), ("web-2", "v2")]
    world.store.delete("Pod", "shop", "web-1")
    world.settle()
    assert sorted(world.images()) == ["v1", "v1", "v2"]
    for i in range(2):
        world.store.delete("Pod", "shop", f"web-{i}")
    world.settle()
    assert sorted(world.images()) == ["v1", "v1", "v2"]
    world.apply(workload("StatefulSet", 3, image="v2"))
    world.settle()
    assert world.images() == ["v2"] * 3


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_on_delete_only_pods_that_are_deleted_are_of_the_new_template(kind: str) -> None:
    by_hand = {"updateStrategy": {"type": "OnDelete"}}
    size = 2 if kind == "StatefulSet" else None
    world = World(workload(kind, size, **by_hand), node("a"), node("b"))
    world.settle()
    world.apply(workload(kind, size, image="v2", **by_hand))
    world.settle()
    assert world.images() == ["v1", "v1"]
    world.store.mark_deleted(*key_of(world.pods[0]))
    world.settle()
    assert sorted(world.images()) == ["v1", "v2"]


def test_a_stateful_set_may_begin_at_another_number() -> None:
    world = World(workload("StatefulSet", 2, ordinals={"start": 5}))
    world.settle()
    assert world.names == ["web-5", "web-6"]


# DaemonSet


def places(world: World) -> list[str]:
    return sorted(p["spec"]["nodeName"] for p in world.pods if not is_ending(p))


def test_a_daemon_set_has_one_pod_on_every_node_there_is() -> None:
    world = World(workload("DaemonSet"), node("a"), node("b"))
    world.settle()
    assert places(world) == ["a", "b"]
    world.nodes.append(node("c"))
    world.settle()
    assert places(world) == ["a", "b", "c"]
    assert world.plan() == Plan()
    del world.nodes[0]
    world.settle()
    assert places(world) == ["b", "c"]


def test_a_daemon_set_follows_its_node_selector_and_the_nodes_labels() -> None:
    chosen = workload("DaemonSet")
    chosen["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    world = World(chosen, node("a"), node("b", disk="ssd"))
    world.settle()
    assert places(world) == ["b"]
    world.nodes = [node("a", disk="ssd"), node("b")]
    world.settle()
    assert places(world) == ["a"]


def test_a_daemon_that_is_asked_to_go_is_replaced_on_its_node() -> None:
    world = World(workload("DaemonSet"), node("a"), node("b"))
    world.settle()
    world.store.mark_deleted(*key_of(world.pods[0]))
    world.settle()
    assert places(world) == ["a", "b"]


@pytest.mark.parametrize(("rolling", "gone"), [({}, 1), ({"maxUnavailable": 2}, 2), ({"maxUnavailable": "50%"}, 2)])
def test_daemons_are_replaced_a_few_at_a_time(rolling: Object, gone: int) -> None:
    more = {"updateStrategy": {"rollingUpdate": rolling}}
    world = World(workload("DaemonSet", **more), *map(node, "abcd"))
    world.settle()
    world.apply(workload("DaemonSet", image="v2", **more))
    fewest = 4
    while world.step() or world.end_pods() or world.start_pods():
        fewest = min(fewest, world.ready())
    assert fewest == 4 - gone
    assert world.images() == ["v2"] * 4


def test_daemons_with_a_surge_are_replaced_when_their_successor_is_ready() -> None:
    more = {"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}
    world = World(workload("DaemonSet", **more), *map(node, "abc"))
    world.settle()
    world.apply(workload("DaemonSet", image="v2", **more))
    while world.step() or world.end_pods() or world.start_pods():
        assert world.ready() >= 3
        assert len(world.names) <= 4
    assert world.images() == ["v2"] * 3


def test_a_daemon_that_is_broken_is_replaced_first() -> None:
    world = World(workload("DaemonSet"), *map(node, "ab"))
    world.settle()
    broken = world.pods[0]
    world.edit(broken, lambda p: set_ready(p, False))
    world.apply(workload("DaemonSet", image="v2"))
    world.step()
    assert world.names == [world.pods[1]["metadata"]["name"]]


def test_a_daemon_stays_where_a_taint_keeps_new_ones_away_and_goes_where_it_drives_them_out() -> None:
    world = World(workload("DaemonSet"), node("a"), node("b"))
    world.settle()
    for effect, there in (("NoSchedule", ["a", "b"]), ("NoExecute", ["b"])):
        world.nodes[0] = {**node("a"), "spec": {"taints": [{"key": "k", "effect": effect}]}}
        world.settle()
        assert places(world) == there
    cordoned = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    world.nodes[0] = {**node("a"), "spec": {"unschedulable": True, "taints": [cordoned]}}
    world.settle()
    assert places(world) == ["a", "b"]


def test_a_daemon_set_follows_its_required_node_affinity() -> None:
    chosen = workload("DaemonSet")
    terms = [{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    chosen["spec"]["template"]["spec"]["affinity"] = {"nodeAffinity": required}
    world = World(chosen, node("a"), node("b", disk="ssd"))
    world.settle()
    assert places(world) == ["b"]


def test_a_daemon_set_stays_away_from_a_taint_it_does_not_tolerate() -> None:
    tainted = node("a")
    tainted["spec"] = {"taints": [{"key": "k", "effect": "NoSchedule"}]}
    world = World(workload("DaemonSet"), tainted, node("b"))
    world.settle()
    assert places(world) == ["b"]


def test_what_is_no_workload_has_no_plan() -> None:
    with pytest.raises(ValueError, match="Service is no workload"):
        plan({"kind": "Service", "metadata": {"uid": "1"}, "spec": {}}, [], [], lambda: "", datetime.now(UTC))

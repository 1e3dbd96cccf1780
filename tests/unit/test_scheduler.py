"""The scheduler gives a pod the fitting node with the fewest pods, or says why there is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topo.cluster.store import Object
from topo.control.scheduler import Unschedulable, choose

CONTROL_PLANE = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


def node(name: str, ready: str = "True", labels: dict[str, str] | None = None, **spec: Any) -> Object:
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": spec,
        "status": {"conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}]},
    }


def pod(**spec: Any) -> Object:
    return {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [], **spec}}


def fits(one: Object, on: Object) -> bool:
    """Whether the pod may run on this one node."""
    try:
        return choose(one, [on], {}) == str(on["metadata"]["name"])
    except Unschedulable:
        return False


def test_the_node_with_the_fewest_pods_is_chosen() -> None:
    assert choose(pod(), [node("a"), node("b"), node("c")], {"a": 2, "b": 1, "c": 3}) == "b"


def test_a_node_without_pods_counts_as_empty() -> None:
    assert choose(pod(), [node("a"), node("b")], {"a": 1}) == "b"


def test_among_equals_the_first_by_name_is_chosen_in_whatever_order_they_come() -> None:
    assert choose(pod(), [node("b"), node("c"), node("a")], {}) == "a"


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), min_size=1), st.randoms())
def test_pods_placed_one_by_one_spread_evenly(load: dict[str, int], rng: Any) -> None:
    nodes = [node(name) for name in load]
    rng.shuffle(nodes)
    now = dict(load)
    top = max(load.values())
    for _ in range(sum(top - count for count in load.values())):
        now[choose(pod(), nodes, now)] += 1
    assert set(now.values()) == {top}


def test_a_node_selector_must_be_fulfilled_whole() -> None:
    wanted = pod(nodeSelector={"disk": "ssd", "zone": "a"})
    assert fits(wanted, node("n", labels={"disk": "ssd", "zone": "a", "more": "x"}))
    assert not fits(wanted, node("n", labels={"disk": "ssd"}))
    assert not fits(wanted, node("n", labels={"disk": "ssd", "zone": "b"}))


def test_a_less_loaded_node_that_does_not_fit_is_passed_over() -> None:
    nodes = [node("a"), node("b", labels={"disk": "ssd"})]
    assert choose(pod(nodeSelector={"disk": "ssd"}), nodes, {"b": 50}) == "b"


def test_cordoned_nodes_take_no_pods() -> None:
    assert not fits(pod(), node("n", unschedulable=True))
    assert fits(pod(), node("n", unschedulable=False))


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_nodes_that_are_not_ready_take_no_pods(status: str) -> None:
    assert not fits(pod(), node("n", ready=status))


def test_a_node_that_says_nothing_of_its_state_is_taken_for_ready() -> None:
    assert fits(pod(), {"kind": "Node", "metadata": {"name": "n"}})


@pytest.mark.parametrize("effect", ["NoSchedule", "NoExecute"])
def test_a_taint_keeps_pods_away(effect: str) -> None:
    assert not fits(pod(), node("n", taints=[{"key": "k", "value": "v", "effect": effect}]))


def test_prefer_no_schedule_keeps_nothing_away() -> None:
    assert fits(pod(), node("n", taints=[{"key": "k", "value": "v", "effect": "PreferNoSchedule"}]))


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}, True),
        ({"key": "k", "value": "v", "effect": "NoSchedule"}, True),  # Equal is the default
        ({"key": "k", "value": "v"}, True),  # no effect: every effect
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"operator": "Exists"}, True),  # no key: every taint
        ({"operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "k", "value": "other"}, False),
        ({"key": "k"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "k", "value": "v", "effect": "NoExecute"}, False),
        ({"value": "v"}, False),  # Equal without a key
    ],
)
def test_tolerations(toleration: dict[str, str], tolerated: bool) -> None:
    tainted = node("n", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    assert fits(pod(tolerations=[toleration]), tainted) is tolerated


def test_a_taint_without_value_is_tolerated_by_its_key_alone() -> None:
    tainted = node("n", taints=[CONTROL_PLANE])
    assert fits(pod(tolerations=[{"key": CONTROL_PLANE["key"], "effect": "NoSchedule"}]), tainted)


def test_every_taint_must_be_tolerated() -> None:
    tainted = node("n", taints=[CONTROL_PLANE, {"key": "gpu", "effect": "NoExecute"}])
    one = {"key": CONTROL_PLANE["key"], "operator": "Exists"}
    assert not fits(pod(tolerations=[one]), tainted)
    assert fits(pod(tolerations=[one, {"key": "gpu", "operator": "Exists"}]), tainted)


def test_the_reason_counts_the_nodes_by_what_keeps_the_pod_from_them() -> None:
    nodes = [
        node("a", taints=[CONTROL_PLANE]),
        node("b", ready="False", labels={"disk": "ssd"}),
        node("c", unschedulable=True, labels={"disk": "ssd"}),
        node("d"),
        node("e"),
    ]
    nodes[0]["metadata"]["labels"] = {"disk": "ssd"}
    with pytest.raises(Unschedulable) as error:
        choose(pod(nodeSelector={"disk": "ssd"}), nodes, {})
    assert str(error.value) == (
        "0/5 nodes are available: 2 node(s) didn't match the pod's nodeSelector, "
        "1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
        "1 node(s) were not ready, 1 node(s) were unschedulable"
    )


def test_the_reason_for_a_cluster_without_nodes() -> None:
    with pytest.raises(Unschedulable, match=r"^0/0 nodes are available: there are none$"):
        choose(pod(), [], {})

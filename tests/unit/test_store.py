"""The store keeps resourceVersions, watches and applies as the Kubernetes API does, from any thread."""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.cluster.store import ADDED, DELETED, MODIFIED, Conflict, Event, Key, NotFound, Object, Store, Watch, key_of


def pod(name: str = "web", namespace: str = "default", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": "i"}], **spec},
    }


def service(name: str = "web", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": 80}], **spec},
    }


def events(watch: Watch) -> list[Event]:
    """What waits now."""
    return watch.batch(0) or []


def kinds(watch: Watch) -> list[tuple[str, str]]:
    """Type and object name of what waits now."""
    return [(e.type, e.object["metadata"]["name"]) for e in events(watch)]


def setter(**values: Any) -> Callable[[Object], None]:
    return lambda thing: thing["spec"].update(values)


def test_objects_are_listed_by_kind_and_namespace_in_the_order_of_creation() -> None:
    store = Store()
    for name, namespace in (("c", "default"), ("a", "other"), ("b", "default")):
        store.create(pod(name, namespace))
    store.create(service())
    store.update("Pod", "default", "c", setter(nodeName="n"))
    assert [p["metadata"]["name"] for p in store.list("Pod")] == ["c", "a", "b"]
    assert [p["metadata"]["name"] for p in store.list("Pod", "default")] == ["c", "b"]
    assert store.list("Pod", "nowhere") == store.list("Job") == []
    assert [key_of(t) for t in store] == [key_of(t) for t in store.watch()[0]]


LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b"]))


@given(
    st.lists(st.tuples(st.sampled_from(["p1", "p2", "p3"]), st.none() | LABELS)),
    st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b"]), min_size=1),
)
def test_objects_are_found_by_labels_and_owners_as_a_look_at_all_of_them_would(
    steps: list[tuple[str, dict[str, str] | None]], wanted: dict[str, str]
) -> None:
    store = Store()
    store.create({**pod("p1", "other"), "metadata": {"name": "p1", "namespace": "other", "labels": wanted}})
    for name, labels in steps:
        owner = {"uid": "u1" if labels else "u2"}
        if labels is None:
            if store.get("Pod", "default", name):
                store.delete("Pod", "default", name)
        elif store.get("Pod", "default", name):
            change = {"labels": labels, "ownerReferences": [owner]}
            store.update("Pod", "default", name, lambda one, change=change: one["metadata"].update(change))
        else:
            one = pod(name)
            one["metadata"] |= {"labels": labels, "ownerReferences": [owner]}
            store.create(one)
    every = store.list("Pod", "default")
    assert store.labelled("Pod", "default", wanted) == [
        one for one in every if wanted.items() <= one["metadata"]["labels"].items()
    ]
    assert store.owned("u1") == [one for one in every if one["metadata"]["ownerReferences"] == [{"uid": "u1"}]]


def test_creation_gives_uid_timestamp_and_resource_version_and_leaves_the_callers_object_alone() -> None:
    store = Store(lambda: datetime(2024, 5, 1, 12, 0, 0, 999, tzinfo=UTC))
    mine = pod()
    before = copy.deepcopy(mine)
    made = store.create(mine)
    assert mine == before
    assert made["metadata"]["creationTimestamp"] == "2024-05-01T12:00:00Z"
    assert made["metadata"]["resourceVersion"] == "1"
    assert made["metadata"]["uid"] != store.create(pod("other"))["metadata"]["uid"]
    assert store.get("Pod", "default", "web") is made


def test_a_namespaced_object_without_namespace_is_in_default_and_a_node_in_none() -> None:
    store = Store()
    thing = pod()
    del thing["metadata"]["namespace"]
    assert store.create(thing)["metadata"]["namespace"] == "default"
    node = store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "namespace": "default"}})
    assert key_of(node) == ("Node", "", "n")


def test_creating_what_is_there_is_a_conflict_and_no_event() -> None:
    store = Store()
    store.create(pod())
    watch = store.watch()[2]
    with pytest.raises(Conflict, match="Pod default/web already exists"):
        store.create(pod(nodeName="n"))
    assert events(watch) == []
    assert store.revision == 1


def test_the_same_name_is_free_in_another_namespace_and_kind() -> None:
    store = Store()
    for thing in (pod(), pod(namespace="other"), service()):
        store.create(thing)
    assert store.revision == 3


def test_a_watch_tells_of_creation_change_and_deletion_in_order_with_rising_revisions() -> None:
    store = Store()
    listed, revision, watch = store.watch()
    assert (listed, revision) == ([], 0)
    store.create(pod())
    store.update("Pod", "default", "web", setter(nodeName="n"))
    store.delete("Pod", "default", "web")
    found = events(watch)
    assert [(e.type, e.revision) for e in found] == [(ADDED, 1), (MODIFIED, 2), (DELETED, 3)]
    assert [e.object["metadata"]["resourceVersion"] for e in found] == ["1", "2", "2"]
    assert found[1].object["spec"]["nodeName"] == found[2].object["spec"]["nodeName"] == "n"


def test_an_event_keeps_the_state_of_its_own_moment() -> None:
    store = Store()
    watch = store.watch()[2]
    store.create(pod())
    store.update("Pod", "default", "web", lambda p: p["spec"]["containers"].append({"name": "d", "image": "i"}))
    first, second = events(watch)
    assert [len(e.object["spec"]["containers"]) for e in (first, second)] == [1, 2]


def test_a_watch_begins_where_its_list_ends() -> None:
    store = Store()
    store.create(pod("before"))
    listed, revision, watch = store.watch()
    store.create(pod("after"))
    assert [t["metadata"]["name"] for t in listed] == ["before"]
    assert revision == 1
    assert kinds(watch) == [(ADDED, "after")]


def test_an_edit_without_change_makes_no_event_and_no_revision() -> None:
    store = Store()
    made = store.create(pod(nodeName="n"))
    watch = store.watch()[2]
    assert store.update("Pod", "default", "web", setter(nodeName="n")) is made
    assert store.update("Pod", "default", "web", lambda _: None) is made
    assert events(watch) == []
    assert store.revision == 1


def test_an_edit_that_fails_changes_nothing() -> None:
    def edit(thing: Object) -> None:
        thing["spec"]["nodeName"] = "n"
        raise RuntimeError

    store = Store()
    made = store.create(pod())
    watch = store.watch()[2]
    with pytest.raises(RuntimeError):
        store.update("Pod", "default", "web", edit)
    assert store.get("Pod", "default", "web") is made
    assert "nodeName" not in made["spec"]
    assert events(watch) == []


@pytest.mark.parametrize("verb", ["update", "delete", "mark_deleted"])
def test_what_is_not_there_cannot_be_changed(verb: str) -> None:
    store = Store()
    arguments: tuple[Any, ...] = ("Pod", "default", "web")
    with pytest.raises(NotFound, match="Pod default/web is not there"):
        getattr(store, verb)(*arguments, *([lambda _: None] if verb == "update" else []))
    assert store.revision == 0


def test_marking_deleted_stamps_once_and_tells_once() -> None:
    seconds = count()
    store = Store(lambda: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=next(seconds)))
    store.create(pod())
    watch = store.watch()[2]
    store.mark_deleted("Pod", "default", "web")
    store.mark_deleted("Pod", "default", "web")
    assert kinds(watch) == [(MODIFIED, "web")]
    stored = store.get("Pod", "default", "web")
    assert stored is not None
    assert stored["metadata"]["deletionTimestamp"] == "2024-01-01T00:00:31Z"  # when it must have ended
    assert stored["metadata"]["deletionGracePeriodSeconds"] == 30


def test_the_end_of_a_pod_can_be_asked_for_earlier_but_not_later() -> None:
    store = Store(lambda: datetime(2024, 1, 1, tzinfo=UTC))
    store.create(pod(terminationGracePeriodSeconds=10))
    seen = []
    for grace in (None, 60, 5, 7, 0):
        store.mark_deleted("Pod", "default", "web", grace)
        meta = (store.get("Pod", "default", "web") or {})["metadata"]
        seen.append((meta["deletionTimestamp"][-3:-1], meta["deletionGracePeriodSeconds"]))
    assert seen == [("10", 10), ("10", 10), ("05", 5), ("05", 5), ("00", 0)]


def test_applying_a_service_again_keeps_its_node_ports_by_name() -> None:
    store = Store()
    ports = [{"name": "a", "port": 1}, {"name": "b", "port": 2}]
    store.apply(service(type="NodePort", ports=ports))
    for i in (0, 1):
        store.update("Service", "default", "web", lambda s, i=i: s["spec"]["ports"][i].update(nodePort=30100 + i))
    assert store.apply(service(type="NodePort", ports=ports))[0] == "unchanged"
    _, new = store.apply(service(type="NodePort", ports=[{"name": "b", "port": 3}, {"name": "c", "port": 4}]))
    assert new["spec"]["ports"] == [{"name": "b", "port": 3, "nodePort": 30101}, {"name": "c", "port": 4}]
    _, new = store.apply(service(type="NodePort", ports=[{"name": "b", "port": 3}, {**ports[0], "nodePort": 30101}]))
    assert [p.get("nodePort") for p in new["spec"]["ports"]] == [None, 30101]
    assert "nodePort" not in store.apply(service(ports=ports))[1]["spec"]["ports"][0]


def test_applying_says_created_then_unchanged_then_configured() -> None:
    store = Store()
    watch = store.watch()[2]
    assert store.apply(pod())[0] == "created"
    assert store.apply(pod())[0] == "unchanged"
    assert store.apply(pod(hostNetwork=True))[0] == "configured"
    assert [kind for kind, _ in kinds(watch)] == [ADDED, MODIFIED]


def test_applying_keeps_identity_status_and_what_the_cluster_filled_in() -> None:
    store = Store()
    old = store.apply(service(selector={"app": "a"}))[1]

    def fill(thing: Object) -> None:
        thing["spec"].update(clusterIP="10.96.1.0", clusterIPs=["10.96.1.0"])
        thing["status"] = {"loadBalancer": {}}

    store.update("Service", "default", "web", fill)
    assert store.apply(service(selector={"app": "a"}))[0] == "unchanged"
    outcome, new = store.apply(service(selector={"app": "b"}))
    assert outcome == "configured"
    assert new["spec"]["selector"] == {"app": "b"}
    assert (new["spec"]["clusterIP"], new["spec"]["clusterIPs"]) == ("10.96.1.0", ["10.96.1.0"])
    assert new["status"] == {"loadBalancer": {}}
    assert [new["metadata"][f] for f in ("uid", "creationTimestamp")] == [
        old["metadata"][f] for f in ("uid", "creationTimestamp")
    ]


def test_applying_a_pod_keeps_its_node_and_the_annotations_its_kubelet_made() -> None:
    store = Store()
    store.apply(pod())
    store.update("Pod", "default", "web", setter(nodeName="n"))
    store.update("Pod", "default", "web", lambda p: p["metadata"].update(annotations={"mac": "0a:58"}))
    thing = pod()
    thing["metadata"]["annotations"] = {"mine": "1"}
    new = store.apply(thing)[1]
    assert new["spec"]["nodeName"] == "n"
    assert new["metadata"]["annotations"] == {"mac": "0a:58", "mine": "1"}


def test_applying_removes_the_fields_of_the_spec_that_are_no_longer_given() -> None:
    store = Store()
    store.apply(pod(nodeSelector={"disk": "ssd"}, hostNetwork=True))
    assert "nodeSelector" not in store.apply(pod(hostNetwork=True))[1]["spec"]


def test_an_applied_object_does_not_change_when_the_callers_does() -> None:
    store = Store()
    thing = pod()
    store.apply(thing)
    thing["spec"]["containers"][0]["image"] = "new"
    new = store.apply(thing)[1]
    thing["spec"]["containers"].clear()
    assert new["spec"]["containers"] == [{"name": "c", "image": "new"}]


def test_applying_removes_a_label_that_is_no_longer_given() -> None:
    store = Store()
    thing = pod()
    thing["metadata"]["labels"] = {"app": "web", "debug": "yes"}
    store.apply(thing)
    thing["metadata"]["labels"] = {"app": "web"}
    assert store.apply(thing)[1]["metadata"]["labels"] == {"app": "web"}


def test_applying_an_empty_cluster_ip_keeps_the_address_that_was_allocated() -> None:
    store = Store()
    store.apply(service(clusterIP=""))
    store.update("Service", "default", "web", setter(clusterIP="10.96.1.0"))
    assert store.apply(service(clusterIP=""))[0] == "unchanged"


def test_a_batch_is_everything_that_waits_and_empty_after_the_timeout() -> None:
    store = Store()
    watch = store.watch()[2]
    assert watch.batch(0) == []
    for i in range(5):
        store.create(pod(f"p{i}"))
    assert len(watch.batch(0) or ()) == 5
    assert watch.batch(0.001) == []


def test_a_reader_that_waits_is_woken_by_an_event_and_then_by_the_closing_of_its_watch() -> None:
    store = Store()
    watch = store.watch()[2]
    got: queue.SimpleQueue[list[Event] | None] = queue.SimpleQueue()

    def read() -> None:
        while (batch := watch.batch()) is not None:
            got.put(batch)
        got.put(None)

    threading.Thread(target=read, daemon=True).start()
    store.create(pod())
    batch = got.get(timeout=5)
    assert batch is not None
    assert [e.type for e in batch] == [ADDED]
    watch.close()
    assert got.get(timeout=5) is None


def test_a_closed_watch_gets_no_more_events_and_the_others_still_do() -> None:
    store = Store()
    closed, other = store.watch()[2], store.watch()[2]
    closed.close()
    closed.close()  # again is no error
    store.create(pod())
    assert closed.batch(0) is None
    assert kinds(other) == [(ADDED, "web")]


def replay(listed: Iterable[Object], found: Iterable[Event]) -> dict[Key, Object]:
    """The objects that a list and the events after it add up to; checks that no event contradicts what is known."""
    state = {key_of(t): t for t in listed}
    for event in found:
        key = key_of(event.object)
        if event.type == DELETED:
            assert state.pop(key) == event.object
        else:
            assert (event.type == ADDED) == (key not in state)
            assert event.object["metadata"]["resourceVersion"] == str(event.revision)
            state[key] = event.object
    return state


@given(
    st.lists(
        st.tuples(st.sampled_from("cuamdw"), st.sampled_from(["a", "b", "c"]), st.integers(0, 2)),
        max_size=40,
    )
)
@settings(max_examples=100, deadline=None)
def test_every_list_and_its_watch_add_up_to_the_store(actions: list[tuple[str, str, int]]) -> None:
    store = Store()
    watches = [store.watch()]
    for action, name, value in actions:
        key = ("Pod", "default", name)
        there = store.get(*key) is not None
        match action:
            case "c" if not there:
                store.create(pod(name))
            case "u" if there:
                store.update(*key, setter(priority=value))
            case "a":
                store.apply(pod(name, priority=value))
            case "m" if there:
                store.mark_deleted(*key)
            case "d" if there:
                store.delete(*key)
            case "w":
                watches.append(store.watch())
    for listed, revision, watch in watches:
        found = events(watch)
        assert [e.revision for e in found] == list(range(revision + 1, store.revision + 1))
        assert replay(listed, found) == {key_of(t): t for t in store}


def test_no_change_is_lost_between_list_and_watch_while_many_threads_write() -> None:
    store = Store()
    writers, rounds = 6, 120
    start = threading.Barrier(writers + 1)

    def write(number: int) -> None:
        start.wait()
        for i in range(rounds):
            name = f"p{(number + i) % 4}"
            try:
                match i % 4:
                    case 0:
                        store.create(pod(name))
                    case 3:
                        store.delete("Pod", "default", name)
                    case _:
                        store.update("Pod", "default", name, setter(priority=number * rounds + i))
            except (Conflict, NotFound):
                pass  # another writer was there first

    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    for thread in threads:
        thread.start()
    watches = [store.watch()]
    start.wait()
    while any(thread.is_alive() for thread in threads) and len(watches) < 50:
        watches.append(store.watch())
    for thread in threads:
        thread.join()
    final = {key_of(t): t for t in store}
    for listed, revision, watch in watches:
        found = events(watch)
        assert [e.revision for e in found] == list(range(revision + 1, store.revision + 1))
        assert replay(listed, found) == final


def test_concurrent_edits_of_one_object_are_all_kept() -> None:
    store = Store()
    store.create(pod(priority=0))

    def add() -> None:
        for _ in range(200):
            store.update("Pod", "default", "web", lambda p: p["spec"].update(priority=p["spec"]["priority"] + 1))

    threads = [threading.Thread(target=add) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = store.get("Pod", "default", "web")
    assert stored is not None
    assert stored["spec"]["priority"] == 1000
    assert store.revision == 1001


def test_a_reader_sees_every_event_of_concurrent_writers_in_order_of_revision() -> None:
    store = Store()
    watch = store.watch()[2]

    def write(number: int) -> None:
        for i in range(50):
            store.create(pod(f"p-{number}-{i}"))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    revisions: list[int] = []
    while len(revisions) < 200:
        batch = watch.batch(5)
        assert batch
        revisions += [e.revision for e in batch]
    for thread in threads:
        thread.join()
    assert revisions == list(range(1, 201))
    assert len({p["metadata"]["resourceVersion"] for p in store.list("Pod")}) == 200


def test_a_namespace_is_labelled_with_its_name() -> None:
    store = Store()
    made = store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {"a": "b"}}})
    assert made["metadata"]["labels"] == {"a": "b", "kubernetes.io/metadata.name": "n"}

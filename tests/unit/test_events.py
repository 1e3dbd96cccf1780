"""Events: the same words count up, and a lab keeps the latest ones only."""

from __future__ import annotations

from topo.cluster.store import Store
from topo.control.events import MOST, record

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default"}}


def test_the_same_words_about_the_same_object_count_up() -> None:
    store = Store()
    for _ in range(3):
        record(store, POD, "BackOff", "again")
    (event,) = store.list("Event")
    assert (event["count"], event["type"], event["involvedObject"]["name"]) == (3, "Warning", "a")


def test_the_oldest_are_forgotten() -> None:
    store = Store()
    for number in range(MOST + 5):
        record(store, POD, "BackOff", str(number))
    kept = [event["message"] for event in store.list("Event")]
    assert len(kept) == MOST and kept[0] == "5" and kept[-1] == str(MOST + 4)

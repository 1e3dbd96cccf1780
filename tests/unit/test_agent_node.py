"""One node's agent: every part gets the newest view, what fails is tried again, and the lab is told."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import views

from controllers.agent.node import NodeAgent
from controllers.state import NodeView

VIEW = views.cluster("flannel")["node-1"]


class Part:
    """Remembers what was asked of it, and fails as `raises` says."""

    def __init__(self) -> None:
        self.seen: list[NodeView] = []
        self.raises: Exception | None = None
        self.closed = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()

    def sync(self, view: NodeView) -> None:
        self.seen.append(view)
        assert self.goes_on.wait(5)
        if self.raises:
            raise self.raises

    def close(self) -> None:
        self.closed.set()
        if self.raises:
            raise self.raises


class Made:
    """An agent with two parts, and what it reported."""

    def __init__(self) -> None:
        self.one, self.two = Part(), Part()
        self.reports: queue.SimpleQueue[tuple[int, list[str]]] = queue.SimpleQueue()
        self.agent = NodeAgent("node-1", 1, [self.one, self.two], lambda *said: self.reports.put(said), retry=0.05)

    def next(self) -> tuple[int, list[str]]:
        return self.reports.get(timeout=5)


@pytest.fixture
def made() -> Iterator[Made]:
    found = Made()
    yield found
    found.agent.end()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_part_gets_the_view_and_the_revision_is_reported(made: Made) -> None:
    made.agent.want(VIEW, 7)
    assert made.next() == (7, [])
    assert made.one.seen == made.two.seen == [VIEW]


def test_views_that_come_meanwhile_are_left_out_but_for_the_last(made: Made) -> None:
    made.one.goes_on.clear()
    made.agent.want(VIEW, 1)
    until(lambda: bool(made.one.seen))
    for revision in (2, 3, 4):
        made.agent.want(VIEW, revision)
    made.one.goes_on.set()
    assert [made.next()[0], made.next()[0]] == [1, 4]
    assert len(made.one.seen) == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError("taken"), "taken"), (RuntimeError("nft"), "nft"), (KeyError("x"), "Part: KeyError: 'x'")],
)
def test_a_part_that_fails_holds_up_no_other_and_is_tried_again(made: Made, error: Exception, said: str) -> None:
    made.one.raises = error
    made.agent.want(VIEW, 3)
    assert made.next() == (3, [said])
    assert made.two.seen == [VIEW]
    assert made.next() == (3, [said])
    made.one.raises = None
    found = made.next()
    while found[1]:
        found = made.next()
    assert found == (3, [])
    count = len(made.one.seen)
    time.sleep(0.2)
    assert len(made.one.seen) == count, "what is well is left alone"


def test_until_the_node_is_ready_once_nothing_is_done_and_all_is_said_to_be_well(made: Made) -> None:
    building = replace(VIEW, node=replace(VIEW.node, ready=False))
    made.agent.want(building, 1)
    assert made.next() == (1, []) and not made.one.seen
    made.agent.want(VIEW, 2)
    assert made.next() == (2, []) and made.one.seen == [VIEW]
    made.agent.want(building, 3)  # its switch died; Services still change
    assert made.next() == (3, []) and made.one.seen == [VIEW, building]


def test_every_part_is_closed_at_the_end_whatever_another_does(made: Made) -> None:
    made.one.raises = OSError("gone")
    made.agent.end()
    assert made.one.closed.wait(5) and made.two.closed.wait(5)


def test_a_node_that_comes_again_is_begun_when_the_one_before_is_closed(made: Made) -> None:
    made.one.goes_on.clear()
    made.agent.want(VIEW, 1)
    until(lambda: bool(made.one.seen))  # and is at it
    made.agent.end()
    part, said = Part(), queue.SimpleQueue[int]()
    follower = NodeAgent("node-1", 2, [part], lambda revision, _: said.put(revision), after=made.agent)
    try:
        follower.want(VIEW, 2)
        with pytest.raises(queue.Empty):
            said.get(timeout=0.2)
        assert not part.seen and not made.one.closed.is_set()
        made.one.goes_on.set()
        assert said.get(timeout=5) == 2
        assert part.seen == [VIEW] and made.two.closed.is_set()
    finally:
        follower.end()

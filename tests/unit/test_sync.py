"""What a bridge's sender does beside differences: what the switch remembers of flows that are gone is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from controllers import sync, wire
from controllers.flow import tables as t
from controllers.flow.actions import ZONE, Goto
from controllers.flow.program import Fragment, Program, Translation, Writer, match
from controllers.sync import BridgeSync

ONE, TWO = Translation(1, 53, 10, 5353), Translation(1, 53, 11, 5353)


class Datapath:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, raw: bytes) -> None:
        self.sent.append(raw)


def fragment(*translations: Translation) -> Program:
    return {"service s": Fragment("service s", translations=frozenset(translations))}


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A sender without its greenlet, which every barrier answers; `later` is what it means to do in a while."""
    made: Any = BridgeSync.__new__(BridgeSync)
    made.name, made.revision, made._slots = ("n", "br-int"), 1, {}
    made._datapath, made.later, made._changed = Datapath(), [], lambda name: None

    def ask(datapath: Any, request: Any) -> bool:
        datapath.send(request(1))
        return True

    monkeypatch.setattr(BridgeSync, "_ask", lambda self, datapath, request: ask(datapath, request))
    monkeypatch.setattr(sync.hub, "spawn_after", lambda seconds, *what: made.later.append((seconds, what)))
    return made


def test_connections_are_forgotten_after_the_flows_went_and_once_more_after_the_switchs_cache(bridge: Any) -> None:
    bridge._installed = fragment(ONE, TWO)
    assert bridge._next(bridge._datapath, fragment(ONE, TWO), fragment(TWO))
    barrier, forgotten, *rest = bridge._datapath.sent
    assert (barrier, forgotten, len(rest)) == (wire.barrier(1), wire.forget(ZONE, ONE), 1)
    ((seconds, (again, *arguments)),) = bridge.later
    assert seconds > 0.5  # max-revalidator of ovs-vswitchd.conf.db(5)
    bridge._installed = fragment(TWO)
    bridge._datapath.sent.clear()
    again(*arguments)
    assert bridge._datapath.sent == [wire.forget(ZONE, ONE)]


def test_what_is_wanted_again_is_not_forgotten_twice(bridge: Any) -> None:
    bridge._installed = fragment(ONE)
    bridge._forget_again(bridge._datapath, [ONE, TWO])
    assert bridge._datapath.sent == [wire.forget(ZONE, TWO)]


def test_another_connection_hears_nothing_of_it(bridge: Any) -> None:
    bridge._installed = {}
    bridge._forget_again(Datapath(), [ONE])
    assert bridge._datapath.sent == []


@pytest.mark.parametrize("held", [True, False])
def test_a_new_controller_tells_of_what_it_had_to_change(
    bridge: Any, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the switch remembers by flows of before must go then, too; if nothing changed it may stay."""
    writer = Writer("base", "n")
    writer.flow(t.CLASSIFIER, t.MISS, match(), Goto(t.CONNTRACK))
    program = {"base": writer.fragment()}
    (flow,) = program["base"].flows
    told: list[tuple[str, str]] = []
    bridge._changed, bridge._translated, bridge._describe_stale = told.append, lambda name: (), lambda name, cookies: []
    found = sync.Held({(flow.table.number, flow.cookie)} if held else set())
    monkeypatch.setattr(sync, "Held", lambda: found)
    assert bridge._first(bridge._datapath, program)
    assert told == ([] if held else [("n", "br-int")])


def test_a_new_controller_forgets_what_went_while_there_was_none(bridge: Any) -> None:
    bridge._translated = lambda name: {ONE, TWO}
    assert bridge._forget_strange(bridge._datapath, fragment(TWO))
    forgotten, *rest = bridge._datapath.sent
    assert (forgotten, rest) == (wire.forget(ZONE, ONE), [wire.barrier(1)])
    ((_, (_, _, again)),) = bridge.later
    assert again == [ONE]


def test_a_new_controller_leaves_alone_what_is_still_wanted(bridge: Any) -> None:
    bridge._translated = lambda name: {ONE, TWO}
    assert bridge._forget_strange(bridge._datapath, fragment(ONE, TWO))
    assert bridge._datapath.sent == bridge.later == []

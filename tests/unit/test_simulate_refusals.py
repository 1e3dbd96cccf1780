"""The simulator itself: what Open vSwitch does in corners that programs rely on, and that it fails on all else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import (
    IN_PORT_NUMBER,
    SNAT_ZONE,
    ZONE,
    Action,
    Ct,
    DecTtl,
    ForgetInPort,
    Goto,
    Nat,
    Output,
    OutputField,
    Set,
    ToGroup,
)
from controllers.flow.fields import ip_number
from controllers.flow.program import BadFlow, Bucket, Flow, Fragment, Group, Writer, action_text, match
from controllers.simulate import NotUnderstood, Overlap, Packet, Switch, Trace

PACKET = {
    "in_port": 7,
    "dl_src": 1,
    "dl_dst": 2,
    "dl_type": 0x800,
    "nw_src": ip_number("10.0.0.1"),
    "nw_dst": ip_number("10.0.0.2"),
    "nw_proto": 6,
    "nw_ttl": 64,
    "tp_src": 1000,
    "tp_dst": 80,
}
FIRST, SECOND, LAST = t.CLASSIFIER, t.CONNTRACK, t.OUTPUT


def switch(build: Callable[[Writer], None]) -> Switch:
    w = Writer("test", "test")
    build(w)
    return Switch({"test": w.fragment()})


def one_flow(*actions: Action) -> Trace:
    """What becomes of PACKET in a switch whose one flow does this, whatever a Writer would say to it."""
    flow = Flow(FIRST, 1, match(), actions, "test", "test", "here:1", 0)
    return Switch({"test": Fragment("test", (flow,))}).run(PACKET)


def test_highest_priority_wins_and_a_table_without_a_match_drops() -> None:
    def build(w: Writer) -> None:
        w.flow(FIRST, 1, match(), Output(1))
        w.flow(FIRST, 2, match("ip", nw_dst="10.0.0.0/8"), Goto(SECOND))

    trace = switch(build).run(PACKET)
    assert [flow.priority for flow, _ in trace.steps] == [2]
    assert (trace.outputs, trace.drops) == ([], ["Conntrack: no flow matches"])


def test_two_flows_of_one_priority_that_both_match_are_an_error() -> None:
    def build(w: Writer) -> None:
        w.flow(FIRST, 2, match("ip", nw_dst="10.0.0.0/8"), Output(1))
        w.flow(FIRST, 2, match("ip", nw_src="10.0.0.0/8"), Output(1))

    with pytest.raises(Overlap, match=r"nw_dst=10.0.0.0/8.*nw_src=10.0.0.0/8"):
        switch(build).run(PACKET)


def test_program_that_contradicts_itself_is_refused() -> None:
    def build(w: Writer) -> None:
        w.flow(FIRST, 2, match(), Output(1))
        w.flow(FIRST, 2, match(), Output(2))

    with pytest.raises(BadFlow):
        switch(build)


def test_output_to_the_ingress_port_is_dropped_unless_in_port_is_forgotten_or_asked_for() -> None:
    assert one_flow(Output(7)).outputs == []
    assert [port for port, _ in one_flow(ForgetInPort(), Output(7)).outputs] == [7]
    assert [port for port, _ in one_flow(Output(IN_PORT_NUMBER)).outputs] == [7]


def test_registers_and_connection_state_start_at_zero() -> None:
    def build(w: Writer) -> None:
        w.flow(FIRST, 2, match(PktSource=f.FROM_POD), Output(1))
        w.flow(FIRST, 1, match(), Output(2))

    dirty = {**PACKET, "reg0": f.FROM_POD, "ct_state": 33, "ct_mark": 1}
    ((port, out),) = switch(build).run(dirty).outputs
    assert port == 2
    assert out == {name: value for name, value in PACKET.items() if name != "in_port"}


def test_fields_of_one_register_do_not_disturb_each_other() -> None:
    def build(w: Writer) -> None:
        w.flow(FIRST, 1, match(), Set(f.PKT_SOURCE, 15), Goto(t.UN_SNAT))
        w.flow(t.UN_SNAT, 1, match(PktSource=15, Hairpin=0), Set(f.HAIRPIN, 1), Set(f.PKT_SOURCE, 2), Goto(LAST))
        w.flow(LAST, 1, match(PktSource=2, Hairpin=1), Output(1))

    assert [port for port, _ in switch(build).run(PACKET).outputs] == [1]


def test_ct_sends_a_tracked_copy_on_while_the_rest_of_the_list_is_done_to_the_packet_itself() -> None:
    def build(w: Writer) -> None:
        w.flow(FIRST, 1, match("ip"), Ct(ZONE, SECOND), Set(f.IP_DST, 5), Output(1))
        w.flow(SECOND, 1, match("ip", ct_state="+new+trk"), Output(2))

    trace = switch(build).run(PACKET)
    assert [(port, out["nw_dst"]) for port, out in trace.outputs] == [(1, 5), (2, PACKET["nw_dst"])]


def test_connection_that_nobody_answered_stays_new() -> None:
    def build(w: Writer) -> None:
        w.flow(FIRST, 1, match("ip"), Ct(ZONE, SECOND, commit=True))
        for port, state in ((1, "+new-est-rpl+trk"), (2, "-new+est-rpl+trk"), (3, "-new+est+rpl+trk")):
            w.flow(SECOND, 1, match("ip", ct_state=state), Output(port))

    bridge = switch(build)
    back = {**PACKET, "nw_src": PACKET["nw_dst"], "nw_dst": PACKET["nw_src"], "tp_src": 80, "tp_dst": 1000}
    seen = [bridge.run(packet).outputs[0][0] for packet in (PACKET, PACKET, back, PACKET)]
    assert seen == [1, 1, 3, 2]


def test_connection_is_not_remembered_without_a_commit_nor_in_another_zone() -> None:
    def build(w: Writer) -> None:
        w.flow(FIRST, 1, match("ip", in_port=7), Ct(ZONE, SECOND))
        w.flow(FIRST, 1, match("ip", in_port=8), Ct(ZONE, SECOND, commit=True, mark=1))
        w.flow(FIRST, 1, match("ip", in_port=9), Ct(SNAT_ZONE, SECOND))
        w.flow(SECOND, 1, match("ip", ct_mark=1), Output(1))
        w.flow(SECOND, 1, match("ip", ct_mark=0), Output(2))

    bridge = switch(build)
    seen = [bridge.run({**PACKET, "in_port": port}).outputs[0][0] for port in (7, 7, 8, 7, 9)]
    assert seen == [2, 2, 1, 1, 2]


def test_packet_is_translated_once_in_a_zone_however_often_it_is_tracked_there() -> None:
    def build(w: Writer) -> None:
        w.flow(FIRST, 1, match("ip"), Ct(ZONE, SECOND, commit=True, nat=Nat("dst", 9)))
        w.flow(SECOND, 1, match("ip"), Ct(ZONE, LAST, nat=Nat()))
        w.flow(LAST, 1, match(), Output(1))

    bridge = switch(build)
    assert [bridge.run(PACKET).outputs[0][1]["nw_dst"] for _ in range(2)] == [9, 9]


def test_two_connections_that_would_get_the_same_answer_are_an_error() -> None:
    hide = Ct(ZONE, SECOND, commit=True, nat=Nat("src", 1))
    bridge = switch(lambda w: w.flow(FIRST, 1, match("ip"), hide))
    bridge.run(PACKET)
    with pytest.raises(NotUnderstood, match="share"):
        bridge.run({**PACKET, "nw_src": 9})


def test_ttl_of_one_ends_here() -> None:
    bridge = switch(lambda w: w.flow(FIRST, 1, match("ip"), DecTtl(), Output(1)))
    assert bridge.run({**PACKET, "nw_ttl": 2}).outputs[0][1]["nw_ttl"] == 1
    assert bridge.run({**PACKET, "nw_ttl": 1}).drops == ["TTL ends"]


def test_bucket_changes_do_not_reach_what_follows_the_group() -> None:
    def build(w: Writer) -> None:
        w.group(1, [Bucket((Ct(ZONE, SECOND, commit=True, nat=Nat("dst", 9)),))])
        w.flow(FIRST, 1, match("ip"), ToGroup(1), Output(1))
        w.flow(SECOND, 1, match(), Output(2))

    trace = switch(build).run(PACKET)
    assert [(port, out["nw_dst"]) for port, out in trace.outputs] == [(1, PACKET["nw_dst"]), (2, 9)]


def test_only_buckets_whose_port_is_up_are_offered() -> None:
    def build(w: Writer) -> None:
        w.group(1, [Bucket((Output(port),), watch=port) for port in (1, 2)])
        w.flow(FIRST, 1, match(), ToGroup(1))

    bridge = switch(build)
    assert [bridge.run(PACKET, lambda *_, i=i: i).outputs[0][0] for i in (0, 1)] == [1, 2]
    bridge.down = {1}
    assert bridge.run(PACKET).outputs[0][0] == 2
    bridge.down = {1, 2}
    assert bridge.run(PACKET).drops == ["group 1: no bucket's port is up"]


def test_output_to_a_dead_port_is_lost() -> None:
    bridge = switch(lambda w: w.flow(FIRST, 1, match(), Output(1)))
    bridge.down = {1}
    assert bridge.run(PACKET).drops == ["output:1 is down"]


@pytest.mark.parametrize(
    "actions",
    [
        (Output(0xFFFFFFFB),),  # FLOOD
        (Output(0xFFFFFFFC),),  # ALL
        (Output(0xFFFFFFFD),),  # CONTROLLER
        (Output(0),),
        (OutputField(f.OUT_PORT),),  # never set
        (ForgetInPort(), Output(IN_PORT_NUMBER)),
        (Set(f.PKT_SOURCE, 1),),
        (Set(f.PKT_SOURCE, 16), Output(1)),
        (Set(f.ARP_OP, 2), Output(1)),  # no such field in an IP packet
        (Ct(ZONE, SECOND, mark=1),),
        (Ct(ZONE, SECOND, nat=Nat()), Output(1)),
    ],
    ids=action_text,
)
def test_action_that_is_not_known_to_work_is_an_error(actions: tuple[Action, ...]) -> None:
    with pytest.raises(NotUnderstood):
        one_flow(*actions)


@pytest.mark.parametrize("actions", [(), (Output(1), Output(2)), (Goto(SECOND),)], ids=action_text)
def test_bucket_whose_outcome_is_not_certain_is_an_error(actions: tuple[Action, ...]) -> None:
    flow = Flow(FIRST, 1, match(), (ToGroup(1),), "test", "test", "here:1", 0)
    group = Group(1, (Bucket(actions),), "test", "test")
    with pytest.raises(NotUnderstood, match="bucket"):
        Switch({"test": Fragment("test", (flow,), (group,))}).run(PACKET)


def test_missing_group_is_an_error() -> None:
    with pytest.raises(KeyError):
        one_flow(ToGroup(1))


@pytest.mark.parametrize(
    "packet",
    [
        {**PACKET, "nw_tos": 1},
        {**PACKET, "in_port": 0},
        {name: value for name, value in PACKET.items() if name != "in_port"},
        {name: value for name, value in PACKET.items() if name != "nw_dst"},
        {**PACKET, "nw_proto": 47},
        {**PACKET, "nw_proto": 1, "icmp_type": 13},
    ],
)
def test_packet_that_is_incomplete_or_of_an_unknown_kind_is_an_error(packet: Packet) -> None:
    def build(w: Writer) -> None:
        w.flow(FIRST, 1, match("ip", nw_dst="10.0.0.2"), Ct(ZONE, SECOND))

    with pytest.raises(NotUnderstood):
        switch(build).run(packet)


def test_icmp_error_is_invalid_where_it_can_be_about_no_connection_and_an_error_where_it_can() -> None:
    def build(w: Writer) -> None:
        w.flow(FIRST, 1, match("ip"), Ct(ZONE, SECOND, commit=True))
        w.flow(SECOND, 2, match("ip", ct_state="+inv+trk"), Output(1))
        w.flow(SECOND, 1, match("ip"), Output(2))

    bridge, unreachable = switch(build), {**PACKET, "nw_proto": 1, "icmp_type": 3}
    assert [port for port, _ in bridge.run(unreachable).outputs] == [1]
    bridge.run(PACKET)
    with pytest.raises(NotUnderstood, match="may be about"):
        bridge.run(unreachable)


def test_match_on_translation_state_is_an_error() -> None:
    with pytest.raises(NotUnderstood, match="snat"):
        switch(lambda w: w.flow(FIRST, 1, match("ip", ct_state=(64, 64)), Output(1))).run(PACKET)

"""Flows as values: what is refused, cookies, numbers, and that a difference or a read-back leads to what is wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from unittest.mock import patch
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers import wire
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import ZONE, Action, Copy, Ct, Goto, Output, OutputField, Set, ToGroup
from controllers.flow.diff import Change, difference
from controllers.flow.fields import RegisterOverlap, check_registers, ct_state
from controllers.flow.program import (
    MAGIC,
    BadFlow,
    Bucket,
    Flow,
    Fragment,
    Group,
    MatchItem,
    Program,
    Slot,
    Writer,
    check,
    cookie_of,
    listing,
    match,
    match_text,
)
from controllers.numbering import assign_numbers
from controllers.sync import Held, is_ours, resync

# CRC-32 gives these two the same number, and texts that differ only in them too.
TWINS = ("plumless", "buckeroo")


def one_flow(table: t.Table, *actions: object, **items: int) -> Flow:
    w = Writer("test", "test")
    w.flow(table, 1, match(**items), *actions)  # type: ignore[arg-type]
    return w.fragment().flows[0]


def test_match_prints_as_ovs_ofctl_does_whatever_the_order_of_its_parts() -> None:
    one = match("tcp", tp_dst=80, nw_dst="10.96.0.0/16", ct_state="-new+est+trk", in_port=3, ct_mark=(1, 1))
    two = match("tcp", ct_mark=(1, 1), in_port=3, ct_state="-new+est+trk", nw_dst="10.96.7.7/16", tp_dst=80)
    assert one == two
    assert match_text(one) == "tcp,ct_state=-new+est+trk,ct_mark=0x1/0x1,in_port=3,nw_dst=10.96.0.0/16,tp_dst=80"


@pytest.mark.parametrize(
    ("protocol", "name", "error"),
    [("", "nw_dst", BadFlow), ("arp", "nw_dst", BadFlow), ("ip", "arp_tpa", BadFlow), ("ip", "tp_dst", KeyError)]
    + [("arp", "ct_state", BadFlow), ("udp", "tp_port", KeyError), ("", "ct_mark", BadFlow)],
)
def test_match_on_a_field_that_the_packet_cannot_have_is_refused(
    protocol: str, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=name):
        match(protocol, **{name: 1})


def test_protocols_with_ports_have_fields_of_their_own() -> None:
    fields = [match(protocol, tp_dst=80)[-1][0] for protocol in ("tcp", "udp", "sctp")]
    assert fields == [f.TCP_DST, f.UDP_DST, f.SCTP_DST]


def test_connection_state_names_each_flag() -> None:
    assert ct_state("+trk-new+est") == (32 | 2, 32 | 1 | 2)
    with pytest.raises(KeyError):
        ct_state("+old")


@pytest.mark.parametrize(
    ("actions", "reason"),
    [
        ((Goto(t.CLASSIFIER),), "does not go forward"),
        ((Goto(t.SPOOF_GUARD),), "does not go forward"),
        ((Ct(ZONE, t.SPOOF_GUARD),), "does not go forward"),
        ((Goto(t.OUTPUT), Output(1)), "must come last"),
        ((Set(f.OUT_PORT, 1), Goto(t.OUTPUT)), "OutPort is not alive in SpoofGuard"),
        ((OutputField(f.OUT_PORT),), "OutPort is not alive in SpoofGuard"),
        ((Copy(f.IP_DST, f.OUT_PORT), Goto(t.OUTPUT)), "OutPort is not alive in SpoofGuard"),
        ((Copy(f.SWAP, f.ARP_SPA), Goto(t.OUTPUT)), "Swap is not alive in SpoofGuard"),
        ((Goto(t.FABRIC_FORWARD),), "does not go forward"),  # of another kind of bridge
    ],
)
def test_flow_that_leaves_the_pipeline_is_refused_with_its_line(actions: tuple[object, ...], reason: str) -> None:
    with pytest.raises(BadFlow, match=rf"^test_flow.py:\d+: .*{reason}"):
        one_flow(t.SPOOF_GUARD, *actions)


def test_match_on_a_register_outside_its_life_is_refused() -> None:
    with pytest.raises(BadFlow, match="Hairpin is not alive in Reject"):
        one_flow(t.REJECT, Hairpin=1)


def test_registers_may_share_bits_only_where_not_both_live() -> None:
    early, late = replace(f.HAIRPIN, name="one", since=0, until=9), replace(f.HAIRPIN, name="two", since=10, until=20)
    check_registers((early, late))
    with pytest.raises(RegisterOverlap, match=r"one \(reg0\[4..4\]\) and two"):
        check_registers((early, replace(late, since=9)))


def test_program_in_which_two_write_one_slot_or_one_group_is_refused() -> None:
    one, two = Writer("a", "x"), Writer("b", "y")
    for w in (one, two):
        w.flow(t.OUTPUT, 1, match(), Output(1))
    with pytest.raises(BadFlow, match="both write"):
        check({"a": one.fragment(), "b": two.fragment()})
    groups = Group(1, (), "a", "x"), Group(1, (), "b", "y")
    with pytest.raises(BadFlow, match="group 1 is wanted by y and x"):
        check({"a": Fragment("a", groups=groups[:1]), "b": Fragment("b", groups=groups[1:])})


def test_difference_refuses_two_that_come_to_one_slot() -> None:
    one, two = one_flow(t.OUTPUT, Output(1)), one_flow(t.OUTPUT, Output(2))
    with pytest.raises(BadFlow, match="both write"):
        difference({}, {"a": Fragment("a", (one,)), "b": Fragment("b", (two,))})


def test_cookie_is_the_same_for_the_same_flow_and_another_for_any_other() -> None:
    base = (t.OUTPUT, 1, match(in_port=1), (Output(1),), "feature", "owner")
    others = [
        (t.REJECT, 1, match(in_port=1), (Output(1),), "feature", "owner"),
        (t.OUTPUT, 2, match(in_port=1), (Output(1),), "feature", "owner"),
        (t.OUTPUT, 1, match(in_port=2), (Output(1),), "feature", "owner"),
        (t.OUTPUT, 1, match(in_port=1), (Output(2),), "feature", "owner"),
        (t.OUTPUT, 1, match(in_port=1), (Output(1),), "other", "owner"),
        (t.OUTPUT, 1, match(in_port=1), (Output(1),), "feature", "other"),
    ]
    cookies = [cookie_of(*x) for x in (base, *others)]
    assert cookie_of(*base) == cookies[0]
    assert len(set(cookies)) == len(cookies)
    assert all(is_ours(x) and x >> 56 == MAGIC for x in cookies)
    assert [x & 0xFF for x in cookies[:2]] == [90, 95]


TABLE, REGISTER = replace(t.OUTPUT, number=91), replace(f.OUT_PORT, number=7)
# A register whose value is called the same after it was renumbered.
NAMED = replace(f.PKT_SOURCE, show=lambda value: "Pod")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((match(), Goto(t.OUTPUT)), (match(), Goto(TABLE))),
        ((match(), Ct(ZONE, t.OUTPUT)), (match(), Ct(ZONE, TABLE))),
        ((match(), Set(f.OUT_PORT, 1)), (match(), Set(REGISTER, 1))),
        ((match(), OutputField(f.OUT_PORT)), (match(), OutputField(REGISTER))),
        ((match(), Copy(f.IP_DST, f.OUT_PORT)), (match(), Copy(f.IP_DST, REGISTER))),
        ((match(OutPort=1), Output(1)), (((REGISTER, 1, None),), Output(1))),
        ((match(), Set(NAMED, 1)), (match(), Set(NAMED, 5))),
        ((((NAMED, 1, None),), Output(1)), (((NAMED, 5, None),), Output(1))),
    ],
    ids=lambda flow: f"{match_text(flow[0])} {flow[1]}",
)
def test_cookie_changes_when_a_number_of_the_flow_changes_under_its_name(
    old: tuple[tuple[MatchItem, ...], Action], new: tuple[tuple[MatchItem, ...], Action]
) -> None:
    one, two = (cookie_of(t.SNAT, 0, items, (action,), "base", "bridge") for items, action in (old, new))
    assert one != two


def test_cookie_changes_when_a_zone_is_renumbered() -> None:
    old = cookie_of(t.SNAT, 0, match("ip"), (Ct(ZONE, t.OUTPUT),), "base", "bridge")
    with patch.dict("controllers.flow.actions._ZONES", {5: "Main"}):
        assert cookie_of(t.SNAT, 0, match("ip"), (Ct(5, t.OUTPUT),), "base", "bridge") != old


@dataclass
class Model:
    """A switch: flows by slot, groups by number; as strict as Open vSwitch about groups."""

    flows: dict[Slot, Flow] = field(default_factory=dict)
    groups: dict[int, tuple[Bucket, ...]] = field(default_factory=dict)

    def apply(self, change: Change) -> None:
        for group in change.set_groups:
            self.groups[group.id] = group.buckets
        for flow in change.set_flows:
            assert {x.group for x in flow.actions if isinstance(x, ToGroup)} <= self.groups.keys()
            self.flows[flow.slot] = flow
        for flow in change.remove_flows:
            del self.flows[flow.slot]
        for group in change.remove_groups:
            self.remove_group(group.id)

    def remove_group(self, number: int) -> None:
        # With a group, a switch removes the flows that use it.
        assert not any(ToGroup(number) in flow.actions for flow in self.flows.values())
        del self.groups[number]

    def remove_cookie(self, table: int, cookie: int) -> None:
        self.flows = {k: x for k, x in self.flows.items() if (x.table.number, x.cookie) != (table, cookie)}

    def held(self) -> Held:
        places = Counter((x.table.number, x.cookie) for x in self.flows.values() if is_ours(x.cookie))
        groups = {n: wire.buckets(Group(n, buckets, "", "")) for n, buckets in self.groups.items()}
        return Held(set(places), groups, {place for place, times in places.items() if times > 1})

    def content(self) -> tuple[object, ...]:
        return {slot: (x.actions, x.cookie) for slot, x in self.flows.items()}, self.groups


def model(program: Program) -> Model:
    """A switch that holds exactly this."""
    fragments = program.values()
    flows = {x.slot: x for fragment in fragments for x in fragment.flows}
    return Model(flows, {g.id: g.buckets for fragment in fragments for g in fragment.groups})


SLOTS = [(table, port) for table in (t.CLASSIFIER, t.OUTPUT) for port in range(4)]
# For each slot who wants it and where to: a port, or a group of the owner's with these ports.
WISHES = st.dictionaries(
    st.sampled_from(SLOTS),
    st.tuples(st.sampled_from("abc"), st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))),
)
Wishes = Mapping[tuple[t.Table, int], tuple[str, int | tuple[int, int]]]


def program_of(wishes: Wishes, before: Program | None = None) -> dict[str, Fragment]:
    """A program that fulfils the wishes; a fragment that stays equal to one of `before` is that one."""
    writers = {owner: Writer("test", owner) for owner, _ in wishes.values()}
    for (table, port), (owner, target) in wishes.items():
        if isinstance(target, int):
            writers[owner].flow(table, 1, match(in_port=port), Output(target))
            continue
        number = SLOTS.index((table, port)) + 1
        writers[owner].group(number, [Bucket((Output(x),)) for x in target])
        writers[owner].flow(table, 1, match(in_port=port), ToGroup(number))
    made = {w.fragment().key: w.fragment() for w in writers.values()}
    for key, old in (before or {}).items():
        if key in made and listing({"": old}) == listing({"": made[key]}):
            made[key] = old
    return made


@given(WISHES, WISHES)
def test_difference_applied_to_the_old_program_gives_the_new_one(old_wishes: Wishes, new_wishes: Wishes) -> None:
    old = program_of(old_wishes)
    new = program_of(new_wishes, before=old)
    switch = model(old)
    switch.apply(difference(old, new))
    assert switch.content() == model(new).content()


@given(WISHES, WISHES)
def test_difference_sends_nothing_that_stands_and_removes_nothing_that_stays(
    old_wishes: Wishes, new_wishes: Wishes
) -> None:
    old, new = program_of(old_wishes), program_of(new_wishes)
    change, had, wanted = difference(old, new), model(old), model(new)
    for flow in change.set_flows:
        before = had.flows.get(flow.slot)
        assert before is None or (before.actions, before.cookie) != (flow.actions, flow.cookie)
    assert not {flow.slot for flow in change.remove_flows} & wanted.flows.keys()
    assert not [g for g in change.set_groups if had.groups.get(g.id) == g.buckets]
    assert not {g.id for g in change.remove_groups} & wanted.groups.keys()


def test_difference_compares_actions_and_not_cookies_only() -> None:
    one, two = one_flow(t.OUTPUT, Output(1)), replace(one_flow(t.OUTPUT, Output(2)), cookie=0)
    change = difference({"a": Fragment("a", (replace(one, cookie=0),))}, {"a": Fragment("a", (two,))})
    assert (change.set_flows, change.remove_flows) == ((two,), ())


@given(WISHES)
def test_difference_of_a_program_with_itself_is_empty(wishes: Wishes) -> None:
    program = program_of(wishes)
    assert not difference(program, program)
    assert not difference(program, program_of(wishes))  # equal, but made anew
    assert difference(program, program).text() == ""


def test_difference_reads_as_what_is_added_and_what_is_removed() -> None:
    old, new = program_of({SLOTS[0]: ("a", 1), SLOTS[1]: ("a", 1)}), program_of({SLOTS[0]: ("a", (2, 3))})
    assert difference(old, new).text().splitlines() == [
        "+ group_id=1,type=select,bucket=weight:1,actions=output:2,bucket=weight:1,actions=output:3",
        "+ table=Classifier, priority=1,in_port=0 actions=group:1",
        "- table=Classifier, priority=1,in_port=1 actions=output:1",
    ]


def read_back(switch: Model, program: Program) -> None:
    """Do to the switch what a resynchronisation would send."""
    todo = resync(switch.held(), program)
    for place in todo.doubtful:
        switch.remove_cookie(*place)
    switch.apply(todo.change)
    for place in todo.stale_cookies:
        switch.remove_cookie(*place)
    for number in todo.stale_groups:
        switch.remove_group(number)


FOREIGN = Flow(t.OUTPUT, 7, match(), (), "somebody", "else", "", 0x1234)


@given(WISHES, WISHES)
def test_read_back_leads_from_any_program_to_the_wanted_one_and_leaves_what_is_not_ours(
    old_wishes: Wishes, new_wishes: Wishes
) -> None:
    old, new = program_of(old_wishes), program_of(new_wishes)
    switch, wanted = model(old), model(new)
    for one in (switch, wanted):
        one.flows[FOREIGN.slot] = FOREIGN
    read_back(switch, new)
    assert switch.content() == wanted.content()


@given(WISHES)
def test_read_back_of_what_is_wanted_sends_nothing(wishes: Wishes) -> None:
    todo = resync(model(program_of(wishes)).held(), program_of(wishes))
    assert not todo.change
    assert (todo.stale_cookies, todo.stale_groups) == ((), ())


def with_one_cookie(*slots: tuple[t.Table, int]) -> Program:
    """Flows of one table that all bear the same cookie."""
    (fragment,) = program_of(dict.fromkeys(slots, ("a", 1))).values()
    return {fragment.key: replace(fragment, flows=tuple(replace(x, cookie=MAGIC << 56 | 1) for x in fragment.flows))}


@pytest.mark.parametrize("held", [(), SLOTS[:1], SLOTS[1:2], SLOTS[:2]])
def test_wanted_flows_that_share_a_cookie_are_sent_whichever_are_held(held: list[tuple[t.Table, int]]) -> None:
    program = with_one_cookie(*SLOTS[:2])
    switch = model(with_one_cookie(*held)) if held else Model()
    assert len(resync(switch.held(), program).change.set_flows) == 2
    read_back(switch, program)
    assert switch.content() == model(program).content()


def test_held_flow_that_shares_its_cookie_with_a_wanted_one_is_removed() -> None:
    switch, program = model(with_one_cookie(*SLOTS[:2])), with_one_cookie(SLOTS[0])
    read_back(switch, program)
    assert switch.content() == model(program).content()


KEYS = st.sets(st.one_of(st.text(max_size=8), st.sampled_from(TWINS)))


@given(KEYS)
def test_numbers_are_unique_and_fit_a_group(keys: set[str]) -> None:
    numbers = assign_numbers(keys)
    assert numbers.keys() == keys
    assert len(set(numbers.values())) == len(keys)
    assert all(0 < number < 1 << 31 for number in numbers.values())


@given(KEYS, st.randoms(use_true_random=False))
def test_numbers_do_not_depend_on_the_order_of_keys(keys: set[str], mix: object) -> None:
    assert assign_numbers(mix.sample(sorted(keys), len(keys))) == assign_numbers(keys)  # type: ignore[attr-defined]


@given(st.sets(st.text(max_size=8), min_size=1))
def test_number_stays_when_keys_that_do_not_collide_come_and_go(keys: set[str]) -> None:
    every, *rest = assign_numbers(keys), *(assign_numbers(keys - {key}) for key in sorted(keys))
    hashes = [crc32(key.encode()) & 0x7FFFFFFF or 1 for key in keys]
    if len(set(hashes)) == len(hashes):
        assert all(every[key] == number for less in rest for key, number in less.items())


def test_keys_whose_hashes_collide_get_neighbouring_numbers() -> None:
    assert crc32(TWINS[0].encode()) == crc32(TWINS[1].encode())
    alone = assign_numbers(TWINS[:1])
    both = assign_numbers(TWINS)
    assert both == {"buckeroo": alone["plumless"], "plumless": alone["plumless"] + 1}

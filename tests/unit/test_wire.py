"""OpenFlow bytes: everything a flow or group can say, read back by Ryu's own parser, means what it meant."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from ryu.ofproto import ofproto_parser
from views import OVS, cluster, cni_of, fabric

from controllers import wire
from controllers.compile import fabric_switch, pod_bridge, uplink_bridge
from controllers.flow import actions as a
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.program import (
    Bucket,
    Flow,
    Group,
    MatchItem,
    Program,
    Translation,
    cookie_of,
    match,
    match_text,
)
from controllers.ryu_compat import ProtocolDesc, ofp, parser

FIELDS = [x for x in vars(f).values() if isinstance(x, f.Field)]
PLAIN = {x.oxm: x for x in FIELDS if not isinstance(x, f.Register)}
# One more register field that does not begin at bit 0.
FLAG = replace(f.HAIRPIN, name="Flag", number=4, oxm="reg4", nxm="reg4")
REGISTERS = (*f.REGISTERS, FLAG)


def parsed(raw: bytes) -> Any:
    """The message as Ryu reads it."""
    version, kind, length, xid = struct.unpack_from("!BBHI", raw)
    assert (version, length) == (ofp.OFP_VERSION, len(raw))
    return ofproto_parser.msg(ProtocolDesc(version=version), version, kind, length, xid, raw)


def number(value: int | str) -> int:
    if isinstance(value, str):
        return f.mac_number(value) if ":" in value else f.ip_number(value)
    return value


def register(name: str, mask: int) -> f.Register:
    return next(x for x in REGISTERS if (x.oxm, x.mask) == (name, mask))


def place(name: str, first: int, bits: int) -> f.Field:
    """The field that is these bits of what Ryu calls `name`."""
    if name.startswith("reg"):
        return register(name, ((1 << bits) - 1) << first)
    found = PLAIN[name]
    assert (first, bits) == (0, found.bits)
    return found


def set_of(read: Any) -> a.Action:
    """Our value for a set_field: a register's bits, all of a packet field, or the forgotten in_port."""
    if read.key == "in_port_nxm":
        assert read.value == 0
        return a.ForgetInPort()
    if not read.key.startswith("reg"):
        return a.Set(PLAIN[read.key], number(read.value))
    full = (1 << 32) - 1
    value, mask = read.value if isinstance(read.value, tuple) else (read.value, full)
    target = register(read.key, mask)
    return a.Set(target, value >> target.first)


def action_of(read: Any, tables: dict[int, t.Table]) -> a.Action:
    """Our value for an action, or a goto instruction, that Ryu read."""
    match type(read).__name__:
        case "OFPInstructionGotoTable":
            return a.Goto(tables[read.table_id])
        case "OFPActionOutput":
            return a.Output(read.port)
        case "NXActionOutputReg":
            return a.OutputField(place(read.src, read.ofs_nbits >> 6, (read.ofs_nbits & 0x3F) + 1))
        case "OFPActionSetField":
            return set_of(read)
        case "OFPActionCopyField":
            source, target = (x.type for x in read.oxm_ids)
            bits = read.n_bits
            return a.Copy(place(source, read.src_offset, bits), place(target, read.dst_offset, bits))
        case "OFPActionDecNwTtl":
            return a.DecTtl()
        case "OFPActionGroup":
            return a.ToGroup(read.group_id)
        case "NXActionCT":
            assert (read.zone_src, read.alg) == ("", 0)
            nested = {type(x).__name__: x for x in read.actions}
            nat, load = nested.pop("NXActionNAT", None), nested.pop("OFPActionSetField", None)
            assert not nested
            # Bits that are written are set or cleared: others stay as they are.
            assert load is None or (load.key == "ct_mark" and load.value[0] & ~load.value[1] == 0)
            mark = None if load is None else load.value[0] or None
            unmark = 0 if load is None else load.value[1] & ~load.value[0]
            commit = {0: False, 1: True}[read.flags]
            return a.Ct(read.zone_ofs_nbits, tables[read.recirc_table], commit, nat and nat_of(nat), mark, unmark)
        case "NXActionConjunction":
            return a.Conjunction(read.id, read.clause + 1, read.n_clauses)
        case "NXActionResubmitTable":
            assert read.in_port == 0xFFF8  # OFPP_IN_PORT: the packet's own
            return a.Again() if read.table_id == 255 else a.Resubmit(tables[read.table_id])
        case "NXActionMultipath":
            assert (read.algorithm, read.arg) == (0, 0)  # modulo_n
            fields = {3: "symmetric_l3l4+udp", 4: "nw_src", 5: "nw_dst"}[read.fields]
            return a.Multipath(fields, read.max_link + 1, place(read.dst, *first_and_bits(read)))  # type: ignore[arg-type]
        case "NXActionLearn":
            return learn_of(read, tables)
    raise AssertionError(f"{read} is nothing we send")


def first_and_bits(read: Any) -> tuple[int, int]:
    return read.ofs_nbits >> 6, (read.ofs_nbits & 0x3F) + 1


def learn_of(read: Any, tables: dict[int, t.Table]) -> a.Learn:
    """Matches on IPv4 and on fields equal to this packet's, then one load."""
    kind, *same, load = read.specs
    assert (kind.src, kind.dst, kind.n_bits) == (0x800, ("eth_type_nxm", 0), 16)
    assert (read.hard_timeout, read.fin_idle_timeout, read.fin_hard_timeout, read.flags) == (0, 0, 0, 2)
    fields = []
    for one in same:
        assert type(one).__name__ == "NXFlowSpecMatch" and one.src == one.dst
        name, first = one.src
        plain = {x.nxm: x for x in PLAIN.values()}
        fields.append(plain[name] if name in plain else place(name, first, one.n_bits))
    target = place(load.dst[0], load.dst[1], load.n_bits)
    assert type(load).__name__ == "NXFlowSpecLoad" and isinstance(target, f.Register)
    into = tables[read.table_id]
    return a.Learn(into, read.priority, tuple(fields), target, load.src, read.cookie, read.idle_timeout)


def nat_of(read: Any) -> a.Nat:
    assert not (read.range_ipv4_max or read.range_ipv6_min or read.range_ipv6_max)
    ip = f.ip_number(read.range_ipv4_min) if read.range_ipv4_min else 0
    return a.Nat({0: "", 1: "src", 2: "dst"}[read.flags], ip, read.range_proto_min or 0, read.range_proto_max or 0)


def match_of(read: Any) -> set[MatchItem]:
    """Our match items for an OFPMatch; one on a register becomes one for each field that its mask covers."""
    items: set[MatchItem] = set()
    for name, raw in read.items():
        value, mask = (number(raw[0]), number(raw[1])) if isinstance(raw, tuple) else (number(raw), None)
        if not name.startswith("reg"):
            items.add((PLAIN[name], value, mask))
            continue
        assert mask is not None
        for one in (x for x in f.REGISTERS if x.oxm == name and x.mask & mask):
            assert one.mask & mask == one.mask
            items.add((one, (value & one.mask) >> one.first, None))
    return items


def flow_of(raw: bytes, tables: dict[int, t.Table]) -> tuple[Any, set[MatchItem], tuple[a.Action, ...]]:
    """Message, match and actions of a flow-mod."""
    message = parsed(raw)
    actions: list[a.Action] = []
    for instruction in message.instructions:
        if instruction.type == ofp.OFPIT_APPLY_ACTIONS:
            actions += [action_of(x, tables) for x in instruction.actions]
        else:
            actions.append(action_of(instruction, tables))
    return message, match_of(message.match), tuple(actions)


def flow(table: t.Table, items: tuple[MatchItem, ...], *actions: a.Action) -> Flow:
    """A flow that no Writer has checked."""
    return Flow(
        table, 7, items, actions, "test", "owner", "here:1", cookie_of(table, 7, items, actions, "test", "owner")
    )


TABLES = {x.number: x for x in t.POD_BRIDGE}
ACTIONS = [
    a.Output(5),
    a.Output(f.LOCAL),
    a.Output(a.IN_PORT_NUMBER),
    a.OutputField(f.OUT_PORT),
    *(a.Set(x, 1) for x in f.REGISTERS),
    *(a.Set(x, 1) for x in (f.ETH_SRC, f.ETH_DST, f.ARP_OP, f.ARP_SPA, f.ARP_TPA, f.ARP_SHA, f.ARP_THA)),
    *(a.Set(x, 1) for x in (f.IP_SRC, f.IP_DST, f.TCP_DST, f.UDP_DST, f.TUN_DST, f.TUN_ID)),
    a.Set(f.ETH_DST, (1 << 48) - 1),
    a.Set(f.OUT_PORT, (1 << 32) - 1),
    a.Set(f.DROP_REASON, 255),
    *(a.Copy(x, y) for x, y in ((f.ETH_SRC, f.ETH_DST), (f.ARP_SHA, f.ARP_THA), (f.ARP_SPA, f.ARP_TPA))),
    *(a.Copy(x, y) for x, y in ((f.ARP_TPA, f.SWAP), (f.SWAP, f.ARP_SPA), (f.IP_SRC, f.IP_DST))),
    a.ForgetInPort(),
    a.DecTtl(),
    a.ToGroup(0x7FFFFFFF),
    a.Goto(t.DROP),
    a.Ct(a.ZONE, t.DROP),
    a.Ct(a.SNAT_ZONE, t.DROP, commit=True),
    a.Ct(a.ZONE, t.DROP, commit=True, mark=a.ALLOWED),
    a.Ct(a.ZONE, t.DROP, commit=True, mark=0x80000000),
    a.Ct(a.ZONE, t.DROP, nat=a.Nat()),
    a.Ct(a.ZONE, t.DROP, commit=True, nat=a.Nat("dst", 0x0A000001, 8080)),
    a.Ct(a.ZONE, t.DROP, commit=True, nat=a.Nat("src", 0x0A000001)),
    a.Ct(a.ZONE, t.DROP, commit=True, nat=a.Nat("src", 0x0A000001, 1024, 32767)),
    a.Ct(a.ZONE, t.DROP, commit=True, nat=a.Nat("src", 0x0A000001, 1024, 32767), mark=a.ALLOWED),
    a.Ct(a.ZONE, t.DROP, commit=True, nat=a.Nat("src", 1), mark=a.ALLOWED),
    a.Ct(a.ZONE, t.DROP, commit=True, mark=0x6),
    a.Copy(f.HAIRPIN, FLAG),
    a.Copy(FLAG, f.HAIRPIN),
    a.Resubmit(t.SERVICE_MEMORY),
    a.Again(),
    *(a.Multipath(fields, links, f.INDEX) for fields in ("symmetric_l3l4+udp", "nw_src", "nw_dst") for links in (1, 7)),
    a.Multipath("nw_src", 65535, f.INDEX),
    a.Learn(t.SERVICE_MEMORY, t.HIGH, (f.IP_SRC, f.SERVICE), f.ENDPOINT, 65535, 0x6C << 56 | 1, 65535),
    a.Learn(t.SERVICE_MEMORY, t.NORMAL, (f.SERVICE,), f.INDEX, 0, 0x6C << 56 | 2),
]


GAP = a.Ct(a.ZONE, t.DROP, commit=True, mark=0x5)


@pytest.mark.parametrize(
    "action",
    [*ACTIONS, GAP],
    ids=str,
)
def test_action_means_the_same_on_the_wire(action: a.Action) -> None:
    sent = flow(t.ARP_RESPONDER, match(), action)
    assert flow_of(wire.set_flow(sent), TABLES)[2] == (action,)


def test_actions_keep_their_order_and_goto_comes_last() -> None:
    actions = (a.Set(f.ETH_DST, 1), a.DecTtl(), a.Set(f.ETH_DST, 2), a.Output(1), a.Goto(t.DROP))
    assert flow_of(wire.set_flow(flow(t.OUTPUT, match(), *actions)), TABLES)[2] == actions


def test_drop_has_no_instructions() -> None:
    assert parsed(wire.set_flow(flow(t.DROP, match(DropReason=1)))).instructions == []


@pytest.mark.parametrize("field", FIELDS, ids=lambda x: f"{x.needs}-{x.name}")
@pytest.mark.parametrize("value", [0, 1, "all ones"])
def test_exact_match_means_the_same_on_the_wire(field: f.Field, value: int | str) -> None:
    bits = (1 << field.bits) - 1 if value == "all ones" else int(value)
    items = match(field.needs, **{field.name: bits}) if field.name != "dl_type" else ((field, bits, None),)
    assert match_of(parsed(wire.set_flow(flow(t.UN_SNAT, items))).match) == set(items)


@pytest.mark.parametrize(
    "items",
    [
        match("ip", nw_dst="10.96.0.0/16", nw_src="10.0.0.0/8"),
        match("arp", arp_tpa="10.0.0.0/24"),
        match("ip", ct_state="-new+est-rpl+trk", ct_mark=(0, a.ALLOWED)),
        match("ip", ct_state="+inv+trk", ct_mark=(1, 1)),
        match(PktSource=3, Hairpin=1, DropReason=2),
        match("tcp", PktSource=0, nw_dst="10.96.0.10", tp_dst=443),
        match("sctp", tp_dst=(80, 0xFFF0)),
        match("ip", conj_id=7),
        match(),
    ],
    ids=match_text,
)
def test_match_of_several_parts_means_the_same_on_the_wire(items: tuple[MatchItem, ...]) -> None:
    assert match_of(parsed(wire.set_flow(flow(t.UN_SNAT, items))).match) == set(items)


def programs() -> dict[str, tuple[t.Pipeline, Program]]:
    found = {
        f"{name} {cni} {bridge}": (t.PIPELINES[bridge], program)
        for cni in ("flannel", "calico")
        for name, view in cluster(cni).items()
        for bridge, program in (
            ("br-int", pod_bridge(view, cni_of(view), OVS)),
            ("br-ex", uplink_bridge(view, cni_of(view))),
        )
    }
    return found | {name: (t.PIPELINES["br-fabric"], fabric_switch(view)) for name, view in fabric().items()}


@pytest.mark.parametrize("name", programs())
def test_every_flow_of_a_program_comes_back_as_it_was_with_its_cookie_in_place(name: str) -> None:
    pipeline, program = programs()[name]
    tables = {table.number: table for table in pipeline}
    for sent in (x for fragment in program.values() for x in fragment.flows):
        raw = wire.set_flow(sent)
        message, items, actions = flow_of(raw, tables)
        assert (message.command, message.table_id, message.priority) == (0, sent.table.number, sent.priority)
        assert (items, actions) == (set(sent.match), sent.actions)
        assert (message.idle_timeout, message.hard_timeout, message.flags) == (0, 0, 0)
        assert struct.unpack_from("!Q", raw, 8) == (message.cookie,) == (sent.cookie,)


def test_clauses_and_a_cleared_mark_mean_the_same_on_the_wire() -> None:
    tables = {table.number: table for table in t.POD_BRIDGE}
    clauses = a.Conjunction(7, 1, 3), a.Conjunction(8, 2, 2)
    clear = (a.Ct(a.ZONE, t.DROP, commit=True, unmark=a.ALLOWED),)
    for table, actions in ((t.EGRESS_POLICY, clauses), (t.DENY, clear)):
        assert flow_of(wire.set_flow(flow(table, match("ip"), *actions)), tables)[2] == actions


# Netronome's property: dp_hash, over ports of UDP too.
DP_HASH = struct.pack("!HHII4x16sQ", 0xFFFF, 40, 0x154D, 1, b"dp_hash", 0)


def buckets_of(raw: bytes, tables: dict[int, t.Table]) -> list[Bucket]:
    """The buckets of a group-mod or group description (OpenFlow 1.5), each read to the length it states."""
    found = []
    while raw:
        length, size, number = struct.unpack_from("!HHI", raw)
        assert (length % 8, size % 8, number) == (0, 0, len(found))
        actions, properties = raw[8 : 8 + size], raw[8 + size : length]
        values: list[a.Action] = []
        while actions:
            read = parser.OFPAction.parser(actions, 0)
            values.append(action_of(read, tables))
            actions = actions[read.len + -read.len % 8 :]
        assert struct.unpack_from("!HH", properties) == (0, 8)
        weight = struct.unpack_from("!H", properties, 4)[0]
        watch = struct.unpack_from("!HHI", properties, 8) if properties[8:] else None
        assert watch is None or watch[:2] == (1, 8)
        found.append(Bucket(tuple(values), weight, watch and watch[2]))
        raw = raw[length:]
    return found


@pytest.mark.parametrize("name", programs())
def test_every_group_of_a_program_comes_back_as_it_was(name: str) -> None:
    pipeline, program = programs()[name]
    tables = {table.number: table for table in pipeline}
    for group in (x for fragment in program.values() for x in fragment.groups):
        raw = wire.set_group(group)
        command, kind, number, size, any_bucket = struct.unpack_from("!HBxIH2xI", raw, 8)
        assert (command, kind, number, any_bucket) == (0x8000, ofp.OFPGT_SELECT, group.id, 0xFFFFFFFF)
        assert buckets_of(raw[24 : 24 + size], tables) == list(group.buckets)
        assert raw[24 + size :] == DP_HASH


@pytest.mark.parametrize("action", [x for x in ACTIONS if not isinstance(x, a.Goto)], ids=str)
def test_a_bucket_may_do_whatever_a_flow_may_apply(action: a.Action) -> None:
    group = Group(3, (Bucket((action,), weight=2), Bucket((action, a.Output(1)), watch=1)), "test", "owner")
    assert buckets_of(wire.buckets(group), TABLES) == list(group.buckets)


@pytest.mark.parametrize("hashed", [(), (f.IP_SRC,), (f.IP_PROTO,), (f.IP_SRC, f.IP_PROTO, f.TCP_SRC)], ids=len)
def test_a_switchs_description_of_a_group_is_read_whatever_it_hashes(hashed: tuple[f.Field, ...]) -> None:
    """A new controller asks for all groups; a property of 61 bytes must not stop it (cilium's groups have one)."""
    group = Group(3, (Bucket((a.Output(1),)), Bucket((a.Output(2),))), "test", "owner", hashed)
    made = wire.set_group(group)
    size = struct.unpack_from("!H", made, 16)[0]
    tail = made[24:]  # the buckets and the property
    one = struct.pack("!HBxIH6x", 16 + len(tail), ofp.OFPGT_SELECT, group.id, size) + tail
    head = struct.pack("!BBHI", ofp.OFP_VERSION, ofp.OFPT_MULTIPART_REPLY, 16 + 2 * len(one), 1)
    found = parsed(head + struct.pack("!HH4x", ofp.OFPMP_GROUP_DESC, 0) + one + one)
    assert [(g.group_id, len(g.buckets), len(g.properties)) for g in found.body] == [(3, 2, 1)] * 2


def test_group_without_buckets_and_its_removal() -> None:
    assert wire.buckets(Group(3, (), "test", "owner")) == b""
    assert struct.unpack_from("!HBxIH2xI", wire.remove_group(3), 8) == (ofp.OFPGC_DELETE, 1, 3, 0, 0xFFFFFFFF)


def test_flow_is_removed_by_exactly_its_slot() -> None:
    sent = flow(t.L3_FORWARDING, match("ip", nw_dst="10.0.0.0/24", PktSource=1), a.Goto(t.DROP))
    message, items, actions = flow_of(wire.remove_flow(sent), TABLES)
    assert (message.command, message.table_id, message.priority) == (ofp.OFPFC_DELETE_STRICT, 40, 7)
    assert (items, actions) == (set(sent.match), ())
    assert (message.cookie_mask, message.out_port, message.out_group) == (0, ofp.OFPP_ANY, ofp.OFPG_ANY)


def test_cookie_is_removed_whatever_flow_bears_it_in_its_table_only() -> None:
    message, items, actions = flow_of(wire.remove_cookie(40, 0x6D << 56 | 5), TABLES)
    assert (message.command, message.table_id) == (ofp.OFPFC_DELETE, 40)
    assert (message.cookie, message.cookie_mask) == (0x6D << 56 | 5, (1 << 64) - 1)
    assert (items, actions) == (set(), ())
    assert (message.out_port, message.out_group) == (ofp.OFPP_ANY, ofp.OFPG_ANY)


def test_forgetting_is_what_the_switchs_own_tool_sends() -> None:
    """Captured: ovs-ofctl ct-flush BRIDGE zone=5, to 10.96.0.1:53 by UDP, the reply from 10.0.0.9:53."""
    captured = """
        06040070 00000002 00002320 00000020 11 00000000000000
        00000028 00000000 0001 0014 00000000000000000000ffff0a600001 00000000 0003 0008 0035 0000
        00010028 00000000 0000 0014 00000000000000000000ffff0a000009 00000000 0002 0008 0035 0000
        00020008 0005 0000"""
    sent = wire.forget(5, Translation(f.ip_number("10.96.0.1"), 53, f.ip_number("10.0.0.9"), 53))
    assert sent[:4] + sent[8:] == bytes.fromhex(captured)[:4] + bytes.fromhex(captured)[8:]  # but for the number


def test_requests_bear_the_number_by_which_they_are_answered() -> None:
    assert wire.barrier(0x01020304) == bytes([6, 20, 0, 8, 1, 2, 3, 4])
    assert wire.group_desc_request(9)[:12] == bytes([6, 18, 0, 24, 0, 0, 0, 9, 0, 7, 0, 0])
    stats = wire.flow_stats_request(8)
    assert stats[:12] == bytes([6, 18, 0, len(stats), 0, 0, 0, 8, 0, 1, 0, 0])
    # Every table, any port and group, and no cookie: nothing is left out.
    assert stats[16:40] == b"\xff\0\0\0" + b"\xff" * 8 + bytes(4) + bytes(8)


@pytest.mark.parametrize("action", [a.Goto(t.DROP), "drop"])
def test_what_a_bucket_cannot_do_is_refused(action: Any) -> None:
    with pytest.raises(TypeError, match="no action of a bucket"):
        wire.buckets(Group(1, (Bucket((action,)),), "test", "owner"))

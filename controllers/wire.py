"""From flow and group values to OpenFlow 1.4 bytes, by Ryu's own parser classes."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from controllers.flow import actions as a
from controllers.flow import fields as f
from controllers.flow.program import Bucket, Flow, Group, MatchItem
from controllers.ryu_compat import ProtocolDesc, ofp, parser

VERSION = ofp.OFP_VERSION
_SWITCH = ProtocolDesc(version=VERSION)
# Nicira extension, ovs-ofctl(8) "add-or-mod": sets a group whether it exists or not, without a gap.
_ADD_OR_MOD = 0x8000
_HEADER = struct.Struct("!BBHI")
_ALL_TABLES = ofp.OFPTT_ALL


@lru_cache(maxsize=1 << 18)
def set_flow(flow: Flow) -> bytes:
    """OFPT_FLOW_MOD that adds the flow or replaces the one in its slot."""
    return _flow_mod(
        command=ofp.OFPFC_ADD,
        table_id=flow.table.number,
        priority=flow.priority,
        cookie=flow.cookie,
        match=_match(flow.match),
        instructions=_instructions(flow.actions),
    )


def remove_flow(flow: Flow) -> bytes:
    """OFPT_FLOW_MOD that removes exactly this flow."""
    return _flow_mod(
        command=ofp.OFPFC_DELETE_STRICT,
        table_id=flow.table.number,
        priority=flow.priority,
        match=_match(flow.match),
    )


def remove_cookie(table: int, cookie: int) -> bytes:
    """OFPT_FLOW_MOD that removes whatever bears this cookie in one table."""
    return _flow_mod(command=ofp.OFPFC_DELETE, table_id=table, cookie=cookie, cookie_mask=(1 << 64) - 1)


@lru_cache(maxsize=1 << 17)
def set_group(group: Group) -> bytes:
    """OFPT_GROUP_MOD that makes the group so, whether it exists or not."""
    body = buckets(group)
    fixed = struct.pack("!HBxI", _ADD_OR_MOD, ofp.OFPGT_SELECT, group.id)
    return _message(ofp.OFPT_GROUP_MOD, fixed + body)


def remove_group(number: int) -> bytes:
    """OFPT_GROUP_MOD that removes the group."""
    return _message(ofp.OFPT_GROUP_MOD, struct.pack("!HBxI", ofp.OFPGC_DELETE, ofp.OFPGT_SELECT, number))


def buckets(group: Group) -> bytes:
    """The buckets as they stand in a group-mod and in a group description.

    Ryu leaves out the padding after a bucket's last Nicira action, which the switch refuses (OFPBRC_BAD_LEN),
    so each bucket is padded to the length it states.
    """
    out = bytearray()
    for bucket in group.buckets:
        one = bytearray()
        made = _bucket(bucket)
        made.serialize(one, 0)
        out += one.ljust(made.len, b"\0")
    return bytes(out)


def barrier(xid: int) -> bytes:
    """OFPT_BARRIER_REQUEST: the switch answers with the same xid once all before it is done."""
    return _message(ofp.OFPT_BARRIER_REQUEST, b"", xid)


def flow_stats_request(xid: int) -> bytes:
    """Asks for every flow of every table."""
    return _serialized(parser.OFPFlowStatsRequest(_SWITCH, table_id=_ALL_TABLES), xid)


def group_desc_request(xid: int) -> bytes:
    """Asks for every group's buckets."""
    return _serialized(parser.OFPGroupDescStatsRequest(_SWITCH, 0), xid)


def _message(kind: int, body: bytes, xid: int = 0) -> bytes:
    return _HEADER.pack(VERSION, kind, _HEADER.size + len(body), xid) + body


def _serialized(message: Any, xid: int = 0) -> bytes:
    message.set_xid(xid)
    message.serialize()
    return bytes(message.buf)


def _flow_mod(**fields: Any) -> bytes:
    return _serialized(parser.OFPFlowMod(_SWITCH, out_port=ofp.OFPP_ANY, out_group=ofp.OFPG_ANY, **fields))


def _match(items: tuple[MatchItem, ...]) -> Any:
    named: dict[str, Any] = {}
    registers: dict[str, tuple[int, int]] = {}
    for field, value, mask in items:
        if isinstance(field, f.Register):
            # Several fields may live in one register: one match on all their bits.
            old_value, old_mask = registers.get(field.oxm, (0, 0))
            bits = field.mask if mask is None else mask << field.first
            registers[field.oxm] = old_value | value << field.first, old_mask | bits
        else:
            named[field.oxm] = value if mask is None else (value, mask)
    return parser.OFPMatch(**named, **registers)


def _instructions(actions: tuple[a.Action, ...]) -> list[Any]:
    out: list[Any] = []
    apply = [_action(x) for x in actions if not isinstance(x, a.Goto)]
    if apply:
        out.append(parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, apply))
    out += [parser.OFPInstructionGotoTable(x.table.number) for x in actions if isinstance(x, a.Goto)]
    return out


def _bucket(bucket: Bucket) -> Any:
    watch = ofp.OFPP_ANY if bucket.watch is None else bucket.watch
    return parser.OFPBucket(bucket.weight, watch, ofp.OFPG_ANY, [_action(x) for x in bucket.actions])


def _action(action: a.Action) -> Any:
    match action:
        case a.Output(port):
            return parser.OFPActionOutput(port, ofp.OFPCML_NO_BUFFER)
        case a.OutputField(source):
            return parser.NXActionOutputReg(_bits(source), source.nxm, 0)
        case a.Set(target, value) if isinstance(target, f.Register):
            return parser.NXActionRegLoad(_bits(target), target.nxm, value)
        case a.Set(target, value):
            return parser.OFPActionSetField(**{target.oxm: value})
        case a.Copy(source, target):
            return parser.NXActionRegMove(source.nxm, target.nxm, source.bits, _first(source), _first(target))
        case a.ForgetInPort():
            return parser.NXActionRegLoad(15, "in_port_nxm", 0)
        case a.DecTtl():
            return parser.OFPActionDecNwTtl()
        case a.ToGroup(number):
            return parser.OFPActionGroup(number)
        case a.Ct():
            return _ct(action)
        case _:
            raise TypeError(f"{action!r} is no action of a bucket or an apply list")


def _first(field: f.Field) -> int:
    """The bit of the switch's field at which ours begins."""
    return field.first if isinstance(field, f.Register) else 0


def _bits(register: f.Register) -> int:
    """First bit and width as Nicira actions encode them (ofs << 6 | nbits - 1)."""
    return register.first << 6 | register.bits - 1


def _ct(ct: a.Ct) -> Any:
    nested: list[Any] = []
    if ct.mark is not None:
        # Only the mark's own bits, so that others in ct_mark stay.
        low = (ct.mark & -ct.mark).bit_length() - 1
        width = ct.mark.bit_length() - low
        nested.append(parser.NXActionRegLoad(low << 6 | width - 1, "ct_mark", ct.mark >> low))
    if ct.nat is not None:  # last, for Ryu leaves out the padding after it
        nested.append(_nat(ct.nat))
    return parser.NXActionCT(
        flags=1 if ct.commit else 0,
        zone_src="",
        zone_ofs_nbits=ct.zone,
        recirc_table=ct.table.number,
        alg=0,
        actions=nested,
    )


def _nat(nat: a.Nat) -> Any:
    # NX_NAT_F_SRC 1, NX_NAT_F_DST 2 (ovs-actions(7), "ct").
    flags = {"": 0, "src": 1, "dst": 2}[nat.kind]
    ranges: dict[str, Any] = {"range_ipv4_min": f.ip_text(nat.ip)} if nat.kind else {}
    if nat.port:
        ranges["range_proto_min"] = nat.port
    return parser.NXActionNAT(flags=flags, **ranges)

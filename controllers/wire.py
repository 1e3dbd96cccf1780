"""From flow and group values to OpenFlow 1.5 bytes: flows and actions by Ryu's own parser classes, groups by hand.

Ryu lacks the group property that chooses how a select group hashes, and pads no bucket.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from controllers.flow import actions as a
from controllers.flow import fields as f
from controllers.flow.kept import by_identity
from controllers.flow.program import Flow, Group, MatchItem, Translation
from controllers.ryu_compat import ProtocolDesc, ofp, parser

VERSION = ofp.OFP_VERSION
_SWITCH = ProtocolDesc(version=VERSION)
# Nicira extension, ovs-ofctl(8) "add-or-mod": sets a group whether it exists or not, without a gap.
_ADD_OR_MOD = 0x8000
_HEADER = struct.Struct("!BBHI")
_ALL_TABLES = ofp.OFPTT_ALL


@by_identity
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
    everything = (1 << 64) - 1
    return _flow_mod(ofp.OFPFC_DELETE, table, _match(()), cookie=cookie, cookie_mask=everything)


@by_identity
def set_group(group: Group) -> bytes:
    """OFPT_GROUP_MOD that makes the group so, whether it exists or not."""
    made = buckets(group)
    fixed = struct.pack("!HBxIH2xI", _ADD_OR_MOD, ofp.OFPGT_SELECT, group.id, len(made), ofp.OFPG_BUCKET_ALL)
    return _message(ofp.OFPT_GROUP_MOD, fixed + made + _hash(group.hashed))


def remove_group(number: int) -> bytes:
    """OFPT_GROUP_MOD that removes the group."""
    fixed = struct.pack("!HBxIH2xI", ofp.OFPGC_DELETE, ofp.OFPGT_SELECT, number, 0, ofp.OFPG_BUCKET_ALL)
    return _message(ofp.OFPT_GROUP_MOD, fixed)


def buckets(group: Group) -> bytes:
    """The buckets as they stand in a group-mod and in a group description (OpenFlow 1.5, section 7.3.4.3.1)."""
    out = bytearray()
    for place, bucket in enumerate(group.buckets):
        number = place if bucket.number is None else bucket.number
        actions = bytearray()
        for action in bucket.actions:
            actions += _action_bytes(action)
        properties = struct.pack("!HHH2x", _WEIGHT, 8, bucket.weight)
        if bucket.watch is not None:
            properties += struct.pack("!HHI", _WATCH_PORT, 8, bucket.watch)
        out += struct.pack("!HHI", 8 + len(actions) + len(properties), len(actions), number) + actions + properties
    return bytes(out)


# Properties of a bucket: OFPGBPT_WEIGHT and OFPGBPT_WATCH_PORT.
_WEIGHT, _WATCH_PORT = 0, 1
# Netronome's group property, ovs-ofctl(8) "selection_method": dp_hash over the addresses and ports of any protocol
# (hash algorithm 0). The switch's own default leaves UDP ports out, so that every UDP connection of a pod would go to
# one endpoint, and every tunnel between two nodes would take one path.
_HASH = struct.pack("!HHII4x16sQ", 0xFFFF, 40, 0x0000154D, 1, b"dp_hash", 0)


@lru_cache(maxsize=64)
def _hash(fields: tuple[f.Field, ...]) -> bytes:
    """The same with method "hash" over these fields with all their bits (an OXM each, whose value is its mask)."""
    if not fields:
        return _HASH
    given = b"".join(_oxm(field.oxm, (1 << field.bits) - 1, None) for field in fields)
    size = 40 + len(given)
    return struct.pack("!HHII4x16sQ", 0xFFFF, size, 0x0000154D, 1, b"hash", 0) + given + bytes(-size % 8)


def forget(zone: int, translation: Translation) -> bytes:
    """NXT_CT_FLUSH (Open vSwitch 3.1, ovs-ofctl(8) "ct-flush"): forget the connections that follow the translation.

    The original direction goes to the Service's address and port, the reply comes from the endpoint's.
    """
    to_service = _tuple_property(0, (1, translation.address), (3, translation.port))
    from_endpoint = _tuple_property(1, (0, translation.endpoint), (2, translation.endpoint_port))
    body = struct.pack("!IIB7x", _NICIRA, _NXT_CT_FLUSH, _UDP) + to_service + from_endpoint
    return _message(ofp.OFPT_EXPERIMENTER, body + struct.pack("!HHH2x", 2, 8, zone))


_NICIRA, _NXT_CT_FLUSH, _UDP = 0x00002320, 32, 17


def _tuple_property(kind: int, address: tuple[int, int], port: tuple[int, int]) -> bytes:
    """One direction of a connection: (type, value) of its address, sent as IPv4-mapped IPv6, and of its port."""
    mapped = struct.pack("!HH10xHI4x", address[0], 20, 0xFFFF, address[1])
    body = mapped + struct.pack("!HHH2x", port[0], 8, port[1])
    return struct.pack("!HH4x", kind, 8 + len(body)) + body


def barrier(xid: int) -> bytes:
    """OFPT_BARRIER_REQUEST: the switch answers with the same xid once all before it is done."""
    return _message(ofp.OFPT_BARRIER_REQUEST, b"", xid)


def bundle(number: int, messages: Sequence[bytes]) -> list[bytes]:
    """The same messages as one change that no packet sees half of (OpenFlow 1.5, section 7.3.9: atomic, ordered).

    If one is refused, none is in force.
    """
    flags = ofp.OFPBF_ATOMIC | ofp.OFPBF_ORDERED
    out = [_message(ofp.OFPT_BUNDLE_CONTROL, struct.pack("!IHH", number, ofp.OFPBCT_OPEN_REQUEST, flags))]
    head = struct.pack("!IHH", number, 0, flags)
    out += [_message(ofp.OFPT_BUNDLE_ADD_MESSAGE, head + message) for message in messages]
    out.append(_message(ofp.OFPT_BUNDLE_CONTROL, struct.pack("!IHH", number, ofp.OFPBCT_COMMIT_REQUEST, flags)))
    return out


def flow_stats_request(xid: int) -> bytes:
    """Asks for every flow of every table."""
    return _serialized(parser.OFPFlowDescStatsRequest(_SWITCH, table_id=_ALL_TABLES), xid)


def group_desc_request(xid: int) -> bytes:
    """Asks for every group's buckets."""
    return _serialized(parser.OFPGroupDescStatsRequest(_SWITCH), xid)


def _message(kind: int, body: bytes, xid: int = 0) -> bytes:
    return _HEADER.pack(VERSION, kind, _HEADER.size + len(body), xid) + body


def _serialized(message: Any, xid: int = 0) -> bytes:
    message.set_xid(xid)
    message.serialize()
    return bytes(message.buf)


# Ryu's own OFPFlowMod, OFPMatch and instructions take ten times as long as writing their bytes, and a cluster has tens
# of thousands of flows; the structures are those of OpenFlow 1.5, sections 7.3.4.2 (flow-mod), 7.2.3 (match), 7.2.5.
_FLOW_MOD = struct.Struct("!QQBBHHHIIIHH")


def _flow_mod(
    command: int,
    table_id: int,
    match: bytes,
    priority: int = 0x8000,
    cookie: int = 0,
    cookie_mask: int = 0,
    instructions: bytes = b"",
) -> bytes:
    places = ofp.OFP_NO_BUFFER, ofp.OFPP_ANY, ofp.OFPG_ANY
    head = _FLOW_MOD.pack(cookie, cookie_mask, table_id, command, 0, 0, priority, *places, 0, 0)
    return _message(ofp.OFPT_FLOW_MOD, head + match + instructions)


def _match(items: tuple[MatchItem, ...]) -> bytes:
    """An OXM match; a field that others need stands before them, as it does in `items`."""
    fields = bytearray()
    registers: dict[str, tuple[int, int]] = {}
    for field, value, mask in items:
        if isinstance(field, f.Register):
            # Several fields may live in one register: one match on all their bits.
            old_value, old_mask = registers.get(field.oxm, (0, 0))
            bits = field.mask if mask is None else mask << field.first
            registers[field.oxm] = old_value | value << field.first, old_mask | bits
        else:
            fields += _oxm(field.oxm, value, mask)
    for name, (value, mask) in registers.items():
        fields += _oxm(name, value, mask)
    length = 4 + len(fields)
    return struct.pack("!HH", ofp.OFPMT_OXM, length) + bytes(fields) + bytes(-length % 8)


def _oxm(name: str, value: int, mask: int | None) -> bytes:
    """One field of a match: its header, its value and its mask if it has one."""
    head, size = _oxm_header(name, mask is not None)
    if mask is None:
        return head + value.to_bytes(size, "big")
    return head + value.to_bytes(size, "big") + mask.to_bytes(size, "big")


@lru_cache(maxsize=256)
def _oxm_header(name: str, has_mask: bool) -> tuple[bytes, int]:
    """Ryu's header of a field, and the size of its value in bytes."""
    plain = bytearray()
    ofp.oxm_serialize_header(ofp.oxm_from_user_header(name), plain, 0)
    assert len(plain) == 4, f"{name} has an experimenter's header"
    size = plain[3]
    # OXM_HASMASK is the lowest bit before the length, which then counts the mask too.
    return (bytes((plain[0], plain[1], plain[2] | 1, 2 * size)) if has_mask else bytes(plain)), size


def _instructions(actions: tuple[a.Action, ...]) -> bytes:
    apply = b"".join(_action_bytes(x) for x in actions if not isinstance(x, a.Goto))
    out = struct.pack("!HH4x", ofp.OFPIT_APPLY_ACTIONS, 8 + len(apply)) + apply if apply else b""
    for x in actions:
        if isinstance(x, a.Goto):
            out += struct.pack("!HHB3x", ofp.OFPIT_GOTO_TABLE, 8, x.table.number)
    return out


@by_identity
def _action_bytes(action: a.Action) -> bytes:
    """One action, padded to 8 bytes, which Ryu leaves out after the last one in a bucket."""
    if isinstance(action, a.Ct) and action.mark is None and action.nat is not None:
        return _ct_nat(action, action.nat)
    out = bytearray()
    _action(action).serialize(out, 0)
    return bytes(out) + bytes(-len(out) % 8)


_NXAST_CT, _NXAST_NAT = 35, 36


def _ct_nat(ct: a.Ct, nat: a.Nat) -> bytes:
    """NXAST_CT with NXAST_NAT alone inside it: what every endpoint of every Service has (nicira-ext.h)."""
    # NX_NAT_RANGE_IPV4_MIN, _PROTO_MIN, _PROTO_MAX
    present = (0x1 if nat.kind else 0) | (0x10 if nat.port else 0) | (0x20 if nat.last_port else 0)
    ranges = struct.pack("!I", nat.ip) if nat.kind else b""
    ranges += b"".join(struct.pack("!H", port) for port in (nat.port, nat.last_port) if port)
    flags = {"": 0, "src": 1, "dst": 2}[nat.kind]
    size = 16 + len(ranges)
    padded = size + -size % 8
    inner = struct.pack("!HHIH2xHH", ofp.OFPAT_EXPERIMENTER, padded, _NICIRA, _NXAST_NAT, flags, present) + ranges
    inner += bytes(padded - size)
    commit = 1 if ct.commit else 0
    head = struct.pack("!HHIHHI", ofp.OFPAT_EXPERIMENTER, 24 + padded, _NICIRA, _NXAST_CT, commit, 0)
    return head + struct.pack("!HB3xH", ct.zone, ct.table.number, 0) + inner


def _action(action: a.Action) -> Any:
    match action:
        case a.Output(port):
            return parser.OFPActionOutput(port, ofp.OFPCML_NO_BUFFER)
        case a.OutputField(source):
            return parser.NXActionOutputReg(_bits(source), source.nxm, 0)
        case a.Set(target, value) if isinstance(target, f.Register):
            return _set_field(target.oxm, value << target.first, target.mask)
        case a.Set(target, value):
            return _set_field(target.oxm, value)
        case a.Copy(source, target):
            return _copy_field(source, target)
        case a.ForgetInPort():
            return _set_field("in_port_nxm", 0)  # the OpenFlow field is read-only
        case a.DecTtl():
            return parser.OFPActionDecNwTtl()
        case a.ToGroup(number):
            return parser.OFPActionGroup(number)
        case a.Ct():
            return _ct(action)
        case a.Resubmit(table):
            return parser.NXActionResubmitTable(in_port=ofp.OFPP_IN_PORT & 0xFFFF, table_id=table.number)
        case a.Again():  # ovs-actions(7), "resubmit": table 255 is the one that the flow is in
            return parser.NXActionResubmitTable(in_port=ofp.OFPP_IN_PORT & 0xFFFF, table_id=255)
        case a.Multipath(hashed, links, target):
            fields, algorithm = _MULTIPATH_FIELDS[hashed], 0  # modulo_n
            return parser.NXActionMultipath(fields, 1024, algorithm, links - 1, 0, _bits(target), target.nxm)
        case a.Learn():
            return _learn(action)
        case a.Conjunction(number, clause, clauses):
            return parser.NXActionConjunction(clause - 1, clauses, number)
        case _:
            raise TypeError(f"{action!r} is no action of a bucket or an apply list")


# enum nx_hash_fields of Open vSwitch's nicira-ext.h.
_MULTIPATH_FIELDS = {"symmetric_l3l4+udp": 3, "nw_src": 4, "nw_dst": 5}
_DELETE_LEARNED = 2  # NX_LEARN_F_DELETE_LEARNED


def _learn(learn: a.Learn) -> Any:
    specs: list[Any] = [parser.NXFlowSpecMatch(src=0x0800, dst=("eth_type_nxm", 0), n_bits=16)]
    if learn.protocol:
        specs.append(parser.NXFlowSpecMatch(src=learn.protocol, dst=("ip_proto_nxm", 0), n_bits=8))
    for there, here in learn.swapped:
        specs.append(parser.NXFlowSpecMatch(src=(here.oxm, 0), dst=(there.oxm, 0), n_bits=here.bits))
    for field in learn.same:
        place = field.nxm, _first(field)
        specs.append(parser.NXFlowSpecMatch(src=place, dst=place, n_bits=field.bits))
    specs.append(
        parser.NXFlowSpecLoad(src=learn.value, dst=(learn.target.nxm, learn.target.first), n_bits=learn.target.bits)
    )
    return parser.NXActionLearn(
        table_id=learn.table.number,
        specs=specs,
        idle_timeout=learn.idle,
        priority=learn.priority,
        cookie=learn.cookie,
        flags=_DELETE_LEARNED,
    )


class _Action(parser.OFPAction):
    """An action that Ryu cannot write (a masked set_field) or writes wrongly; used as its own are."""

    def __init__(self, kind: int, body: bytes) -> None:
        self.len = 4 + len(body) + -(4 + len(body)) % 8
        self._bytes = struct.pack("!HH", kind, self.len) + body.ljust(self.len - 4, b"\0")

    def serialize(self, buffer: bytearray, offset: int) -> None:
        """Write it at the offset; the buffer may end before it, for Ryu writes an instruction's head last."""
        buffer.extend(bytes(max(0, offset - len(buffer))))
        buffer[offset:] = self._bytes


def _set_field(name: str, value: int, mask: int | None = None) -> _Action:
    """OFPAT_SET_FIELD, all of a field or only the bits of `mask`."""
    oxm = bytearray()
    ofp.oxm_serialize(*ofp.oxm_from_user(name, value if mask is None else (value, mask)), oxm, 0)
    return _Action(ofp.OFPAT_SET_FIELD, bytes(oxm))


def _copy_field(source: f.Field, target: f.Field) -> _Action:
    """OFPAT_COPY_FIELD of as many bits as both have (OpenFlow 1.5, section 7.2.6.10)."""
    body = struct.pack("!HHH2x", min(source.bits, target.bits), _first(source), _first(target))
    for field in (source, target):
        header = bytearray()
        ofp.oxm_serialize_header(ofp.oxm_from_user_header(field.oxm), header, 0)
        body += header
    return _Action(ofp.OFPAT_COPY_FIELD, body)


def _first(field: f.Field) -> int:
    """The bit of the switch's field at which ours begins."""
    return field.first if isinstance(field, f.Register) else 0


def _bits(register: f.Register) -> int:
    """First bit and width as Nicira actions encode them (ofs << 6 | nbits - 1)."""
    return register.first << 6 | register.bits - 1


def _ct(ct: a.Ct) -> Any:
    nested: list[Any] = []
    # Only the mark's own bits, so that others in ct_mark stay.
    if ct.mark or ct.unmark:
        nested.append(_set_field(f.CT_MARK.oxm, ct.mark or 0, (ct.mark or 0) | ct.unmark))
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
    if nat.last_port:
        ranges["range_proto_max"] = nat.last_port
    return parser.NXActionNAT(flags=flags, **ranges)

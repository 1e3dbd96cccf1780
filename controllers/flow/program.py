"""Flows, groups and programs: built, checked when built, and printed as sorted ovs-ofctl text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

from controllers.flow import fields as f
from controllers.flow.actions import (
    Action,
    Again,
    Conjunction,
    Copy,
    Ct,
    Goto,
    Learn,
    Multipath,
    OutputField,
    Resubmit,
    Set,
)
from controllers.flow.tables import Table, further

# (field, value, mask or None for exact)
MatchItem = tuple[f.Field, int, int | None]
Slot = tuple[Table, int, tuple[MatchItem, ...]]

MAGIC = 0x6D  # "m": the flow is ours
LEARNED = 0x6C  # "l": a flow of ours told the switch to make it


class BadFlow(Exception):
    """A flow that the pipeline does not allow; the message names its table, match and the line that made it."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Flow:
    """One flow. feature and owner say who wants it and for which object; source is the line that built it."""

    table: Table
    priority: int
    match: tuple[MatchItem, ...]
    actions: tuple[Action, ...]
    feature: str
    owner: str
    source: str
    cookie: int

    @property
    def slot(self) -> Slot:
        """What makes a flow unique in a switch: a second one here replaces the first."""
        return self.table, self.priority, self.match

    def match_text(self) -> str:
        """The match as ovs-ofctl prints it."""
        return match_text(self.match)

    def action_text(self) -> str:
        """The actions in order; nothing to do is a drop."""
        return action_text(self.actions)

    def text(self) -> str:
        """One line: table, priority, match, actions."""
        match = self.match_text()
        return f"table={self.table}, priority={self.priority}{',' if match else ''}{match} actions={self.action_text()}"


@dataclass(frozen=True, slots=True)
class Bucket:
    """One choice of a group. watch: a port that must be up for the bucket to be used.

    number: its own in the group, by which method "hash" chooses; None for its place.
    """

    actions: tuple[Action, ...]
    weight: int = 1
    watch: int | None = None
    number: int | None = None

    def text(self) -> str:
        """As ovs-ofctl prints it."""
        watch = f",watch_port:{self.watch}" if self.watch is not None else ""
        number = f"bucket_id:{self.number}," if self.number is not None else ""
        return f"bucket={number}weight:{self.weight}{watch},actions={','.join(map(str, self.actions))}"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Group:
    """A select group: one bucket per connection, chosen by a hash.

    hashed: by the highest of the buckets' hashes with these fields (rendezvous hashing: a bucket that goes moves only
    its own); without any by a hash of addresses and ports, the same for equal ones, in as many slots as the sum of
    weights over the least weight, or 16 (ovs-ofctl(8), "dp_hash": at most 256).
    """

    id: int
    buckets: tuple[Bucket, ...]
    feature: str
    owner: str
    hashed: tuple[f.Field, ...] = ()

    def text(self) -> str:
        """As ovs-ofctl prints it."""
        fields = "".join(f"fields={field.oxm.replace('ipv4', 'ip')}," for field in self.hashed)
        method = f"selection_method=hash,{fields}" if fields else ""
        return f"group_id={self.id},type=select,{method}" + ",".join(b.text() for b in self.buckets)


@dataclass(frozen=True, slots=True, order=True)
class Translation:
    """UDP to `address`:`port` goes to `endpoint`:`endpoint_port`; conntrack would go on with it for ever."""

    address: int
    port: int
    endpoint: int
    endpoint_port: int


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Fragment:
    """What one feature wants for one object. Compared by identity: a feature that is asked again for the
    same inputs gives the same fragment back, so that a difference costs a pointer comparison.

    translations: what its flows make of datagrams, whose connections the switch must forget when they end.
    """

    key: str
    flows: tuple[Flow, ...] = ()
    groups: tuple[Group, ...] = ()
    translations: frozenset[Translation] = frozenset()


# Everything one bridge should hold, by Fragment.key.
Program = Mapping[str, Fragment]


def learned_cookie(feature: str, owner: str, what: str) -> int:
    """Of flows that a flow makes the switch learn: LEARNED 8 bits | crc of feature and owner 24 | crc of what 32."""
    return LEARNED << 56 | (crc32(f"{feature}|{owner}".encode()) & 0xFFFFFF) << 32 | crc32(what.encode())


def cookie_of(
    table: Table, priority: int, match: tuple[MatchItem, ...], actions: tuple[Action, ...], feature: str, owner: str
) -> int:
    """magic 8 bits | crc of feature and owner 16 | crc of the content 32 | table 8.

    The content is what the switch is told, numbers and places; what people call them may change.
    Equal cookies of one program mean equal flows, bar a collision, which the read-back treats as "send again".
    """
    content = crc32(f"{priority},{match!r} actions={actions!r}".encode())
    who = crc32(f"{feature}|{owner}".encode()) & 0xFFFF
    return MAGIC << 56 | who << 40 | content << 8 | table.number


def action_text(actions: tuple[Action, ...]) -> str:
    """Actions in order as ovs-ofctl prints them; none is a drop."""
    return ",".join(map(str, actions)) or "drop"


_PROTOCOLS = ("", "arp", "ip", "icmp", "tcp", "udp", "sctp")
_SHORT = {("dl_type", 0x806): "arp", ("dl_type", 0x800): "ip"}
_PROTO = {1: "icmp", 6: "tcp", 17: "udp", 132: "sctp"}


def match_text(match: tuple[MatchItem, ...]) -> str:
    """Match items as ovs-ofctl prints them, protocols abbreviated."""
    parts: list[str] = []
    proto = next((v for field, v, _ in match if field is f.IP_PROTO), None)
    for field, value, mask in match:
        if field is f.ETH_TYPE and proto in _PROTO:
            parts.append(_PROTO[proto])
        elif field is f.IP_PROTO and proto in _PROTO:
            continue
        elif (field.name, value) in _SHORT:
            parts.append(_SHORT[field.name, value])
        elif field is f.CT_STATE and mask is not None:
            parts.append(
                "ct_state=" + "".join(("+" if value & b else "-") + n for n, b in f.CT_BITS.items() if mask & b)
            )
        elif mask is None:
            parts.append(f"{field.name}={field.show(value)}")
        elif field in (f.IP_SRC, f.IP_DST, f.ARP_TPA, f.ARP_SPA):
            parts.append(f"{field.name}={field.show(value)}/{mask.bit_count()}")
        else:
            parts.append(f"{field.name}={field.show(value)}/{mask:#x}")
    return ",".join(parts)


def match(protocol: str = "", **items: int | str | tuple[int, int]) -> tuple[MatchItem, ...]:
    """A match by ovs-ofctl names: match("ip", nw_dst=("10.0.0.0/24"), in_port=3, PktSource=1).

    Text for addresses (with an optional /prefix) and ct_state; numbers otherwise; (value, mask) where a mask is needed.
    Raises KeyError for an unknown name, BadFlow for a field without the protocol it needs.
    """
    if protocol not in _PROTOCOLS:
        raise BadFlow(f"match on the protocol {protocol!r}: expected one of {', '.join(filter(None, _PROTOCOLS))}")
    out: list[MatchItem] = [(f.ETH_TYPE, 0x806 if protocol == "arp" else 0x800, None)] if protocol else []
    number = {v: k for k, v in _PROTO.items()}.get(protocol)
    if number is not None:
        out.append((f.IP_PROTO, number, None))
    names = _names(protocol)
    for name, raw in items.items():
        field = names[name]
        if field.needs and field.needs != protocol and not (field.needs == "ip" and number is not None):
            raise BadFlow(f"match on {name} needs {field.needs}, not {protocol or 'any packet'}")
        item = _item(field, raw)
        if not 0 <= item[1] < 1 << field.bits or (item[2] is not None and item[1] & ~item[2]):
            raise BadFlow(f"match on {name}={raw!r}: the value has bits outside the field or its mask")
        out.append(item)
    return tuple(sorted(out, key=_order))


def _item(field: f.Field, raw: int | str | tuple[int, int]) -> MatchItem:
    if isinstance(raw, tuple):
        return field, raw[0], raw[1]
    if isinstance(raw, int):
        return field, raw, None
    if field is f.CT_STATE:
        return field, *f.ct_state(raw)
    if field.bits == 48:
        return field, f.mac_number(raw), None
    address, _, prefix = raw.partition("/")
    mask = (0xFFFFFFFF << (32 - int(prefix))) & 0xFFFFFFFF if prefix else 0xFFFFFFFF
    return field, f.ip_number(address) & mask, None if mask == 0xFFFFFFFF else mask


_FIELDS: tuple[f.Field, ...] = (
    (f.ETH_TYPE, f.IP_PROTO, f.CT_STATE, f.CT_MARK, f.CONJ_ID)
    + f.REGISTERS
    + (f.IN_PORT, f.ETH_SRC, f.ETH_DST, f.ARP_OP, f.ARP_SPA, f.ARP_TPA, f.ARP_SHA, f.ARP_THA, f.IP_SRC, f.IP_DST)
    + (
        f.ICMP_TYPE,
        f.ICMP_CODE,
        f.TCP_SRC,
        f.TCP_DST,
        f.UDP_SRC,
        f.UDP_DST,
        f.SCTP_SRC,
        f.SCTP_DST,
        f.TUN_DST,
        f.TUN_ID,
    )
)
_RANK = {field: i for i, field in enumerate(_FIELDS)}
_PORT_FIELDS = {"tcp", "udp", "sctp", "icmp"}


def _order(item: MatchItem) -> int:
    return _RANK[item[0]]


def _names(protocol: str) -> Mapping[str, f.Field]:
    return _NAMES[protocol if protocol in _PORT_FIELDS else ""]


_NAMES: Mapping[str, Mapping[str, f.Field]] = {
    protocol: {x.name: x for x in _FIELDS if x.needs not in _PORT_FIELDS or x.needs == protocol}
    for protocol in ("", *_PORT_FIELDS)
}


class Writer:
    """Collects the flows and groups of one feature for one object."""

    def __init__(self, feature: str, owner: str) -> None:
        self.feature, self.owner = feature, owner
        self._flows: list[Flow] = []
        self._groups: list[Group] = []
        self._translations: set[Translation] = set()

    def flow(self, table: Table, priority: int, match: tuple[MatchItem, ...], *actions: Action) -> None:
        """Add a flow. Raises BadFlow if it leaves its pipeline or uses a register that is not alive here."""
        caller = sys._getframe(1)
        source = f"{_short(caller.f_code.co_filename)}:{caller.f_lineno}"
        cookie = cookie_of(table, priority, match, actions, self.feature, self.owner)
        flow = Flow(table, priority, match, actions, self.feature, self.owner, source, cookie)
        _check(flow)
        self._flows.append(flow)

    def group(self, number: int, buckets: Iterable[Bucket], hashed: tuple[f.Field, ...] = ()) -> None:
        """Add a select group."""
        self._groups.append(Group(number, tuple(buckets), self.feature, self.owner, hashed))

    def translates(self, translation: Translation) -> None:
        """Say that datagrams are translated so, for as long as the fragment is wanted."""
        self._translations.add(translation)

    def fragment(self) -> Fragment:
        """What was collected."""
        key = f"{self.feature} {self.owner}"
        return Fragment(key, tuple(self._flows), tuple(self._groups), frozenset(self._translations))


@lru_cache(maxsize=256)
def _short(path: str) -> str:
    parts = Path(path).parts
    return "/".join(parts[parts.index("controllers") :]) if "controllers" in parts else parts[-1]


def _check(flow: Flow) -> None:
    onward, last = further(flow.table), len(flow.actions) - 1
    for field, _, _ in flow.match:
        _is_alive(flow, field)
    for place, action in enumerate(flow.actions):
        for field in _USES.get(type(action), _none)(action):
            _is_alive(flow, field)
        if isinstance(action, Again) and not any(isinstance(before, Set) for before in flow.actions[:place]):
            raise BadFlow(f"{flow.source}: a packet that is as it was would come back for ever: {flow.text()}")
        if isinstance(action, Goto | Ct | Resubmit) and action.table not in onward:
            raise BadFlow(f"{flow.source}: {action} does not go forward from {flow.table}")
        if isinstance(action, Set | Learn) and not 0 <= action.value < 1 << action.target.bits:
            raise BadFlow(f"{flow.source}: {action} does not fit {action.target.bits} bits")
        if isinstance(action, Goto) and place != last:
            raise BadFlow(f"{flow.source}: goto_table must come last: {flow.text()}")
    kinds = {isinstance(action, Conjunction) for action in flow.actions}
    if len(kinds) == 2:
        raise BadFlow(f"{flow.source}: conjunction goes with no other action: {flow.text()}")


def _is_alive(flow: Flow, field: f.Field) -> None:
    if isinstance(field, f.Register) and not field.since <= flow.table.number <= field.until:
        raise BadFlow(f"{flow.source}: {field.name} is not alive in {flow.table}: {flow.text()}")


def _none(action: Any) -> tuple[f.Field, ...]:
    return ()


# The fields that an action reads or writes.
_USES: Mapping[type, Callable[[Any], tuple[f.Field, ...]]] = {
    Set: lambda action: (action.target,),
    OutputField: lambda action: (action.source,),
    Copy: lambda action: (action.source, action.target),
    Multipath: lambda action: (action.target,),
}


def check(program: Program) -> None:
    """Raise BadFlow if two flows of the program take the same slot, or two groups the same number."""
    seen: dict[Slot, Flow] = {}
    numbers: dict[int, Group] = {}
    for fragment in program.values():
        for flow in fragment.flows:
            other = seen.setdefault(flow.slot, flow)
            if other is not flow:
                raise BadFlow(f"{flow.source} and {other.source} both write {flow.text()} (and {other.action_text()})")
        for group in fragment.groups:
            if numbers.setdefault(group.id, group) is not group:
                raise BadFlow(f"group {group.id} is wanted by {group.owner} and {numbers[group.id].owner}")


def flows(program: Program) -> list[Flow]:
    """All flows in the order of a listing: table, priority falling, match."""
    every = (flow for fragment in program.values() for flow in fragment.flows)
    return sorted(every, key=lambda x: (x.table.number, -x.priority, x.match_text()))


def listing(program: Program) -> str:
    """The whole program as text a person can read and diff; equal programs give equal text."""
    groups = sorted((g for fragment in program.values() for g in fragment.groups), key=lambda g: g.id)
    return "".join(f"{line}\n" for line in [g.text() for g in groups] + [x.text() for x in flows(program)])

"""Follows a packet through one switch's program as Open vSwitch would, and refuses whatever it does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from controllers.flow import actions as a
from controllers.flow import fields as f
from controllers.flow.program import LEARNED, Flow, MatchItem, Program, check, flows
from controllers.flow.tables import Table

# Field name as ovs-ofctl prints it -> value; registers stand there whole, as "reg0".
Packet = Mapping[str, int]
# Which of so many, for a packet: stands for the switch's hash.
Choose = Callable[[int, Packet], int]
# protocol, source, source port, destination, destination port
Tuple = tuple[int, int, int, int, int]

# What the switch itself writes beside the packet: absent means zero.
_BESIDE = ("ct_state", "ct_mark", "conj_id", *(f"reg{n}" for n in range(16)))
_TUNNEL = ("tun_dst", "tun_id")
_KNOWN = {"in_port", "dl_src", "dl_dst", "dl_type", "arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha", *_BESIDE}
_KNOWN |= {
    "nw_src",
    "nw_dst",
    "nw_proto",
    "nw_ttl",
    "tp_src",
    "tp_dst",
    "tcp_flags",
    "icmp_type",
    "icmp_code",
    "icmp_id",
    *_TUNNEL,
}
_WRITES = (a.Set, a.Copy, a.ForgetInPort, a.DecTtl, a.Multipath, a.Learn)
_FIRST = Table(0, "table 0", "", "where every packet enters")
_SYN, _ACK = 0x2, 0x10
_ICMP, _ECHO_REQUEST, _ECHO_REPLY, _ERRORS = 1, 8, 0, (3, 4, 5, 11, 12)
# Port numbers from here on have a meaning of their own (OpenFlow 1.4, section 7.2.1).
_RESERVED = 0xFFFFFF00


class NotUnderstood(Exception):
    """The packet met something whose behaviour is not known here, or that no program of ours should do."""


class Overlap(Exception):
    """Two flows of one table and priority both match; which one wins is undefined (OpenFlow 1.4, section 5.3)."""


@dataclass(slots=True)
class Trace:
    """What became of a packet.

    steps: each flow that matched, and the packet before it; outputs: port, and the packet on the wire; drops: why.
    """

    steps: list[tuple[Flow, Packet]] = field(default_factory=list)
    outputs: list[tuple[int, Packet]] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Connection:
    """One entry of conntrack. answered: a packet of the reply direction was seen; only then is it established."""

    zone: int
    original: Tuple
    reply: Tuple
    mark: int = 0
    answered: bool = False


@dataclass(slots=True)
class _Here:
    """A copy of the packet on its way, and the connection it was last found to belong to."""

    packet: dict[str, int]
    connection: Connection | None = None
    is_reply: bool = False
    translated: bool = False


class Switch:
    """A bridge that holds `program`. Connections outlive a change of program; down: ports whose link is dead."""

    def __init__(self, program: Program) -> None:
        self.connections: dict[tuple[int, Tuple], Connection] = {}
        self.learned: dict[tuple[Table, tuple[MatchItem, ...]], Flow] = {}
        self.down: set[int] = set()
        self.load(program)

    def load(self, program: Program) -> None:
        """Hold another program, as after a change of the cluster. Raises BadFlow for one that contradicts itself."""
        check(program)
        self._flows: dict[int, list[Flow]] = {}
        for flow in flows(program):
            self._flows.setdefault(flow.table.number, []).append(flow)
        # A flow that was learned goes with the one that learned it.
        learners = {x.cookie for flow in flows(program) for x in flow.actions if isinstance(x, a.Learn)}
        self.learned = {place: flow for place, flow in self.learned.items() if flow.cookie in learners}
        self.groups = {group.id: group for fragment in program.values() for group in fragment.groups}

    def run(self, packet: Packet, choose: Choose = lambda many, packet: 0) -> Trace:
        """Send a packet in; choose: index among the buckets whose port is up. Raises NotUnderstood and Overlap."""
        if not packet.keys() <= _KNOWN or not packet.get("in_port"):
            raise NotUnderstood(f"no in_port, or not a field: {', '.join(sorted(packet.keys() - _KNOWN))}")
        run = _Run(self, choose)
        run.todo.append((_FIRST, _Here({k: v for k, v in packet.items() if k not in _BESIDE})))
        while run.todo:
            run.pass_table(*run.todo.pop(0))
        return run.trace

    def lookup(self, table: int, packet: Packet) -> Flow | None:
        """The flow of the highest priority that matches. Raises Overlap where that is not one."""
        there = self._flows.get(table, [])
        if learned := [x for (where, _), x in self.learned.items() if where.number == table]:
            there = sorted([*there, *learned], key=lambda flow: -flow.priority)
        equals: list[Flow] = []
        for flow in there:
            if equals and flow.priority != equals[0].priority:
                if (best := self._best(table, packet, equals)) is not None:
                    return best
                equals = []
            for item in flow.match:
                if not _matches(item, packet):
                    break
            else:
                equals.append(flow)
        return self._best(table, packet, equals)

    def _best(self, table: int, packet: Packet, equals: list[Flow]) -> Flow | None:
        """The one flow among matching ones of one priority, or what their conjunctions lead to."""
        hard = [flow for flow in equals if not _is_clause(flow)]
        if packet.get("conj_id"):  # the second look sees no clauses
            equals = hard
        elif len(equals) > len(hard):
            numbers = _conjunctions(flow for flow in equals if _is_clause(flow))
            found = [self.lookup(table, {**packet, "conj_id": number}) for number in sorted(numbers)]
            led = [flow for flow in found if flow is not None]
            if len({flow.actions for flow in led}) > 1 or (led and hard):
                raise Overlap(" | ".join(f"{flow.source}: {flow.text()}" for flow in [*led, *hard]))
            return led[0] if led else hard[0] if hard else None
        if len(equals) > 1:
            raise Overlap(" | ".join(f"{flow.source}: {flow.text()}" for flow in equals))
        return equals[0] if equals else None


def _is_clause(flow: Flow) -> bool:
    return bool(flow.actions) and isinstance(flow.actions[0], a.Conjunction)


def _conjunctions(clauses: Iterable[Flow]) -> set[int]:
    """Those of which every clause is among these flows'."""
    met: dict[tuple[int, int], set[int]] = {}
    for flow in clauses:
        for action in flow.actions:
            if isinstance(action, a.Conjunction):
                met.setdefault((action.id, action.clauses), set()).add(action.clause)
    return {number for (number, many), found in met.items() if len(found) == many}


class _Run:
    """One packet's way through one switch."""

    def __init__(self, switch: Switch, choose: Choose) -> None:
        self.switch, self.choose, self.trace = switch, choose, Trace()
        self.todo: list[tuple[Table, _Here]] = []

    def pass_table(self, table: Table, here: _Here) -> None:
        """Do what the table's flow says, and what those of the tables it leads to say."""
        flow = self.switch.lookup(table.number, here.packet)
        if flow is None:
            self.trace.drops.append(f"{table}: no flow matches")
            return
        self.trace.steps.append((flow, dict(here.packet)))
        if not flow.actions:
            self.trace.drops.append(f"{flow.table}: {flow.match_text() or 'everything'}")
        elif flow.cookie >> 56 != LEARNED and isinstance(flow.actions[-1], _WRITES):
            raise NotUnderstood(f"{flow.source}: the packet is changed and then goes nowhere: {flow.text()}")
        self._do(flow.actions, here, table)

    def _do(self, actions: tuple[a.Action, ...], here: _Here, table: Table | None = None) -> None:
        packet = here.packet
        for i, action in enumerate(actions):
            match action:
                case a.Goto(onward):
                    self.pass_table(onward, here)
                case a.Output(port):
                    self._output(port, packet)
                case a.OutputField(source):
                    self._output(_read(packet, source), packet)
                case a.Set(target, value):
                    _write(packet, target, value)
                case a.Copy(source, target):
                    low = (1 << min(source.bits, target.bits)) - 1
                    _write(packet, target, _read(packet, target) & ~low | _read(packet, source) & low)
                case a.ForgetInPort():
                    packet["in_port"] = 0
                case a.DecTtl():
                    if packet["nw_ttl"] <= 1:
                        self.trace.drops.append("TTL ends")
                        return
                    packet["nw_ttl"] -= 1
                case a.ToGroup(number):
                    self._group(number, here)
                case a.Resubmit(other):
                    if self.switch.lookup(other.number, packet) is not None:
                        self.pass_table(other, here)
                case a.Again() if table is not None:
                    self.pass_table(table, here)
                case a.Multipath(_, links, target):
                    _write(packet, target, self.choose(links, dict(packet)))
                case a.Learn():
                    self._learn(action, packet)
                case a.Ct():
                    if action.nat is not None and i + 1 < len(actions):
                        raise NotUnderstood(f"what follows {action} would see translated addresses, or not")
                    self.todo.append((action.table, self._track(action, here)))
                case _:
                    raise NotUnderstood(f"{action!r} is no action known here")

    def _group(self, number: int, here: _Here) -> None:
        group = self.switch.groups[number]  # a KeyError is a flow that the switch would have refused
        group = replace(group, buckets=tuple(b for b in group.buckets if b.watch not in self.switch.down))
        if not group.buckets:
            self.trace.drops.append(f"group {number}: no bucket's port is up")
            return
        actions = group.buckets[self.choose(len(group.buckets), dict(here.packet))].actions
        # The actions of a bucket are a set, which the switch orders by kind: what is written first, then one way on.
        *writes, last = actions or (None,)
        if not isinstance(last, a.Output | a.OutputField | a.Ct | a.Resubmit) or not all(
            isinstance(w, a.Set) for w in writes
        ):
            raise NotUnderstood(f"group {number}: bucket with {', '.join(map(str, actions)) or 'no action'}")
        self._do(actions, here)

    def _learn(self, learn: a.Learn, packet: Packet) -> None:
        """Install the flow, in the place of one for the same packets."""
        match: list[MatchItem] = [(f.ETH_TYPE, 0x800, None)]
        match += [(f.IP_PROTO, learn.protocol, None)] if learn.protocol else []
        match += [(there, _read(packet, here), None) for there, here in learn.swapped]
        match += [(field, _read(packet, field), None) for field in learn.same]
        done = (a.Set(learn.target, learn.value),)
        flow = Flow(learn.table, learn.priority, tuple(match), done, "learned", "", "learned", learn.cookie)
        self.switch.learned[learn.table, flow.match] = flow

    def _output(self, port: int, packet: Packet) -> None:
        if port == packet["in_port"] != 0:
            self.trace.drops.append(f"output:{port} is the port the packet came from")
            return
        port = packet["in_port"] if port == a.IN_PORT_NUMBER else port
        if port == 0 or (port >= _RESERVED and port != f.LOCAL):
            raise NotUnderstood(f"output to port {port:#x}")
        sent = {k: v for k, v in packet.items() if k not in (*_BESIDE, "in_port") and (v or k not in _TUNNEL)}
        if port in self.switch.down:
            self.trace.drops.append(f"output:{port} is down")
        else:
            self.trace.outputs.append((port, sent))

    def _track(self, ct: a.Ct, here: _Here) -> _Here:
        """The copy that goes on in ct.table."""
        packet = dict(here.packet)
        # A mark is set on a remembered connection only.
        if packet["dl_type"] != 0x800 or ((ct.mark is not None or ct.unmark) and not ct.commit):
            raise NotUnderstood(f"{ct} on {packet}")
        stays = here.connection is not None and here.connection.zone == ct.zone
        there = replace(here, packet=packet) if stays else self._find(ct.zone, packet)
        if (connection := there.connection) is None:  # invalid: nothing is remembered or translated
            return there
        if ct.commit and (ct.zone, connection.original) not in self.switch.connections:
            self._commit(connection, ct.nat)
        connection.mark = connection.mark & ~ct.unmark | (ct.mark or 0)
        if ct.nat is not None and not there.translated:
            _translate(there, connection)
        packet["ct_mark"] = connection.mark
        return there

    def _find(self, zone: int, packet: dict[str, int]) -> _Here:
        """The packet with its connection, a new one if none is remembered, or none if it can belong to none."""
        key, connections = _tuple_of(packet), self.switch.connections
        # An error belongs to the connection whose packet it quotes; it is invalid for sure only where there is none.
        if packet.get("icmp_type") in _ERRORS and any(packet["nw_dst"] in where for _, where in connections):
            raise NotUnderstood(f"an ICMP error that may be about a connection: {packet}")
        found = connections.get((zone, key))
        if found is None and not _may_begin(packet):
            packet |= {"ct_state": _state("trk", "inv"), "ct_mark": 0}
            return _Here(packet)
        found = found or Connection(zone, key, _mirror(key))
        is_reply = key != found.original
        found.answered |= is_reply
        # A connection nobody has answered stays new, in the kernel's conntrack as in the userspace one.
        packet["ct_state"] = _state("trk", "est" if found.answered else "new", *(["rpl"] if is_reply else []))
        return _Here(packet, found, is_reply)

    def _commit(self, connection: Connection, nat: a.Nat | None) -> None:
        protocol, source, source_port, target, target_port = connection.original
        if nat is not None and nat.kind == "src":
            source = nat.ip
            if nat.port and not nat.port <= source_port <= nat.last_port:
                free = (
                    port
                    for port in range(nat.port, nat.last_port + 1)
                    if (connection.zone, (protocol, target, target_port, source, port)) not in self.switch.connections
                )
                source_port = next(free)
        elif nat is not None and nat.kind == "dst":
            target, target_port = nat.ip, nat.port or target_port
        translated = protocol, source, source_port, target, target_port
        if nat is not None and nat.kind and translated == connection.original:
            # Open vSwitch 3.1's userspace conntrack ends its process when such a connection has timed out and is asked
            # for again (conntrack.c, conn_update_state: its own second entry is taken for the first).
            raise NotUnderstood(f"a translation of {connection.original} to itself")
        connection.reply = _mirror(translated)
        for key in (connection.original, connection.reply):
            other = self.switch.connections.setdefault((connection.zone, key), connection)
            if other is not connection:
                raise NotUnderstood(f"connections {other.original} and {connection.original} share {key}")


def _state(*names: str) -> int:
    return sum(f.CT_BITS[name] for name in names)


def _mirror(key: Tuple) -> Tuple:
    return key[0], key[3], key[4], key[1], key[2]


def _tuple_of(packet: Packet) -> Tuple:
    """What conntrack knows a packet by. An echo has its identifier and its kind where others have ports."""
    protocol, source, target = packet["nw_proto"], packet["nw_src"], packet["nw_dst"]
    if protocol in (6, 17, 132):
        return protocol, source, packet["tp_src"], target, packet["tp_dst"]
    if protocol == _ICMP and (kind := packet["icmp_type"]) in (_ECHO_REQUEST, _ECHO_REPLY, *_ERRORS):
        both = packet.get("icmp_id", 0) << 8
        return protocol, source, both | kind, target, both | abs(_ECHO_REQUEST - kind)
    raise NotUnderstood(f"connection tracking of protocol {protocol}: {packet}")


def _may_begin(packet: Packet) -> bool:
    """Whether a connection can start so: an answer cannot. A TCP packet without flags may be of a running one."""
    if packet["nw_proto"] == _ICMP:
        return packet["icmp_type"] == _ECHO_REQUEST
    return packet.get("tcp_flags", 0) & (_SYN | _ACK) != _SYN | _ACK


def _translate(here: _Here, connection: Connection) -> None:
    """Make the packet what its connection says it is on the other side."""
    packet, before, after = here.packet, connection.original, _mirror(connection.reply)
    if here.is_reply:
        before, after = connection.reply, _mirror(connection.original)
    if _tuple_of(packet) != before:
        raise NotUnderstood(f"{packet} was changed since its connection {before} was looked up")
    packet |= {"nw_src": after[1], "nw_dst": after[3]}
    if after[0] != _ICMP:
        packet |= {"tp_src": after[2], "tp_dst": after[4]}
    here.translated = before != after


def _read(packet: Packet, field: f.Field) -> int:
    if isinstance(field, f.Register):
        return (packet.get(f"reg{field.number}", 0) & field.mask) >> field.first
    if field.name in packet:
        return packet[field.name]
    if field.name in _BESIDE or field.name in _TUNNEL:
        return 0
    raise NotUnderstood(f"the packet has no {field.name}: {packet}")


def _write(packet: dict[str, int], field: f.Field, value: int) -> None:
    if value >> field.bits:
        raise NotUnderstood(f"{value} does not fit into {field.name}")
    before = _read(packet, field)  # fails if the packet has no such field
    if isinstance(field, f.Register):
        name = f"reg{field.number}"
        packet[name] = packet.get(name, 0) ^ (before ^ value) << field.first
    else:
        packet[field.name] = value


def _matches(item: MatchItem, packet: Packet) -> bool:
    """Whether one item of a match holds; those before it in the match did, so its prerequisites hold."""
    field, value, mask = item
    # The two datapaths set these two bits differently for replies, and no related packets are known here.
    if field is f.CT_STATE and mask is not None and mask & _state("snat", "dnat"):
        raise NotUnderstood("a match on ct_state's snat or dnat")
    actual = _read(packet, field)
    return actual == value if mask is None else actual & mask == value

"""What a flow does to a packet, as values with the text that ovs-ofctl(8) would print."""

from __future__ import annotations

from dataclasses import dataclass

from controllers.flow.fields import CT_MARK, LOCAL, Field, Register, ip_text
from controllers.flow.tables import Table

# Connection-tracking zones of the pod bridge; two, so that a hairpin connection is known before and after its SNAT.
ZONE, SNAT_ZONE = 0xFFF0, 0xFFF1
_ZONES = {ZONE: "Main", SNAT_ZONE: "Snat"}
# ct_mark bits: it passed all tables that may drop it; its client is masqueraded; it came in by the uplink.
ALLOWED, MASQUERADED, EXTERNAL = 0x1, 0x2, 0x4


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Output:
    """To an OpenFlow port by number."""

    port: int

    def __str__(self) -> str:
        return f"output:{_PORTS.get(self.port, self.port)}"


IN_PORT_NUMBER = 0xFFFFFFF8
_PORTS = {IN_PORT_NUMBER: "IN_PORT", LOCAL: "LOCAL"}


@dataclass(frozen=True, slots=True, weakref_slot=True)
class OutputField:
    """To the port that a register names."""

    source: Register

    def __str__(self) -> str:
        return f"output:{self.source.name}"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Set:
    """Write a constant into a packet field or a register."""

    target: Field
    value: int

    def __str__(self) -> str:
        return f"set({self.target.name}={self.target.show(self.value)})"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Copy:
    """Copy a field into another, into its lowest bits if that is wider; of a wider one only as many bits as fit."""

    source: Field
    target: Field

    def __str__(self) -> str:
        return f"move({self.source.name}->{self.target.name})"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ForgetInPort:
    """Clear in_port, so that the packet may leave by the port it came from (ovs-actions(7), "output")."""

    def __str__(self) -> str:
        return "set(in_port=0)"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class DecTtl:
    """Decrement the IP TTL; a packet whose TTL ends here is dropped."""

    def __str__(self) -> str:
        return "dec_ttl"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Nat:
    """Network address translation inside Ct: restore what the connection has, or set a new source or destination.

    port: 0 for the connection's own; with last_port, one of a range, its own if that is in it.
    """

    kind: str = ""  # "", "src" or "dst"
    ip: int = 0
    port: int = 0
    last_port: int = 0

    def __str__(self) -> str:
        if not self.kind:
            return "nat"
        ports = f":{self.port}" + (f"-{self.last_port}" if self.last_port else "") if self.port else ""
        return f"nat({self.kind}={ip_text(self.ip)}{ports})"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Ct:
    """Connection tracking; the packet goes on in `table` with ct_state set. mark, unmark: bits to set and clear."""

    zone: int
    table: Table
    commit: bool = False
    nat: Nat | None = None
    mark: int | None = None
    unmark: int = 0

    def __str__(self) -> str:
        parts = ["commit"] if self.commit else []
        parts += [f"table={self.table}", f"zone={_ZONES.get(self.zone, self.zone)}"]
        parts += [str(self.nat)] if self.nat else []
        parts += [f"exec(set({CT_MARK.name}={self.mark:#x}))"] if self.mark is not None else []
        parts += [f"exec(set({CT_MARK.name}=0/{self.unmark:#x}))"] if self.unmark else []
        return f"ct({','.join(parts)})"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ToGroup:
    """Hand the packet to a group."""

    group: int

    def __str__(self) -> str:
        return f"group:{self.group}"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Goto:
    """Go on in a later table of the same pipeline."""

    table: Table

    def __str__(self) -> str:
        return f"goto_table:{self.table}"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Resubmit:
    """Do what a later table says, then go on with the next action here."""

    table: Table

    def __str__(self) -> str:
        return f"resubmit(,{self.table})"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Again:
    """Ask this table once more, which must see another packet: a register was set that flows here match."""

    def __str__(self) -> str:
        return "resubmit(,this)"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Multipath:
    """Write hash modulo `links` into a register (ovs-actions(7), "multipath").

    fields: what is hashed, as ovs-actions(7) names it. Whatever is hashed, each value of it is a decision of its own.
    """

    fields: str
    links: int
    target: Register

    def __str__(self) -> str:
        return f"multipath({self.fields},modulo_n,{self.links}->{self.target.name})"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Learn:
    """Install a flow into `table` that loads `value` into `target` for packets equal to this one in `same`.

    It bears `cookie`, goes after `idle` seconds without a packet (0: never), and goes with the flow that learned it.
    """

    table: Table
    priority: int
    same: tuple[Field, ...]
    target: Register
    value: int
    cookie: int
    idle: int = 0
    # Number of the IP protocol to match; (field of the flow, field of this packet) that must be equal.
    protocol: int = 0
    swapped: tuple[tuple[Field, Field], ...] = ()

    def __str__(self) -> str:
        parts = [f"nw_proto={self.protocol}"] if self.protocol else []
        same = ",".join([*parts, *(x.name for x in self.same), *(f"{x.name}={y.name}" for x, y in self.swapped)])
        idle = f",idle_timeout={self.idle}" if self.idle else ""
        return f"learn(table={self.table}{idle},{same},load:{self.value}->{self.target.name})"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Conjunction:
    """Membership of a clause: once a flow of each of `clauses` clauses matched, the table is asked again with conj_id.

    It must be a flow's only action, and all flows of a conjunction have one priority (ovs-actions(7), "conjunction").
    """

    id: int
    clause: int
    clauses: int

    def __str__(self) -> str:
        return f"conjunction({self.id},{self.clause}/{self.clauses})"


Action = (
    Output
    | OutputField
    | Set
    | Copy
    | ForgetInPort
    | DecTtl
    | Ct
    | ToGroup
    | Goto
    | Resubmit
    | Again
    | Multipath
    | Learn
    | Conjunction
)

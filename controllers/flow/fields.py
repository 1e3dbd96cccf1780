"""What a flow may match and set: packet fields, and registers with a width, a meaning and a range of life."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from socket import AF_INET, inet_ntop, inet_pton


def mac_text(value: int) -> str:
    """48-bit number as 0a:58:... text."""
    raw = f"{value:012x}"
    return ":".join(raw[i : i + 2] for i in range(0, 12, 2))


def mac_number(text: str) -> int:
    """0a:58:... text as a 48-bit number."""
    return int(text.replace(":", ""), 16)


def ip_text(value: int) -> str:
    """32-bit number as dotted quad. Raises OverflowError if it has more bits."""
    return inet_ntop(AF_INET, value.to_bytes(4, "big"))


def ip_number(text: str) -> int:
    """Dotted quad as a 32-bit number. Raises OSError if it is none."""
    return int.from_bytes(inet_pton(AF_INET, text), "big")


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A packet field. name: as ovs-ofctl prints it; oxm: as Ryu's parser names it; nxm: as Ryu's load/move do."""

    name: str
    bits: int
    oxm: str
    nxm: str = ""
    show: Callable[[int], str] = str
    # What the packet must be for the field to exist (ovs-fields(7), "Prerequisites"), as match text -> required text.
    needs: str = ""

    def __repr__(self) -> str:
        return self.name


def _hex(value: int) -> str:
    return hex(value)


LOCAL = 0xFFFFFFFE
IN_PORT = Field("in_port", 32, "in_port", show=lambda number: "LOCAL" if number == LOCAL else str(number))
ETH_TYPE = Field("dl_type", 16, "eth_type", show=_hex)
ETH_SRC = Field("dl_src", 48, "eth_src", "eth_src_nxm", show=mac_text)
ETH_DST = Field("dl_dst", 48, "eth_dst", "eth_dst_nxm", show=mac_text)
ARP_OP = Field("arp_op", 16, "arp_op", "arp_op_nxm", needs="arp")
ARP_SPA = Field("arp_spa", 32, "arp_spa", "arp_spa_nxm", show=ip_text, needs="arp")
ARP_TPA = Field("arp_tpa", 32, "arp_tpa", "arp_tpa_nxm", show=ip_text, needs="arp")
ARP_SHA = Field("arp_sha", 48, "arp_sha", "arp_sha_nxm", show=mac_text, needs="arp")
ARP_THA = Field("arp_tha", 48, "arp_tha", "arp_tha_nxm", show=mac_text, needs="arp")
IP_PROTO = Field("nw_proto", 8, "ip_proto", needs="ip")
IP_SRC = Field("nw_src", 32, "ipv4_src", "ipv4_src_nxm", show=ip_text, needs="ip")
IP_DST = Field("nw_dst", 32, "ipv4_dst", "ipv4_dst_nxm", show=ip_text, needs="ip")
ICMP_TYPE = Field("icmp_type", 8, "icmpv4_type", needs="icmp")
ICMP_CODE = Field("icmp_code", 8, "icmpv4_code", needs="icmp")
TCP_DST = Field("tp_dst", 16, "tcp_dst", needs="tcp")
TCP_SRC = Field("tp_src", 16, "tcp_src", needs="tcp")
UDP_DST = Field("tp_dst", 16, "udp_dst", needs="udp")
UDP_SRC = Field("tp_src", 16, "udp_src", needs="udp")
SCTP_DST = Field("tp_dst", 16, "sctp_dst", needs="sctp")
SCTP_SRC = Field("tp_src", 16, "sctp_src", needs="sctp")
TUN_DST = Field("tun_dst", 32, "tun_ipv4_dst", "tun_ipv4_dst", show=ip_text)
TUN_ID = Field("tun_id", 64, "tunnel_id", "tunnel_id_nxm")

# conntrack state bits, ovs-fields(7) "ct_state".
CT_BITS: Mapping[str, int] = {"new": 1, "est": 2, "rel": 4, "rpl": 8, "inv": 16, "trk": 32, "snat": 64, "dnat": 128}


def ct_state(text: str) -> tuple[int, int]:
    """'+trk+new-inv' as (value, mask). Raises KeyError for an unknown flag."""
    value = mask = 0
    for sign, name in zip(text[::4], (text[i + 1 : i + 4] for i in range(0, len(text), 4)), strict=True):
        bit = CT_BITS[name]
        mask |= bit
        value |= bit if sign == "+" else 0
    return value, mask


CT_STATE = Field("ct_state", 32, "ct_state", needs="ip")
CT_MARK = Field("ct_mark", 32, "ct_mark", "ct_mark", show=_hex, needs="ip")
# Set by the switch for its second look, once every clause of a conjunction held (ovs-fields(7), "Conjunctive Match").
CONJ_ID = Field("conj_id", 32, "conj_id")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Register(Field):
    """Bits first..last of an Open vSwitch register, alive from table `since` to table `until` (numbers, inclusive)."""

    number: int = 0
    first: int = 0
    last: int = 31
    since: int = 0
    until: int = 255
    meaning: str = ""
    values: Mapping[int, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.place

    @property
    def mask(self) -> int:
        """The register's bits that belong to this field."""
        return ((1 << (self.last - self.first + 1)) - 1) << self.first

    @property
    def place(self) -> str:
        """reg0[0..3]"""
        return f"reg{self.number}[{self.first}..{self.last}]"


def _register(
    name: str,
    number: int,
    bits: tuple[int, int],
    life: tuple[int, int],
    meaning: str,
    values: Mapping[int, str] | None = None,
) -> Register:
    named = dict(values or {})
    return Register(
        name=name,
        bits=bits[1] - bits[0] + 1,
        oxm=f"reg{number}",
        nxm=f"reg{number}",
        show=lambda v: named.get(v, str(v)),
        number=number,
        first=bits[0],
        last=bits[1],
        since=life[0],
        until=life[1],
        meaning=meaning,
        values=named,
    )


FROM_POD, FROM_GATEWAY, FROM_TUNNEL, FROM_UPLINK = 1, 2, 3, 4
PKT_SOURCE = _register(
    "PktSource",
    0,
    (0, 3),
    (0, 99),
    "where the packet entered the bridge",
    {FROM_POD: "Pod", FROM_GATEWAY: "Gateway", FROM_TUNNEL: "Tunnel", FROM_UPLINK: "Uplink"},
)
HAIRPIN = _register("Hairpin", 0, (4, 4), (10, 90), "the packet leaves by the port it came from")
MASQUERADE = _register("Masquerade", 0, (5, 5), (14, 85), "the client is hidden behind this node's address")
REPLY = _register("Reply", 0, (6, 6), (11, 78), "the packet answers a connection that was allowed")
OUT_PORT = _register("OutPort", 1, (0, 31), (40, 90), "OpenFlow port the packet will leave by")
DROP_SPOOF, DROP_INVALID, DROP_ARP, DROP_NO_ROUTE, DROP_NO_LOCAL, DROP_SOURCE_RANGE, DROP_IDENTITY = 1, 2, 3, 4, 5, 6, 7
DROP_EGRESS_POLICY, DROP_INGRESS_POLICY, DROP_DENIED_REPLY = 16, 17, 18
DROP_REASON = _register(
    "DropReason",
    2,
    (0, 7),
    (0, 99),
    "why the Drop table is asked to drop",
    {
        DROP_SPOOF: "Spoofed",
        DROP_INVALID: "InvalidConnection",
        DROP_ARP: "UnknownARP",
        DROP_NO_ROUTE: "NoRoute",
        DROP_NO_LOCAL: "NoLocalEndpoint",
        DROP_SOURCE_RANGE: "SourceRange",
        DROP_IDENTITY: "InvalidIdentity",
        DROP_EGRESS_POLICY: "EgressPolicy",
        DROP_INGRESS_POLICY: "IngressPolicy",
        DROP_DENIED_REPLY: "ReplyOfDeniedConnection",
    },
)
SWAP = _register("Swap", 3, (0, 31), (8, 8), "an ARP request's target address while the two change places")
SERVICE = _register("Service", 4, (0, 31), (24, 27), "number of the set of endpoints to choose from")
ENDPOINT = _register("Endpoint", 5, (0, 15), (24, 27), "the chosen endpoint's number in its set; 0: none yet")
INDEX = _register("Index", 5, (16, 31), (24, 27), "which of the set's endpoints is chosen, counted from 0")
IDENTITY = _register("Identity", 6, (0, 23), (9, 74), "the sender's security identity, where the CNI knows identities")
_LOGGED = "how many Log rules of Calico's have seen it as a connection's first packet, on its way {}"
EGRESS_LOGGED = _register("EgressLogged", 7, (0, 15), (28, 34), _LOGGED.format("out of its pod"))
INGRESS_LOGGED = _register("IngressLogged", 7, (16, 31), (66, 74), _LOGGED.format("into its pod"))
REGISTERS: tuple[Register, ...] = (
    PKT_SOURCE,
    HAIRPIN,
    MASQUERADE,
    REPLY,
    OUT_PORT,
    DROP_REASON,
    SWAP,
    SERVICE,
    ENDPOINT,
    INDEX,
    IDENTITY,
    EGRESS_LOGGED,
    INGRESS_LOGGED,
)


class RegisterOverlap(Exception):
    """Two registers share bits in tables where both live."""


def check_registers(registers: tuple[Register, ...]) -> None:
    """Raise RegisterOverlap if two fields of `registers` share bits while both live."""
    for i, one in enumerate(registers):
        for two in registers[i + 1 :]:
            if one.number == two.number and one.mask & two.mask and one.since <= two.until and two.since <= one.until:
                raise RegisterOverlap(f"{one.name} ({one.place}) and {two.name} ({two.place}) overlap")


check_registers(REGISTERS)

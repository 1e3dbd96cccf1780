"""BIRD's configuration for a fabric switch that is a router: eBGP with its rack's nodes and with other routers; pure.

Source: RFC 7938 (eBGP in a Clos fabric: an AS for each leaf, one for all spines), Calico, "Calico over IP fabrics".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from controllers.bgp import bird
from controllers.bgp.options import ROUTER_ASN, Bgp

INTERFACE = "br-fabric"


@dataclass(frozen=True, slots=True)
class Session:
    """With another router: its name and AS, both addresses of the link."""

    peer: str
    asn: int
    address: str
    peer_address: str


@dataclass(frozen=True, slots=True)
class RouterPlan:
    """A switch as a router. rack: its nodes' subnet, or "". world: the machine outside, if it is in this rack."""

    name: str
    asn: int
    address: str
    rack: str
    sessions: tuple[Session, ...]
    world: str = ""


def asn_of(name: str, leaves: tuple[str, ...]) -> int:
    """Of a leaf its own, of spines one that they share (RFC 7938, section 5.2.1)."""
    return ROUTER_ASN + (leaves.index(name) + 1 if name in leaves else 0)


def config(plan: RouterPlan, bgp: Bgp) -> str:
    """The whole file."""
    return "\n".join(
        [
            f"# {plan.name}",
            *bird.base(plan.address, INTERFACE),
            *_world(plan.world),
            "protocol kernel {",
            "  ipv4 { import none; export where source ~ [ RTS_BGP, RTS_STATIC ]; };",
            f"  merge paths on; persist; graceful restart on; scan time {bird.SCAN};",
            "}",
            *(bird.bfd("*") if bgp.bfd else ()),
            *_template(plan, bgp),
            *(_session(one) for one in plan.sessions),
            *_rack(plan),
            *_outside(plan, bgp),
            "",
        ]
    )


def _world(address: str) -> Iterator[str]:
    """The way to everything else, which the other routers learn from this one."""
    if address:
        yield f"protocol static world {{ ipv4; route 0.0.0.0/0 via {address}; }}"


def _template(plan: RouterPlan, bgp: Bgp) -> Iterator[str]:
    yield "template bgp routers {"
    yield f"  local as {plan.asn}; direct; {bird.timers(bgp)}"
    yield "  ipv4 { import all; export where source ~ [ RTS_DEVICE, RTS_STATIC, RTS_BGP ]; };"
    yield "}"


def _session(one: Session) -> str:
    words = [f'description "{one.peer}"', f"source address {one.address}", f"neighbor {one.peer_address} as {one.asn}"]
    words += ["passive on"] if IPv4Address(one.address) > IPv4Address(one.peer_address) else []
    return f"protocol bgp {one.peer.replace('-', '_')} from routers {{ {'; '.join(words)}; }}"


def _rack(plan: RouterPlan) -> Iterator[str]:
    """The nodes call; they have their default route already, and it is not from BGP."""
    if plan.rack:
        yield "protocol bgp nodes from routers {"
        yield f'  neighbor range {plan.rack} external; dynamic name "node"; passive on;'
        yield "  ipv4 { import all; export where net != 0.0.0.0/0 && source ~ [ RTS_DEVICE, RTS_BGP ]; };"
        yield "}"


def _outside(plan: RouterPlan, bgp: Bgp) -> Iterator[str]:
    if plan.world and bgp.outside:
        yield "protocol bgp outside from routers {"
        yield f"  neighbor {plan.world} as {bgp.outside_asn};"
        yield "  ipv4 { import all; export where net != 0.0.0.0/0 && source ~ [ RTS_DEVICE, RTS_BGP ]; };"
        yield "}"

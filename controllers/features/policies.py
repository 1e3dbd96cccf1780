"""Network policies as flows: a pod that none governs meets none of them; of others each packet is judged anew.

Answers are not judged: they pass while their connection is allowed. So a policy that changes concerns running
connections at once and touches none that stays allowed. Source: ovn-architecture(7), which does the same with ACLs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Action, Again, Conjunction, Goto, Learn, Resubmit, Set
from controllers.flow.kept import kept
from controllers.flow.program import Fragment, MatchItem, Writer, learned_cookie, match
from controllers.flow.tables import Table
from controllers.policy import clauses, peers
from controllers.policy.clauses import PORT, SOURCE_PORT
from controllers.policy.index import Member, PeerAddress, PeerPort, Subject
from controllers.policy.model import ADMIN, ALLOW, BASELINE, EGRESS, INGRESS, LOG, NAMESPACED, PASS, PROTOCOLS
from controllers.state import Node, NodeView

_TABLES = {
    EGRESS: {ADMIN: t.EGRESS_ADMIN, NAMESPACED: t.EGRESS_POLICY, BASELINE: t.EGRESS_DEFAULT},
    INGRESS: {ADMIN: t.INGRESS_ADMIN, NAMESPACED: t.INGRESS_POLICY, BASELINE: t.INGRESS_DEFAULT},
}
_SUBJECTS = {EGRESS: t.EGRESS_SUBJECTS, INGRESS: t.INGRESS_SUBJECTS}
# Where a packet goes on that is allowed; which field is the governed pod's address and which the other end's.
_NEXT = {EGRESS: t.L3_FORWARDING, INGRESS: t.SCTP_LEARN}
_OWN, _OTHER = {EGRESS: "nw_src", INGRESS: "nw_dst"}, {EGRESS: "nw_dst", INGRESS: "nw_src"}
_REASON = {EGRESS: f.DROP_EGRESS_POLICY, INGRESS: f.DROP_INGRESS_POLICY}
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 132: "sctp"}
# The port field of each clause of ports.
_PORT_FIELDS = {PORT: "tp_dst", SOURCE_PORT: "tp_src"}
_LOGGED = {EGRESS: f.EGRESS_LOGGED, INGRESS: f.INGRESS_LOGGED}
# How long an SCTP association may be silent (kernel, nf_conntrack-sysctl: established associations 210 s).
_SCTP_IDLE = 300


def fragments(view: NodeView) -> Iterable[Fragment]:
    """One for the node, one a governed pod, one a peer, one a port, one a rule; none if the CNI enforces nothing."""
    if not view.lab.enforces:
        return
    yield _node(view.node)
    yield _sctp()
    for subject in view.policies.subjects:
        yield _subject(subject)
    for address in view.policies.addresses:
        yield _address(address)
    for port in view.policies.ports:
        yield _port(port)
    for conjunction in view.policies.conjunctions:
        if conjunction.clauses > 1:
            yield _conjunction(conjunction)


@kept
def _node(node: Node) -> Fragment:
    """Kubernetes, "Network Policies": traffic to and from the node where a pod is running is always allowed."""
    w = Writer("policy", f"exceptions of {node.name}")
    w.flow(t.INGRESS_SUBJECTS, t.HIGH + 3, match("ip", Reply=1), Goto(t.SCTP_LEARN))
    w.flow(t.INGRESS_SUBJECTS, t.HIGH + 2, match("ip", PktSource=f.FROM_GATEWAY), Goto(t.SCTP_LEARN))
    for address in (node.ip, node.gateway_ip):
        w.flow(t.EGRESS_SUBJECTS, t.HIGH + 2, match("ip", nw_dst=address), Goto(t.L3_FORWARDING))
    return w.fragment()


@lru_cache(maxsize=1)
def _sctp() -> Fragment:
    """Answers of SCTP are known by learned flows: Open vSwitch 3.1's own conntrack takes all SCTP between two addresses
    for one connection, so that whoever may answer could also ask.
    """
    w = Writer("policy", "answers of SCTP")
    w.flow(t.SCTP_REPLY, t.NORMAL, match("sctp"), Resubmit(t.SCTP_MEMORY), Goto(t.CONNTRACK))
    w.flow(t.CONNTRACK_STATE, t.NORMAL + 2, match("sctp", Reply=1), Goto(t.L3_FORWARDING))
    known = match("sctp", ct_state="-new+est+trk")
    w.flow(t.CONNTRACK_STATE, t.NORMAL + 1, known, Goto(t.EGRESS_SUBJECTS))
    swapped = ((f.IP_SRC, f.IP_DST), (f.IP_DST, f.IP_SRC), (f.SCTP_SRC, f.SCTP_DST), (f.SCTP_DST, f.SCTP_SRC))
    cookie = learned_cookie("policy", "answers of SCTP", "")
    learn = Learn(t.SCTP_MEMORY, t.NORMAL, (), f.REPLY, 1, cookie, _SCTP_IDLE, 132, swapped)
    w.flow(t.SCTP_LEARN, t.NORMAL, match("sctp", Reply=0), learn, Goto(t.CONNTRACK_COMMIT))
    w.flow(t.DENY, t.HIGH, match("sctp"), Goto(t.DROP))
    return w.fragment()


@kept
def _subject(subject: Subject) -> Fragment:
    w = Writer("policy", f"{subject.direction} of {subject.pod}")
    own: dict[str, Any] = {_OWN[subject.direction]: subject.ip}
    first, on = _SUBJECTS[subject.direction], Goto(_NEXT[subject.direction])
    # "a Pod cannot block access to itself"
    w.flow(first, t.HIGH + 1, match("ip", nw_src=subject.ip, nw_dst=subject.ip), on)
    w.flow(first, t.NORMAL, match("ip", **own), Goto(t.after(first)))
    several: dict[tuple[MatchItem, ...], list[Member]] = {}
    alone: dict[tuple[Table, int, tuple[MatchItem, ...]], tuple[Action, ...]] = {}
    everything = match("ip", **own)
    for c, clause in subject.members:
        for wanted in _logging(c, own) if c.log else (everything,):
            if c.clauses > 1:
                several.setdefault(wanted, []).append((c, clause))
            else:  # whoever it is and whatever it wants; rules of one rank do the same
                alone[_table(c), clauses.priority(c) + 1, wanted] = _done(c)
    for wanted, members in several.items():
        _clauses(w, wanted, members)
    for (table, priority, wanted), actions in alone.items():
        w.flow(table, priority, wanted, *actions)
    if subject.isolated:
        w.flow(_TABLES[subject.direction][NAMESPACED], t.LOW, match("ip", **own), *_denied(subject.direction))
    return w.fragment()


def _logging(c: clauses.Conjunction, own: Mapping[str, Any]) -> Iterator[tuple[MatchItem, ...]]:
    """A connection's first packets that this Log rule has not seen: those that at most an earlier one has."""
    for value, mask in clauses.cover(0, c.log - 1):
        logged = {_LOGGED[c.direction].name: value if mask == 0xFFFF else (value, mask)}
        yield match("ip", **own, ct_state="+new+trk", **logged)


@kept
def _address(address: PeerAddress) -> Fragment:
    preposition = "from" if address.direction == INGRESS else "to"
    w = Writer("policy", f"{address.direction} {preposition} {address.network.removesuffix('/32')}")
    _clauses(w, _peer(address.direction, address.network), address.members)
    return w.fragment()


def _peer(direction: str, network: str) -> tuple[MatchItem, ...]:
    """The match of what controllers/policy/peers.py knows a peer by."""
    if network.startswith(peers.IDENTITY):
        return match("ip", Identity=int(network.removeprefix(peers.IDENTITY)))
    text = network.removesuffix("/32")
    return match("ip") if text == "0.0.0.0/0" else match("ip", **{_OTHER[direction]: text})


@kept
def _port(port: PeerPort) -> Fragment:
    number, value, mask = port.match
    protocol = _PROTOCOLS.get(number, f"protocol {number}")
    text = "" if not mask else f" {value}" if mask == 0xFFFF else f" {value}/{mask:#x}"
    side = " from" if port.clause == SOURCE_PORT else ""
    w = Writer("policy", f"{port.direction}{side} {protocol}{text}")
    _clauses(w, _port_match(port), port.members)
    return w.fragment()


def _port_match(port: PeerPort) -> tuple[MatchItem, ...]:
    number, value, mask = port.match
    if number not in _PROTOCOLS:
        return match("ip", nw_proto=number)
    if not mask:
        return match(_PROTOCOLS[number])
    if number == PROTOCOLS["ICMP"]:
        code = {"icmp_code": value & 0xFF} if mask & 0xFF else {}
        return match("icmp", icmp_type=value >> 8, **code)
    wanted: Any = value if mask == 0xFFFF else (value, mask)
    return match(_PROTOCOLS[number], **{_PORT_FIELDS[port.clause]: wanted})


@kept
def _conjunction(c: clauses.Conjunction) -> Fragment:
    w = Writer("policy", c.key)
    w.flow(_table(c), clauses.priority(c), match("ip", conj_id=c.number), *_done(c))
    return w.fragment()


def _table(c: clauses.Conjunction) -> Table:
    return _TABLES[c.direction][c.tier]


def _done(c: clauses.Conjunction) -> tuple[Action, ...]:
    """What becomes of a packet that the rule wants. After a Log rule it is asked again, which passes that one over."""
    if c.action == ALLOW:
        return (Goto(_NEXT[c.direction]),)
    if c.action == PASS:
        return (Goto(t.after(_table(c))),)
    if c.action == LOG:
        return Set(_LOGGED[c.direction], c.log), Again()
    return _denied(c.direction)


def _denied(direction: str) -> tuple[Action, ...]:
    return Set(f.DROP_REASON, _REASON[direction]), Goto(t.DENY)


def _clauses(w: Writer, wanted: tuple[MatchItem, ...], members: Iterable[Member]) -> None:
    """One flow a table and priority, member of every conjunction it serves there."""
    found: dict[tuple[Table, int], list[Conjunction]] = {}
    for member in members:
        place, action = _membership(member)
        found.setdefault(place, []).append(action)
    for (table, priority), actions in found.items():
        w.flow(table, priority, wanted, *actions)


@lru_cache(maxsize=1 << 17)
def _membership(member: Member) -> tuple[tuple[Table, int], Conjunction]:
    c, clause = member
    return (_table(c), clauses.priority(c)), Conjunction(c.number, clause, c.clauses)

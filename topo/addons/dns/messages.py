"""Bytes of a question to bytes of an answer (RFC 1035, EDNS of RFC 6891). Whatever comes in, nothing is raised.

What only the upstream can answer comes back as a Forward, so that whoever holds the sockets decides how to wait for it.
"""

from __future__ import annotations

import os
import struct
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from topo.addons.dns.records import TTL, Answer, Record

Lookup = Callable[[str, str], Answer | None]

# Bytes. RFC 6891, 6.2.5 for who says nothing; above it no more than passes every link in one piece (DNS flag day 2020).
_PLAIN, _LARGEST, _TCP = 512, 1232, 65535
_ZONE_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)


@dataclass(frozen=True, slots=True)
class Forward:
    """A question for the upstream. finish: the reply to our client from the upstream's, None if that did not come."""

    question: bytes
    finish: Callable[[bytes | None], bytes]


def reply(wire: bytes, lookup: Lookup, tcp: bool, has_upstream: bool) -> bytes | Forward | None:
    """What to send back; None for what deserves no reply: no whole header, or a reply itself (else two could loop)."""
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    if dns.opcode.from_flags(struct.unpack_from("!H", wire, 2)[0]) != dns.opcode.QUERY:
        return _header(wire, dns.rcode.NOTIMP)
    try:
        query = dns.message.from_wire(wire, ignore_trailing=True)
    except Exception:  # what a stranger sends can break a parser in ways that nobody lists
        return _header(wire, dns.rcode.FORMERR)
    if len(query.question) != 1:  # RFC 9619
        return _header(wire, dns.rcode.FORMERR)
    try:
        return _answer(wire, query, lookup, _TCP if tcp else min(max(query.payload, _PLAIN), _LARGEST), has_upstream)
    except Exception:  # a mistake of ours, or an object's name that no message can hold; others are answered on
        traceback.print_exc()
        return _header(wire, dns.rcode.SERVFAIL)


def _answer(wire: bytes, query: dns.message.Message, lookup: Lookup, limit: int, has_upstream: bool) -> bytes | Forward:
    question = query.question[0]
    response = dns.message.make_response(query, recursion_available=has_upstream, our_payload=_LARGEST)
    if query.edns > 0:
        return _refuse(response, dns.rcode.BADVERS)
    if question.rdclass != dns.rdataclass.IN or question.rdtype in _ZONE_TRANSFERS:
        return _refuse(response, dns.rcode.REFUSED)
    answer = lookup(question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype))
    if answer is None:
        if not has_upstream:
            return _refuse(response, dns.rcode.REFUSED)
        return Forward(wire, lambda got: _refuse(response, dns.rcode.SERVFAIL) if got is None else got)
    response.flags |= dns.flags.AA
    response.set_rcode(dns.rcode.from_text(answer.rcode))
    response.answer.extend(_sets(answer.records, question.name))
    response.authority.extend(_sets(answer.authority, question.name))
    response.additional.extend(_sets(answer.additional, question.name))
    if not answer.elsewhere:
        return _wire(response, limit)
    if not has_upstream:
        return _refuse(response, dns.rcode.SERVFAIL)
    rest = dns.message.make_query(answer.elsewhere, question.rdtype, use_edns=0, payload=_LARGEST)
    return Forward(rest.to_wire(), lambda got: _completed(response, got, limit))


def _completed(response: dns.message.Message, got: bytes | None, limit: int) -> bytes:
    """Our CNAME with what the upstream says of the name it leads to, whose rcode counts (RFC 6604, 3)."""
    try:
        rest = dns.message.from_wire(got or b"", ignore_trailing=True)
    except Exception:  # the upstream is a stranger too
        return _refuse(response, dns.rcode.SERVFAIL)
    response.answer.extend(rest.answer)
    response.authority.extend(rest.authority)
    response.set_rcode(rest.rcode())
    response.flags |= rest.flags & dns.flags.TC
    return _wire(response, limit)


def _wire(response: dns.message.Message, limit: int) -> bytes:
    """As bytes. What does not fit goes without what is only additional, else empty, so that the client tries TCP."""
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        response.additional.clear()
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        response.answer.clear()
        response.authority.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=limit)


def _refuse(response: dns.message.Message, rcode: dns.rcode.Rcode) -> bytes:
    for section in (response.answer, response.authority, response.additional):
        section.clear()
    response.flags &= ~dns.flags.AA
    response.set_rcode(rcode)
    return response.to_wire()


def _header(wire: bytes, rcode: int) -> bytes:
    """A reply of nothing but a header, to what is no question that can be repeated."""
    flags = 0x8000 | (struct.unpack_from("!H", wire, 2)[0] & 0x7900) | rcode
    return wire[:2] + struct.pack("!5H", flags, 0, 0, 0, 0)


def _sets(records: Sequence[Record], asked: dns.name.Name) -> Iterable[dns.rrset.RRset]:
    """Records of one name and type together; a name that was asked for is spelt as the question spells it.

    dnspython shuffles a set as it writes it, so that clients take turns, as CoreDNS' plugin loadbalance has it.
    """
    groups: dict[tuple[str, str], list[dns.rdata.Rdata]] = {}
    for record in records:
        groups.setdefault((record.name, record.kind), []).append(_rdata(record.kind, record.data))
    for (name, _), data in groups.items():
        owner = _name(name)
        yield dns.rrset.from_rdata_list(asked if owner == asked else owner, TTL, data)


@lru_cache(maxsize=4096)
def _rdata(kind: str, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text("IN", kind, text)


@lru_cache(maxsize=4096)
def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text)


def fresh(question: bytes) -> bytes:
    """The question under an ID that nobody can guess (RFC 5452)."""
    return os.urandom(2) + question[2:]


def is_answer(reply: bytes, question: bytes) -> bool:
    """Whether these bytes answer that question: same ID, and the same question repeated (RFC 5452, 9.1)."""
    if reply[:2] != question[:2] or len(reply) < 12 or not reply[2] & 0x80:
        return False
    end = _question_end(question)
    # A server that understood nothing repeats nothing.
    return len(reply) == 12 or reply[12:end].lower() == question[12:end].lower()


def _question_end(wire: bytes) -> int:
    at = 12
    while at < len(wire) and wire[at]:
        at += wire[at] + 1
    return at + 5

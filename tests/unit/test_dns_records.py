"""The DNS without sockets: CoreDNS' own questions, the specification's rules, and what any bytes are answered with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.addons.dns.messages import Forward, fresh, is_answer, reply
from topo.addons.dns.outside import Names
from topo.addons.dns.records import Answer, Record, Zone

DATA = Path(__file__).parents[1] / "data" / "dns"
CASES: list[dict[str, Any]] = json.loads((DATA / "coredns-cases.json").read_text())["cases"]


@pytest.fixture(scope="module")
def coredns() -> Zone:
    """A zone of the cluster that CoreDNS' tests have."""
    zone = Zone(service=("kube-system", "kubedns"))
    objects = yaml.safe_load_all((DATA / "coredns-fixture.yaml").read_text())
    zone.take((("ADDED", thing) for thing in objects), 7)
    return zone


def absolute(name: str) -> str:
    return f"{name.rstrip('.')}."


def seen(records: tuple[Record, ...]) -> list[tuple[str, str, str]]:
    return sorted((r.name, r.kind, r.data.strip('"')) for r in records)


def wanted(records: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    return sorted((absolute(r["name"]), r["type"], r["data"]) for r in records)


def test_there_are_all_the_cases() -> None:
    assert len(CASES) == 44


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['qname']} {c['qtype']}")
def test_as_coredns(coredns: Zone, case: dict[str, Any]) -> None:
    answer = coredns.lookup(absolute(case["qname"]), case["qtype"])
    assert answer is not None
    assert answer.rcode == case["rcode"]
    assert seen(answer.records) == wanted(case["answer"])
    assert seen(answer.additional) == wanted(case.get("additional", []))
    assert [r.kind for r in answer.authority] == (["SOA"] if case.get("authority_soa") else [])


def service(name: str, **spec: Any) -> tuple[str, dict[str, Any]]:
    return "ADDED", {"kind": "Service", "metadata": {"name": name, "namespace": "ns"}, "spec": spec}


def slice_of(name: str, *endpoints: dict[str, Any], ports: Any = (), suffix: str = "1") -> tuple[str, dict[str, Any]]:
    meta = {"name": f"{name}-{suffix}", "namespace": "ns", "labels": {"kubernetes.io/service-name": name}}
    thing = {"kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4", "endpoints": list(endpoints)}
    return "ADDED", thing | {"ports": list(ports)}


def endpoint(address: str, ready: bool | None = True, **more: Any) -> dict[str, Any]:
    return {"addresses": [address], "conditions": {"ready": ready}, **more}


def zone_of(*events: tuple[str, dict[str, Any]]) -> Zone:
    zone = Zone()
    zone.take(events)
    return zone


def found(zone: Zone, name: str, kind: str = "A") -> list[str] | str:
    """The data of the answer's records, or the rcode if that is not NOERROR."""
    answer = zone.lookup(name, kind)
    assert answer is not None
    return [r.data for r in answer.records] if answer.rcode == "NOERROR" else answer.rcode


BASE = "db.ns.svc.cluster.local."


def test_headless_without_ready_endpoints_is_nxdomain() -> None:
    """Specification, 2.4.1: "If there are no ready endpoints [...] the answer should be NXDOMAIN"."""
    headless = service("db", clusterIP="None")
    assert found(zone_of(headless, slice_of("db", endpoint("10.1.0.1", False))), BASE) == "NXDOMAIN"
    assert found(zone_of(headless, slice_of("db", endpoint("10.1.0.1", None))), BASE) == ["10.1.0.1"]
    always = service("db", clusterIP="None", publishNotReadyAddresses=True)
    assert found(zone_of(always, slice_of("db", endpoint("10.1.0.1", False))), BASE) == ["10.1.0.1"]


def test_several_slices_are_one_service() -> None:
    zone = zone_of(
        service("db", clusterIP="None"),
        slice_of("db", endpoint("10.1.0.1"), endpoint("10.1.0.2")),
        slice_of("db", endpoint("10.1.0.2"), endpoint("10.1.0.3"), suffix="2"),
    )
    assert found(zone, BASE) == ["10.1.0.1", "10.1.0.2", "10.1.0.3"]
    zone.take([("DELETED", slice_of("db")[1])])
    assert found(zone, BASE) == ["10.1.0.2", "10.1.0.3"]


def test_a_slice_that_changes_its_service() -> None:
    zone = zone_of(service("db", clusterIP="None"), slice_of("db", endpoint("10.1.0.1")))
    assert found(zone, BASE) == ["10.1.0.1"]
    moved = slice_of("db", endpoint("10.1.0.1"))[1]
    moved["metadata"] = {**moved["metadata"], "labels": {"kubernetes.io/service-name": "other"}}
    zone.take([("MODIFIED", moved)])
    assert found(zone, BASE) == "NXDOMAIN"


def test_unnamed_ports_have_no_srv_of_their_own() -> None:
    """Specification, 2.3.2: "Unnamed ports do not have an SRV record"."""
    ports = [{"port": 1, "protocol": "UDP"}, {"name": "Sql", "port": 2}]
    zone = zone_of(service("db", clusterIP="10.0.0.1", ports=ports))
    assert found(zone, f"_sql._tcp.{BASE}", "SRV") == [f"0 100 2 {BASE}"]
    assert found(zone, f"_._udp.{BASE}", "SRV") == "NXDOMAIN"
    assert found(zone, f"_tcp.{BASE}", "SRV") == []  # RFC 8020: there is a name below it
    assert found(zone, f"_sql._tcp.{BASE}", "A") == []


def test_pointers() -> None:
    zone = zone_of(
        service("vip", clusterIP="10.0.0.1"),
        service("db", clusterIP="None"),
        slice_of("db", endpoint("10.1.0.1", hostname="db-0"), endpoint("10.1.0.2")),
        slice_of("vip", endpoint("10.1.0.3"), endpoint("10.1.0.1")),
    )
    assert found(zone, "1.0.0.10.in-addr.arpa.", "PTR") == ["vip.ns.svc.cluster.local."]
    assert found(zone, "1.0.1.10.in-addr.arpa.", "PTR") == [f"db-0.{BASE}"]
    assert found(zone, "2.0.1.10.in-addr.arpa.", "PTR") == [f"10-1-0-2.{BASE}"]
    for name in ("3.0.1.10.in-addr.arpa.", "9.9.9.9.in-addr.arpa.", "x.in-addr.arpa."):
        assert zone.lookup(name, "PTR") is None  # the upstream's, as kubeadm's "fallthrough in-addr.arpa ip6.arpa"
    zone.take([("DELETED", service("vip")[1])])
    assert zone.lookup("1.0.0.10.in-addr.arpa.", "PTR") is None


def test_external_names() -> None:
    def named(name: str, target: str) -> tuple[str, dict[str, Any]]:
        return service(name, type="ExternalName", externalName=target)

    a, b = (f"{x}.ns.svc.cluster.local" for x in "ab")
    assert found(zone_of(named("a", b), named("b", a)), f"{a}.") == "SERVFAIL"
    assert found(zone_of(named("a", "10.0.0.1")), f"{a}.", "CNAME") == "NXDOMAIN"
    lost = zone_of(named("a", b)).lookup(f"{a}.", "A")
    assert lost is not None and lost.rcode == "NXDOMAIN" and [r.kind for r in lost.records] == ["CNAME"]
    away = zone_of(named("a", "www.example.com")).lookup(f"{a}.", "AAAA")
    assert away is not None and away.elsewhere == "www.example.com."
    empty = zone_of(named("a", b), service("b", clusterIP="10.0.0.1")).lookup(f"{a}.", "TXT")
    assert empty is not None and [r.kind for r in empty.authority] == ["SOA"]


def test_pods_and_namespaces() -> None:
    zone = zone_of(("ADDED", {"kind": "Namespace", "metadata": {"name": "ns"}}))
    assert found(zone, "10-1-2-3.ns.pod.cluster.local.") == ["10.1.2.3"]
    assert found(zone, "fd00--1.ns.pod.cluster.local.", "AAAA") == ["fd00::1"]
    assert found(zone, "10-1-2-3.ns.pod.cluster.local.", "AAAA") == []
    for name in ("10-1-2-300.ns.pod", "10-1-2-3.no.pod", "x.ns.pod", "a.10-1-2-3.ns.pod"):
        assert found(zone, f"{name}.cluster.local.") == "NXDOMAIN"
    zone.take([("DELETED", {"kind": "Namespace", "metadata": {"name": "ns"}})])
    assert found(zone, "ns.svc.cluster.local.") == "NXDOMAIN"


def test_the_apex() -> None:
    zone = zone_of(("ADDED", {**service("x", clusterIP="10.96.0.10")[1]}))
    own = service("kube-dns", clusterIP="10.96.0.10")[1]
    own["metadata"] = {"name": "kube-dns", "namespace": "kube-system"}
    zone.take([("ADDED", own)], 2**32 + 5)
    assert found(zone, "cluster.local.", "NS") == ["ns.dns.cluster.local."]
    assert found(zone, "ns.dns.cluster.local.") == ["10.96.0.10"]
    assert found(zone, "dns.cluster.local.") == []
    assert found(zone, "cluster.local.", "SOA") == [
        "ns.dns.cluster.local. hostmaster.cluster.local. 5 7200 1800 86400 5"
    ]
    assert zone.lookup("notcluster.local.", "A") is None
    assert zone.lookup(".", "NS") is None


def test_the_world_outside() -> None:
    world = Names(
        [("www.Example.com", "192.0.2.1"), ("www.example.com.", "2001:db8::1"), ("web.example.com", "www.example.com")]
    )
    assert [r.data for r in world.lookup("web.example.com.", "A").records] == ["www.example.com.", "192.0.2.1"]
    assert world.lookup("example.com.", "A") == Answer(authority=world.lookup("example.com.", "A").authority)
    assert world.lookup("nowhere.example.com.", "A").rcode == "NXDOMAIN"
    assert [r.data for r in world.lookup("1.2.0.192.in-addr.arpa.", "PTR").records] == ["www.example.com."]
    assert Names([("a", "b"), ("b", "a")]).lookup("a.", "A").rcode == "SERVFAIL"


# Bytes.


def many(name: str, kind: str) -> Answer | None:
    """A hundred addresses for one name; an upstream for others."""
    if name == "many.":
        return Answer(records=tuple(Record(name, "A", f"192.0.2.{i}") for i in range(100)))
    return None


def answered(wire: bytes, lookup: Callable[[str, str], Answer | None], **options: Any) -> dns.message.Message:
    got = reply(wire, lookup, **{"tcp": False, "has_upstream": True} | options)
    assert isinstance(got, bytes)
    return dns.message.from_wire(got)


def test_truncation_and_tcp() -> None:
    for edns in (None, 0):
        query = dns.message.make_query("many.", "A", **({} if edns is None else {"use_edns": edns, "payload": 4096}))
        short = answered(query.to_wire(), many)
        assert short.flags & dns.flags.TC and not short.answer and (short.edns < 0) == (edns is None)
    whole = answered(dns.message.make_query("MANY.", "A").to_wire(), many, tcp=True)
    assert len(whole.answer[0]) == 100 and whole.answer[0].name.to_text() == "MANY."


def test_addresses_take_turns() -> None:
    wire = dns.message.make_query("many.", "A").to_wire()
    assert len({answered(wire, many, tcp=True).answer[0][0].to_text() for _ in range(9)}) > 1


def test_forwarding() -> None:
    query = dns.message.make_query("else.", "A")
    got = reply(query.to_wire(), many, tcp=False, has_upstream=True)
    assert isinstance(got, Forward) and got.question == query.to_wire()
    assert got.finish(b"as it came") == b"as it came"
    assert dns.message.from_wire(got.finish(None)).rcode() == dns.rcode.SERVFAIL
    assert answered(query.to_wire(), many, has_upstream=False).rcode() == dns.rcode.REFUSED


def test_a_chain_that_leaves_the_zone() -> None:
    answer = Answer(records=(Record("a.", "CNAME", "b."),), elsewhere="b.")
    got = reply(dns.message.make_query("a.", "A").to_wire(), lambda *_: answer, tcp=False, has_upstream=True)
    assert isinstance(got, Forward)
    rest = dns.message.from_wire(got.question)
    theirs = dns.message.make_response(rest)
    theirs.answer.append(dns.rrset.from_text("b.", 60, "IN", "A", "192.0.2.1"))
    whole = dns.message.from_wire(got.finish(theirs.to_wire()))
    assert [s.to_text() for s in whole.answer] == ["a. 5 IN CNAME b.", "b. 60 IN A 192.0.2.1"]


@pytest.mark.parametrize("broken", [None, b"", b"x" * 30])
def test_a_chain_whose_end_is_unknown(broken: bytes | None) -> None:
    answer = Answer(records=(Record("a.", "CNAME", "b."),), elsewhere="b.")
    wire = dns.message.make_query("a.", "A").to_wire()
    got = reply(wire, lambda *_: answer, tcp=False, has_upstream=True)
    assert isinstance(got, Forward)
    failed = dns.message.from_wire(got.finish(broken))
    assert failed.rcode() == dns.rcode.SERVFAIL and not failed.answer


def test_refusals() -> None:
    query = dns.message.make_query("many.", "AXFR")
    assert answered(query.to_wire(), many).rcode() == dns.rcode.REFUSED
    assert answered(dns.message.make_query("many.", "TXT", "CH").to_wire(), many).rcode() == dns.rcode.REFUSED
    assert answered(dns.message.make_query("many.", "A", use_edns=1).to_wire(), many).rcode() == dns.rcode.BADVERS
    query = dns.message.make_query("many.", "A")
    query.set_opcode(dns.opcode.STATUS)
    assert answered(query.to_wire(), many).rcode() == dns.rcode.NOTIMP
    twice = bytearray(dns.message.make_query("many.", "A").to_wire())
    twice[5] = 2
    assert answered(bytes(twice), many).rcode() == dns.rcode.FORMERR
    assert reply(dns.message.make_response(dns.message.make_query("a.", "A")).to_wire(), many, False, True) is None


def test_a_mistake_of_ours_is_servfail(capsys: pytest.CaptureFixture[str]) -> None:
    wire = dns.message.make_query("many.", "A").to_wire()
    assert answered(wire, lambda *_: Answer(records=(Record("x.", "A", "no address"),))).rcode() == dns.rcode.SERVFAIL
    assert "Text input is malformed" in capsys.readouterr().err


def test_whose_answer_it_is() -> None:
    question = fresh(dns.message.make_query("www.example.com.", "A").to_wire())
    answer = dns.message.make_response(dns.message.from_wire(question)).to_wire()
    other = question[:2] + dns.message.make_response(dns.message.make_query("www.example.org.", "A")).to_wire()[2:]
    assert is_answer(answer, question) and is_answer(answer[:12], question)
    assert not is_answer(other, question) and not is_answer(question, question)
    assert not is_answer(bytes([answer[0] ^ 1]) + answer[1:], question) and not is_answer(b"", question)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=600), st.booleans(), st.booleans())
def test_any_bytes_are_survived(wire: bytes, tcp: bool, has_upstream: bool) -> None:
    check(wire, tcp, has_upstream)


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from([c["qname"] for c in CASES]), st.integers(0, 65535), st.booleans())
def test_damaged_questions_are_survived(data: st.DataObject, name: str, kind: int, tcp: bool) -> None:
    wire = bytearray(dns.message.make_query(name, kind, use_edns=0).to_wire())
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(wire) - 1), st.integers(0, 255)), max_size=4)):
        wire[at] = value
    check(bytes(wire), tcp, True)


def check(wire: bytes, tcp: bool, has_upstream: bool) -> None:
    """A reply to it, if there is one, is a message, has its ID, and is not larger than it may be."""
    got = reply(wire, ZONE.lookup, tcp=tcp, has_upstream=has_upstream)
    if isinstance(got, Forward):
        got = got.finish(None)
    if got is None:
        assert len(wire) < 12 or wire[2] & 0x80
    else:
        assert got[:2] == wire[:2] and got[2] & 0x80 and (tcp or len(got) <= 1232)
        dns.message.from_wire(got)


ZONE = Zone()
ZONE.take(("ADDED", thing) for thing in yaml.safe_load_all((DATA / "coredns-fixture.yaml").read_text()))

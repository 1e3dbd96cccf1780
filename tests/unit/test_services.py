"""Services as every proxy mode sees them: what their objects say, and which endpoints a node reaches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.flow.fields import ip_number
from controllers.services import Endpoint, ServicePort, external, ports_of, reach

Object = dict[str, Any]
HTTP = {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}


def service(*ports: Object, meta: Object | None = None, status: Object | None = None, **spec: Any) -> Object:
    body = {"clusterIP": "10.96.0.10", "ports": [dict(p) for p in ports or (HTTP,)], **spec}
    return {"metadata": {"name": "s", "namespace": "default", **(meta or {})}, "spec": body, "status": status or {}}


def part(*endpoints: Object, ports: list[Object] | None = None, **more: Any) -> Object:
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}] if ports is None else ports
    return {"addressType": "IPv4", "ports": ports, "endpoints": list(endpoints), **more}


def at(address: str, **more: Any) -> Object:
    return {"addresses": [address], **more}


def read(thing: Object | None, *slices: Object) -> dict[str, ServicePort]:
    """The Service's ports, numbered from 1."""
    found = ports_of("default/s", thing, slices)
    return {key: make(number) for number, (key, make) in enumerate(found.items(), start=1)}


def one(thing: Object, *slices: Object) -> ServicePort:
    (found,) = read(thing, *slices).values()
    return found


def test_a_port_has_what_its_service_says_and_what_is_the_default() -> None:
    found = one(service())
    assert (found.key, found.protocol, found.port, found.group) == ("default/s:http/tcp", "tcp", 80, 1)
    assert found.cluster_ip == ip_number("10.96.0.10") and found.endpoints == ()
    assert (found.node_port, found.external_ips, found.load_balancer_ips, found.source_ranges) == (0, (), (), ())
    assert (found.affinity, found.internal_local, found.external_local, found.health_port) == (0, False, False, 0)
    assert not found.is_external and found.is_same_everywhere


def test_all_that_a_service_may_say() -> None:
    ingress = [{"ip": "172.18.255.200"}, {"ip": "192.0.2.1", "ipMode": "Proxy"}, {"hostname": "x.example"}]
    found = one(
        service(
            {**HTTP, "nodePort": 30080},
            status={"loadBalancer": {"ingress": ingress}},
            externalIPs=["192.0.2.9"],
            loadBalancerSourceRanges=[" 203.0.113.0/24 "],
            sessionAffinity="ClientIP",
            internalTrafficPolicy="Local",
            externalTrafficPolicy="Local",
            healthCheckNodePort=30100,
        )
    )
    assert (found.node_port, found.health_port, found.affinity) == (30080, 30100, 10800)
    # A load balancer that forwards by itself keeps its address to itself; a name is no address.
    assert found.load_balancer_ips == (ip_number("172.18.255.200"),)
    assert found.external_ips == (ip_number("192.0.2.9"),) and found.source_ranges == ("203.0.113.0/24",)
    assert found.internal_local and found.external_local and found.is_external and not found.is_same_everywhere


def test_affinity_has_its_own_timeout() -> None:
    config = {"clientIP": {"timeoutSeconds": 7}}
    assert one(service(sessionAffinity="ClientIP", sessionAffinityConfig=config)).affinity == 7
    assert one(service(sessionAffinity="None", sessionAffinityConfig=config)).affinity == 0


@pytest.mark.parametrize(
    "thing",
    [
        None,
        service(clusterIP="None"),
        service(clusterIP=""),
        service(type="ExternalName"),
        service(meta={"labels": {"service.kubernetes.io/service-proxy-name": ""}}),
        service(meta={"labels": {"service.kubernetes.io/headless": ""}}),
    ],
    ids=["none", "headless", "no address yet", "ExternalName", "another proxy's", "labelled headless"],
)
def test_what_has_no_address_of_ours_has_no_ports(thing: Object | None) -> None:
    assert read(thing, part(at("10.244.1.2"))) == {}


def test_one_number_of_two_protocols_is_two_ports() -> None:
    dns = {"name": "dns", "port": 53, "protocol": "UDP"}
    found = read(service(dns, {**dns, "protocol": "TCP"}))
    assert list(found) == ["default/s:dns/udp", "default/s:dns/tcp"]
    assert list(read(service({"port": 53}))) == ["default/s:53/tcp"]


def test_endpoints_come_from_every_slice_whose_port_has_the_name_and_protocol() -> None:
    web = [{"name": "http", "port": 9000}]
    others = [{"name": "http", "port": 1, "protocol": "UDP"}, {"name": "", "port": 2}, {"name": "http"}]
    found = one(
        service(),
        part(at("10.244.1.3"), at("10.244.1.2")),
        part(at("10.244.2.2"), ports=web),
        part(at("10.244.3.3"), ports=others),
        part(at("fd00::1"), addressType="IPv6"),
        part(ports=[]),
    )
    assert [(e.ip, e.port) for e in found.endpoints] == [
        (ip_number("10.244.1.2"), 8080),
        (ip_number("10.244.1.3"), 8080),
        (ip_number("10.244.2.2"), 9000),
    ]


def test_an_unnamed_port_is_matched_by_no_name() -> None:
    found = one(service({"port": 80}), part(at("10.244.1.2"), ports=[{"port": 8080}]))
    assert [e.port for e in found.endpoints] == [8080]


def test_conditions_that_are_missing_are_true_but_for_terminating() -> None:
    def conditions(**state: bool | None) -> tuple[bool, bool, bool]:
        (found,) = one(service(), part(at("10.244.1.2", conditions=state))).endpoints
        return found.ready, found.serving, found.terminating

    assert conditions() == conditions(ready=None, serving=None, terminating=None) == (True, True, False)
    assert conditions(ready=False) == (False, False, False)  # serving is ready's unless it is said
    assert conditions(ready=False, serving=True, terminating=True) == (False, True, True)
    assert conditions(ready=True, serving=False) == (True, False, False)


def test_an_endpoint_in_two_slices_counts_once_and_ready_wins() -> None:
    stale = part(at("10.244.1.2", conditions={"ready": False}, nodeName="old"))
    fresh = part(at("10.244.1.2", nodeName="new"))
    for slices in ((stale, fresh), (fresh, stale)):
        (found,) = one(service(), *slices).endpoints
        assert (found.ready, found.node) == (True, "new")


def test_weights_are_pods_of_an_annotation_and_nonsense_weighs_nothing() -> None:
    def weights(text: str) -> list[int]:
        pods = [at(f"10.244.1.{i}", targetRef={"name": name}) for i, name in enumerate("abc", start=2)]
        meta = {"annotations": {"mininetes.dev/weights": text}}
        return [e.weight for e in one(service(meta=meta), part(*pods, at("10.244.9.9"))).endpoints]

    assert weights('{"a": 3, "c": 0}') == [3, 1, 0, 1]
    for nonsense in ("", "{", "[1]", '"a"', '{"a": -1}', '{"a": "3"}', '{"a": 1.5}', "null"):
        assert weights(nonsense) == [1, 1, 1, 1], nonsense


def hinted(address: str, *zones: str, nodes: tuple[str, ...] = (), **more: Any) -> Endpoint:
    return Endpoint(ip_number(address), 80, more.pop("node", ""), zones=zones, nodes=nodes, **more)


def port(*endpoints: Endpoint) -> ServicePort:
    return ServicePort("default/s:80/tcp", "tcp", 1, 80, tuple(sorted(endpoints)), 1)


def test_hints_choose_the_zone_of_the_node() -> None:
    a, b = hinted("10.0.0.1", "a"), hinted("10.0.0.2", "b")
    assert reach(port(a, b), "n", "a").cluster == (a,)
    assert reach(port(a, b), "n", "b").cluster == (b,)
    # A zone for which nobody is meant, and a node without a zone: everybody.
    assert reach(port(a, b), "n", "c").cluster == reach(port(a, b), "n", "").cluster == (a, b)


def test_hints_that_an_endpoint_lacks_are_heeded_by_none() -> None:
    a, b = hinted("10.0.0.1", "a"), hinted("10.0.0.2")
    assert reach(port(a, b), "n", "a").cluster == (a, b)
    # One that is not ready has no say.
    resting = hinted("10.0.0.3", ready=False, serving=False)
    assert reach(port(a, hinted("10.0.0.2", "b"), resting), "n", "a").cluster == (a,)


def test_hints_of_nodes_come_before_those_of_zones() -> None:
    a, b = hinted("10.0.0.1", "a", nodes=("n",)), hinted("10.0.0.2", "a", nodes=("m",))
    assert reach(port(a, b), "n", "a").cluster == (a,)
    assert reach(port(a, b), "other", "a").cluster == (a, b)


def test_the_external_ones_are_told_apart() -> None:
    inside, outside = one(service()), one(service({**HTTP, "nodePort": 30080}))
    assert external({"a": inside, "b": outside}) == (outside,)


endpoint = st.builds(
    Endpoint,
    st.integers(1, 6),
    st.just(80),
    st.sampled_from(["", "n", "m"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([(), ("a",), ("b",), ("a", "b")]),
    st.sampled_from([(), ("n",), ("m",)]),
)
sets = st.lists(endpoint, max_size=6, unique_by=lambda e: e.ip)
where = st.tuples(st.sampled_from(["n", "m", "x"]), st.sampled_from(["", "a", "b", "c"]))


@given(sets, where)
def test_what_is_reached_can_serve(endpoints: list[Endpoint], place: tuple[str, str]) -> None:
    found = reach(port(*endpoints), *place)
    ready = {e for e in endpoints if e.ready}
    for reached in (found.cluster, found.local):
        assert len(set(reached)) == len(reached) and set(reached) <= set(endpoints)
        # Either all are ready or, where nobody is, all serve while they end.
        assert set(reached) <= ready or all(e.serving and e.terminating and not e.ready for e in reached)
    assert all(e.node == place[0] for e in found.local)
    # Topology narrows but never leaves nobody where somebody is ready.
    assert bool(found.cluster) >= bool(ready)
    assert found.any_endpoint == bool(found.cluster or found.local)


@given(sets, where, st.randoms())
def test_the_order_of_endpoints_is_of_no_matter(endpoints: list[Endpoint], place: tuple[str, str], mix: Any) -> None:
    mixed = mix.sample(endpoints, len(endpoints))
    assert reach(port(*endpoints), *place) == reach(port(*mixed), *place)


@given(sets)
def test_a_node_apart_from_all_hints_reaches_every_ready_endpoint(endpoints: list[Endpoint]) -> None:
    found = reach(port(*endpoints), "x", "")
    ready = tuple(sorted(e for e in endpoints if e.ready))
    assert not ready or found.cluster == ready

"""Services get addresses and ports once, keep them, and give them back; what a manifest names comes first."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from topo.cluster.ipam import AddressPool, service_pool
from topo.cluster.store import Object, key_of
from topo.control.allocation import NODE_PORTS, PortPool, ServiceAllocator


def service(name: str = "web", *ports: dict[str, Any], **spec: Any) -> Object:
    given = list(ports) or [{"port": 80, "protocol": "TCP"}]
    meta = {"name": name, "namespace": "default"}
    return {"kind": "Service", "metadata": meta, "spec": {"ports": given, **spec}}


class Server:
    """An API server that has only Services."""

    def __init__(self) -> None:
        self.balancers = AddressPool(IPv4Network("172.18.255.192/29"))
        self.allocator = ServiceAllocator(service_pool(IPv4Network("10.96.0.0/16")), self.balancers)
        self.problems: list[str] = []

    def apply(self, *things: Object) -> list[Object]:
        for thing in things:
            self.problems += self.allocator.claim(thing)
        made = [self.allocator.settle(thing) for thing in things]
        self.problems += [problem for _, problems in made for problem in problems]
        return [thing for thing, _ in made]


def node_ports(thing: Object) -> list[int]:
    return [p["nodePort"] for p in thing["spec"]["ports"] if "nodePort" in p]


def test_a_node_port_service_has_an_address_and_a_port_above_the_band_of_chosen_ones() -> None:
    (made,) = Server().apply(service(type="NodePort"))
    assert (made["spec"]["clusterIP"], node_ports(made)) == ("10.96.1.0", [30086])


def test_what_is_chosen_in_a_batch_is_never_given_to_another() -> None:
    one, two = Server().apply(
        service("a", type="NodePort"),
        service("b", {"port": 80, "nodePort": 30086}, type="NodePort", clusterIP="10.96.1.0"),
    )
    assert (two["spec"]["clusterIP"], node_ports(two)) == ("10.96.1.0", [30086])
    assert (one["spec"]["clusterIP"], node_ports(one)) == ("10.96.1.1", [30087])


def test_two_protocols_of_one_service_may_share_a_port_and_two_services_may_not() -> None:
    server = Server()
    ports = [{"name": p.lower(), "port": 53, "protocol": p, "nodePort": 30053} for p in ("TCP", "UDP")]
    (made,) = server.apply(service("dns", *ports, type="NodePort"))
    assert node_ports(made) == [30053, 30053] and not server.problems
    server.apply(service("other", {"port": 1, "nodePort": 30053}, type="NodePort"))
    assert server.problems == ["30053 is in use or cannot be given"]
    # Still held for UDP when TCP goes.
    server.apply(service("dns", ports[1], type="NodePort"))
    assert not server.allocator._ports.claim(30053)


def test_applying_the_manifest_again_keeps_everything() -> None:
    server = Server()
    manifest = service(type="LoadBalancer", externalTrafficPolicy="Local")
    (first,) = server.apply(manifest)
    (second,) = server.apply(manifest)
    assert first == second
    assert first["status"]["loadBalancer"] == {"ingress": [{"ip": "172.18.255.193"}]}
    assert len({first["spec"]["healthCheckNodePort"], *node_ports(first)}) == 2


@pytest.mark.parametrize(
    ("spec", "left"),
    [
        ({"type": "ExternalName", "externalName": "example.org"}, {"ports"}),
        ({"type": "ClusterIP"}, {"ports", "clusterIP", "clusterIPs"}),
        ({"clusterIP": "None"}, {"ports", "clusterIP"}),
    ],
)
def test_a_type_that_changes_gives_back_what_it_no_longer_has(spec: dict[str, Any], left: set[str]) -> None:
    server = Server()
    (before,) = server.apply(service(type="LoadBalancer", externalTrafficPolicy="Local"))
    (after,) = server.apply({**before, "spec": {"ports": before["spec"]["ports"], **spec}})
    assert set(after["spec"]) - {"type", "externalName"} == left
    assert not node_ports(after) and after["status"]["loadBalancer"] == {}
    assert len(server.balancers) == 0
    (other,) = server.apply(service("other", type="NodePort"))
    assert node_ports(other) == node_ports(before)


def test_what_a_deleted_service_held_is_free_again() -> None:
    server = Server()
    (gone,) = server.apply(service(type="LoadBalancer"))
    server.allocator.forget(key_of(gone))
    (new,) = server.apply(service("new", {"port": 1, "nodePort": node_ports(gone)[0]}, type="NodePort"))
    assert node_ports(new) == node_ports(gone) and not server.problems


def test_load_balancers_may_go_without_node_ports_and_other_classes_are_left_alone() -> None:
    server = Server()
    plain, other = server.apply(
        service("plain", type="LoadBalancer", allocateLoadBalancerNodePorts=False),
        service("other", type="LoadBalancer", loadBalancerClass="example.org/cloud"),
    )
    assert not node_ports(plain) and plain["status"]["loadBalancer"]["ingress"]
    assert node_ports(other) and "status" not in other


def test_a_chosen_load_balancer_address_is_given_once() -> None:
    server = Server()
    one, two = server.apply(
        service("one", type="LoadBalancer", loadBalancerIP="172.18.255.195"),
        service("two", type="LoadBalancer", loadBalancerIP="172.18.255.195"),
    )
    assert one["status"]["loadBalancer"]["ingress"] == [{"ip": "172.18.255.195"}]
    assert "status" not in two
    assert server.problems == ["172.18.255.195 is in use or cannot be given"]
    server.allocator.forget(key_of(one))
    assert server.allocator.gave_back
    (two,) = server.apply(two)
    assert two["status"]["loadBalancer"]["ingress"] == [{"ip": "172.18.255.195"}]


def test_another_load_balancer_address_takes_the_place_of_the_one_that_was_given() -> None:
    server = Server()
    (made,) = server.apply(service(type="LoadBalancer"))
    made["spec"]["loadBalancerIP"] = "172.18.255.197"
    (made,) = server.apply(made)
    assert made["status"]["loadBalancer"]["ingress"] == [{"ip": "172.18.255.197"}]
    assert len(server.balancers) == 1


def test_one_port_of_two_protocols_has_one_node_port() -> None:
    ports = [{"name": p, "port": 53, "protocol": p.upper()} for p in ("tcp", "udp")]
    (made,) = Server().apply(service("dns", *ports, {"name": "metrics", "port": 9153}, type="NodePort"))
    assert node_ports(made) == [30086, 30086, 30087]


def test_a_port_keeps_its_node_port_by_its_name() -> None:
    server = Server()
    server.apply(service("web", {"port": 80}, type="NodePort"))
    (made,) = server.apply(service("web", {"port": 81}, type="NodePort"))
    assert node_ports(made) == [30086]
    # Names that other things are held by are as good as any.
    names = ("ip", "lb", "health")
    (made,) = server.apply(service("x", *({"name": n, "port": i} for i, n in enumerate(names, 1)), type="LoadBalancer"))
    assert len(set(node_ports(made))) == 3 and made["spec"]["clusterIP"] == "10.96.1.1"


def test_an_empty_pool_and_a_missing_one_say_so() -> None:
    server = Server()
    server.apply(*(service(str(n), type="LoadBalancer") for n in range(7)))
    assert server.problems == ["172.18.255.192/29 has no free address: 6 in use"]
    server.allocator = ServiceAllocator(service_pool(IPv4Network("10.96.0.0/16")), None)
    (made,) = server.apply(service(type="LoadBalancer"))
    assert "mininetes.loadBalancerPool" in server.problems[-1] and made["spec"]["clusterIP"]


def test_every_node_port_can_be_given_and_none_twice() -> None:
    pool = PortPool()
    assert sorted(pool.take() for _ in NODE_PORTS) == list(NODE_PORTS)

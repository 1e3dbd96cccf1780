"""Which node announces a LoadBalancer address: one, able to serve it, the same for all who ask."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from views import BALANCED, NODE_PORT, node, typed

from controllers.announce import announcers
from controllers.flow.fields import ip_number
from controllers.services import Endpoint, ServicePort
from controllers.state import Node

NODES = [node(number) for number in range(1, 6)]
POOL = [ip_number(f"172.18.255.{i}") for i in range(192, 256)]


def balanced(address: int, number: int = 1, *on: str, **more: object) -> ServicePort:
    """A Service port of one LoadBalancer address, with a ready endpoint on each of these nodes."""
    endpoints = tuple(Endpoint(i, 80, name) for i, name in enumerate(on, start=1))
    made = typed(number, f"s{number}:80/tcp", number, endpoints, load_balancer_ips=(address,))
    return replace(made, **more)  # type: ignore[arg-type]


def of(*ports: ServicePort) -> dict[str, ServicePort]:
    return {port.key: port for port in ports}


def test_every_address_has_one_announcer_and_they_spread() -> None:
    found = announcers(of(*(balanced(a, i) for i, a in enumerate(POOL, start=1))), NODES)
    assert set(found) == set(POOL)
    assert set(found.values()) == {n.name for n in NODES}


def test_only_load_balancer_addresses_are_announced() -> None:
    assert announcers(of(NODE_PORT), NODES) == {}
    assert list(announcers(of(BALANCED), NODES[:1])) == list(BALANCED.load_balancer_ips)


def test_a_node_that_is_not_ready_announces_nothing() -> None:
    ports = of(balanced(POOL[0]))
    first = announcers(ports, NODES)[POOL[0]]
    others = [replace(n, ready=n.name != first) for n in NODES]
    assert announcers(ports, others)[POOL[0]] not in (first, None)
    assert announcers(ports, [replace(n, ready=False) for n in NODES]) == {}


def test_arp_reaches_only_the_subnet_of_its_node_so_others_do_not_announce() -> None:
    racks = {"172.18.255.0/24": NODES[:2], "172.18.0.0/24": NODES[2:]}
    nodes = [replace(n, subnet=subnet) for subnet, members in racks.items() for n in members]
    found = announcers(of(*(balanced(a, i) for i, a in enumerate(POOL, start=1))), nodes)
    assert set(found) == set(POOL) and set(found.values()) == {n.name for n in NODES[:2]}
    assert announcers(of(balanced(POOL[0])), nodes[2:]) == {}


def test_with_policy_local_only_a_node_with_a_ready_endpoint_may() -> None:
    for name in ("node-2", "node-4"):
        assert announcers(of(balanced(POOL[0], 1, name, external_local=True)), NODES) == {POOL[0]: name}
    assert announcers(of(balanced(POOL[0], 1, external_local=True)), NODES) == {}
    resting = (Endpoint(1, 80, "node-2", ready=False, terminating=True),)
    assert announcers(of(balanced(POOL[0], external_local=True, endpoints=resting)), NODES) == {}


def test_with_policy_cluster_somebody_announces_even_without_endpoints() -> None:
    assert announcers(of(balanced(POOL[0])), NODES)


def test_two_ports_of_an_address_have_one_announcer() -> None:
    ports = of(balanced(POOL[0], 1, "node-2", external_local=True), balanced(POOL[0], 2, "node-2", external_local=True))
    assert announcers(ports, NODES) == {POOL[0]: "node-2"}


names = st.lists(st.sampled_from(NODES), min_size=1, unique_by=lambda n: n.name)


@given(st.lists(st.sampled_from(POOL), unique=True), names, st.randoms())
def test_all_agree_whatever_the_order(addresses: list[int], nodes: list[Node], mix: object) -> None:
    ports = [balanced(a, i) for i, a in enumerate(addresses, start=1)]
    assert announcers(of(*ports), nodes) == announcers(of(*reversed(ports)), nodes[::-1])


@given(names, st.sampled_from(NODES))
def test_a_node_that_goes_or_comes_moves_only_its_own_addresses(nodes: list[Node], one: Node) -> None:
    ports = of(*(balanced(a, i) for i, a in enumerate(POOL, start=1)))
    with_it = announcers(ports, {n.name: n for n in [*nodes, one]}.values())
    without = announcers(ports, [n for n in nodes if n.name != one.name])
    for address, name in with_it.items():
        assert name == one.name or without[address] == name

"""The underlay as planned: everybody is reached, nothing is used twice, and every link has its own properties."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations, pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from topo.cluster.errors import InputError
from topo.config import FabricConfig, LabConfig, LinkConfig, NodeConfig
from topo.config_rules import fabric_links, problems
from topo.fabric import (
    FIRST_NODE_PORT,
    Attachment,
    Switch,
    attach,
    client_address,
    free_numbers,
    gateway_address,
    link,
    load_balancer_pool,
    mac_of,
    mtu,
    node_address,
    node_subnet,
    pod_cidr,
    routers,
    switch_object,
    switches,
)

FABRICS = st.one_of(
    st.just(FabricConfig(shape="star")),
    st.builds(
        FabricConfig,
        shape=st.just("leaf-spine"),
        leaves=st.integers(1, 9),
        spines=st.integers(1, 9),
        routing=st.sampled_from(["", "l3"]),
    ),
)
PAIRS = (FabricConfig(shape="two-racks"), FabricConfig(shape="two-sites"))


def nodes(count: int) -> tuple[NodeConfig, ...]:
    return tuple(NodeConfig(f"node-{i}") for i in range(count))


def ports(fabric: FabricConfig, count: int) -> dict[str, dict[int, str]]:
    """Every switch with all its ports, nodes' included. No port is given twice."""
    found = {switch.name: dict(switch.ports) for switch in switches(fabric)}
    for i, node in enumerate(nodes(count)):
        place = attach(fabric, i)
        assert place.port not in found[place.switch], f"{place} is taken"
        found[place.switch][place.port] = node.name
    return found


def distances(neighbours: dict[str, set[str]], start: str) -> dict[str, int]:
    """How many links away everything that can be reached is."""
    found, waiting = {start: 0}, [start]
    for here in waiting:
        for there in neighbours[here] - set(found):
            found[there] = found[here] + 1
            waiting.append(there)
    return found


def graph(fabric: FabricConfig, count: int) -> dict[str, set[str]]:
    """Who is linked to whom."""
    found: dict[str, set[str]] = {node.name: set() for node in nodes(count)}
    for switch, at in ports(fabric, count).items():
        found.setdefault(switch, set()).update(at.values())
        for peer in at.values():
            found.setdefault(peer, set()).add(switch)
    return found


@given(FABRICS, st.integers(1, 60))
@settings(deadline=None)
def test_every_node_reaches_every_other(fabric: FabricConfig, count: int) -> None:
    neighbours = graph(fabric, count)
    at = {node.name: attach(fabric, i).switch for i, node in enumerate(nodes(count))}
    for name, switch in at.items():
        reached = distances(neighbours, name)
        assert set(reached) == set(neighbours)
        expected = {other: 2 if there == switch else 4 for other, there in at.items()} | {name: 0}
        assert {other: reached[other] for other in at} == expected


@given(FABRICS, st.integers(0, 60))
def test_every_link_between_switches_is_known_at_both_ends(fabric: FabricConfig, count: int) -> None:
    names = {switch.name: switch for switch in switches(fabric)}
    for switch in names.values():
        for peer in switch.ports.values():
            assert list(names[peer].ports.values()).count(switch.name) == 1
            assert names[peer].tier != switch.tier
    assert len(ports(fabric, count)) == len(names)


@given(st.integers(1, 32), st.integers(1, 32))
def test_a_leaf_has_a_link_to_every_spine(leaves: int, spines: int) -> None:
    made = switches(FabricConfig(leaves=leaves, spines=spines))
    tiers = Counter(switch.tier for switch in made)
    assert tiers == {"leaf": leaves, "spine": spines}
    wanted = {"leaf": [f"spine-{i + 1}" for i in range(spines)], "spine": [f"leaf-{i + 1}" for i in range(leaves)]}
    assert all(list(switch.ports.values()) == wanted[switch.tier] for switch in made)
    assert all(max(switch.ports) < FIRST_NODE_PORT for switch in made)


def test_a_star_has_one_switch_and_no_links_between_switches() -> None:
    assert switches(FabricConfig(shape="star", leaves=4, spines=4)) == (Switch("switch-1", "leaf", {}),)


@given(FABRICS, st.integers(1, 60))
def test_nodes_are_spread_evenly_over_the_leaves(fabric: FabricConfig, count: int) -> None:
    load = Counter(attach(fabric, i).switch for i in range(count))
    leaves = [switch.name for switch in switches(fabric) if switch.tier == "leaf"]
    assert set(load) <= set(leaves)
    assert max(load.values()) - min(load[leaf] for leaf in leaves) <= 1


def test_nodes_take_the_leaves_in_turn_and_their_ports_in_order() -> None:
    fabric = FabricConfig(leaves=2)
    assert [attach(fabric, i) for i in range(4)] == [
        Attachment("leaf-1", 101),
        Attachment("leaf-2", 101),
        Attachment("leaf-1", 102),
        Attachment("leaf-2", 102),
    ]


def test_a_nodes_place_does_not_depend_on_how_many_follow() -> None:
    small, large = (LabConfig(nodes=nodes(count)) for count in (1, 40))
    assert attach(small.fabric, 0) == attach(large.fabric, 0)
    assert node_address(small, 0) == node_address(large, 0)
    assert pod_cidr(small, 0) == pod_cidr(large, 0)


CONFIGS = st.builds(
    LabConfig,
    nodes=st.integers(1, 64).map(nodes),
    pod_subnet=st.integers(8, 24).map(lambda prefix: IPv4Network((IPv4Address("10.0.0.0"), prefix))),
    node_subnet=st.integers(16, 28).map(lambda prefix: IPv4Network((IPv4Address("172.18.0.0"), prefix))),
    service_subnet=st.just(IPv4Network("192.168.0.0/16")),
    node_cidr_bits=st.integers(16, 30),
    fabric=FABRICS,
)


@given(CONFIGS)
@settings(deadline=None)
def test_addresses_and_macs_are_unique_and_pod_ranges_disjoint_within_their_subnets(config: LabConfig) -> None:
    assume(not list(problems(config)))
    count = len(config.nodes)
    addresses = [node_address(config, i) for i in range(count)]
    ranges = [pod_cidr(config, i) for i in range(count)]
    assert len(set(addresses)) == count
    first = config.node_subnet.network_address + 1  # a router's, as with docker
    assert all(first < a < config.node_subnet.broadcast_address for a in addresses)
    assert all(r.subnet_of(config.pod_subnet) and r.prefixlen == config.node_cidr_bits for r in ranges)
    assert not any(a.overlaps(b) for a, b in combinations(ranges, 2))
    assert all(a.broadcast_address + 1 == b.network_address for a, b in pairwise(ranges))
    macs = [mac_of(a) for a in addresses] + [mac_of(r.network_address + 1) for r in ranges]
    assert len(set(macs)) == 2 * count


def test_a_mac_shows_its_address_and_is_a_locally_administered_one_of_one_machine() -> None:
    assert mac_of(IPv4Address("10.244.1.255")) == "0a:58:0a:f4:01:ff"
    first = int(mac_of(IPv4Address("255.255.255.255")).split(":")[0], 16)
    assert first & 0b11 == 0b10


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_different_addresses_have_different_macs(one: int, two: int) -> None:
    assert (mac_of(IPv4Address(one)) == mac_of(IPv4Address(two))) == (one == two)


FAST, SLOW = LinkConfig(bandwidth=1000), LinkConfig(delay=5, mtu=1400)


@pytest.mark.parametrize("name", ["leaf-1--spine-2", "spine-2--leaf-1"])
def test_a_link_is_found_in_whichever_order_it_is_named_and_asked_for(name: str) -> None:
    fabric = FabricConfig(link=FAST, links={name: SLOW})
    assert link(fabric, "leaf-1", "spine-2") == link(fabric, "spine-2", "leaf-1") == SLOW
    assert link(fabric, "leaf-2", "spine-2") == link(fabric, "leaf-1", "spine-1") == FAST


def test_a_nodes_link_can_have_properties_of_its_own() -> None:
    fabric = FabricConfig(links={"worker--leaf-2": SLOW})
    assert link(fabric, "leaf-2", "worker") == SLOW
    assert link(fabric, "worker2", "leaf-1") == LinkConfig()


@given(FABRICS, st.integers(1, 20), st.data())
def test_every_link_of_the_plan_can_be_set_on_its_own(fabric: FabricConfig, count: int, data: st.DataObject) -> None:
    config = LabConfig(nodes=nodes(count), fabric=fabric)
    there = fabric_links(config)
    chosen = data.draw(st.sampled_from(there))
    name = "--".join(data.draw(st.permutations(chosen)))
    shaped = FabricConfig(fabric.shape, fabric.leaves, fabric.spines, FAST, {name: SLOW})
    assert {pair: link(shaped, *pair) for pair in there} == {p: SLOW if p == chosen else FAST for p in there}
    assert {frozenset(pair) for pair in there} == {
        frozenset((a, b)) for a, others in graph(fabric, count).items() for b in others
    }


@pytest.mark.parametrize("fabric", PAIRS)
def test_two_racks_and_two_sites_are_two_switches_with_one_link(fabric: FabricConfig) -> None:
    config = LabConfig(nodes=nodes(3), fabric=fabric)
    one, two = (switch.name for switch in switches(fabric))
    expected = [("node-0", one), ("node-1", two), ("node-2", one), (one, two)]
    assert list(fabric_links(config)) == expected
    assert not list(problems(config))


def test_the_link_between_two_sites_is_slow_unless_the_lab_file_says_otherwise() -> None:
    fabric = FabricConfig(shape="two-sites", link=FAST)
    assert link(fabric, "site-2", "site-1") == LinkConfig(bandwidth=100)
    assert link(fabric, "node-0", "site-1") == FAST
    assert link(replace(fabric, links={"site-1--site-2": SLOW}), "site-2", "site-1") == SLOW


@given(st.integers(1, 64), st.integers(16, 23), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None)
def test_a_rack_of_a_routed_fabric_is_a_subnet_with_a_gateway_and_its_nodes_in_it(
    count: int, prefix: int, leaves: int, spines: int
) -> None:
    subnet = IPv4Network((IPv4Address("172.18.0.0"), prefix))
    fabric = FabricConfig(leaves=leaves, spines=spines, routing="l3")
    config = LabConfig(nodes=nodes(count), node_subnet=subnet, fabric=fabric)
    assert not list(problems(config))
    known = routers(config)
    assert set(known) == {switch.name for switch in switches(config.fabric)}
    assert len({router.mac for router in known.values()}) == len(known)
    subnets = [router.subnet for router in known.values() if router.subnet]
    assert all(s.subnet_of(config.node_subnet) for s in subnets)
    assert not any(a.overlaps(b) for a, b in combinations(subnets, 2))
    taken = {client_address(config)}
    for i in range(len(config.nodes)):
        router = known[attach(config.fabric, i).switch]
        address = node_address(config, i)
        assert router.subnet == node_subnet(config, i) and address in router.subnet
        assert gateway_address(config, i) == router.gateway
        taken |= {address, gateway_address(config, i)}
    assert len(taken) == 1 + len(config.nodes) + len(
        {attach(config.fabric, i).switch for i in range(len(config.nodes))}
    )


def test_load_balancer_addresses_of_a_routed_fabric_are_the_first_racks() -> None:
    config = LabConfig(nodes=nodes(4), fabric=PAIRS[0])
    assert load_balancer_pool(config) == IPv4Network("172.18.63.192/26")
    assert load_balancer_pool(replace(config, fabric=FabricConfig())) == IPv4Network("172.18.255.192/26")


def test_a_rack_is_full_when_its_own_part_is() -> None:
    small = LabConfig(nodes=nodes(8), node_subnet=IPv4Network("172.18.0.0/27"), fabric=PAIRS[0])
    (problem,) = problems(replace(small, nodes=nodes(9)))
    assert "172.18.0.0/29 has room for 4 nodes, the lab has 5 there" in problem.problem
    assert not list(problems(small))


def test_the_mtu_is_the_smallest_of_any_link() -> None:
    assert mtu(FabricConfig()) == 1500
    assert mtu(FabricConfig(link=LinkConfig(mtu=9000))) == 9000
    assert mtu(FabricConfig(link=LinkConfig(mtu=9000), links={"a--b": SLOW, "c--d": FAST})) == 1400


def test_the_store_holds_a_switch_with_its_ports_as_strings() -> None:
    assert switch_object(Switch("leaf-1", "leaf", {1: "spine-1", 101: "worker"})) == {
        "apiVersion": "mininetes.dev/v1",
        "kind": "FabricSwitch",
        "metadata": {"name": "leaf-1"},
        "spec": {"tier": "leaf", "ports": {"1": "spine-1", "101": "worker"}},
    }


def test_nodes_that_join_get_the_numbers_that_were_longest_nobodys() -> None:
    config = replace(LabConfig((NodeConfig("n"),)), pod_subnet=IPv4Network("10.244.0.0/22"))
    assert free_numbers(config, "abcd", set(), -1) == [0, 1, 2, 3]
    assert free_numbers(config, "ab", {0, 2}, 3) == [1, 3]
    with pytest.raises(InputError, match="Node c: the lab has no addresses for another"):
        free_numbers(config, "abc", {0, 2}, 3)


def test_a_number_without_an_address_on_the_fabric_is_nobodys() -> None:
    # 172.18.0.2 to .6 of a /29.
    config = replace(LabConfig((NodeConfig("n"),)), node_subnet=IPv4Network("172.18.0.0/29"))
    assert free_numbers(config, "abcde", set(), -1) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError):
        free_numbers(config, "abcdef", set(), -1)

"""Address pools against a model: no address twice, the longest rested first, and an empty pool says so."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from topo.cluster.ipam import AddressPool, Exhausted, service_pool

BASE = IPv4Address("10.244.7.0")


class Model(RuleBasedStateMachine):
    """A pool and the set of what it should have in use, by offset from the network's address."""

    @initialize(
        prefix=st.integers(26, 32),
        reserved=st.sets(st.integers(-2, 70), max_size=6),
        first=st.integers(1, 5),
    )
    def begin(self, prefix: int, reserved: set[int], first: int) -> None:
        self.network = IPv4Network((BASE, prefix))
        self.pool = AddressPool(self.network, [BASE + offset for offset in reserved], first)
        self.end = self.network.num_addresses - (prefix < 31)
        self.reserved, self.first, self.last = reserved, first, first - 1
        self.used: set[int] = set()

    def free(self) -> list[int]:
        """Offsets that may be given out, in the order in which they should be."""
        after = range(self.last + 1, self.end)
        before = range(self.first, min(self.last + 1, self.end))
        band = range(1, min(self.first, self.end))
        return [o for o in (*after, *before, *band) if o not in self.used and o not in self.reserved]

    @rule()
    def take(self) -> None:
        free = self.free()
        if free:
            assert self.pool.take() == BASE + free[0]
            self.used.add(free[0])
            self.last = max(self.first - 1, free[0])
        else:
            with pytest.raises(Exhausted, match=str(self.network)):
                self.pool.take()

    @rule(offset=st.integers(-3, 70))
    def claim(self, offset: int) -> None:
        allowed = 0 < offset < self.end and offset not in self.used | self.reserved
        assert self.pool.claim(BASE + offset) is allowed
        if allowed:
            self.used.add(offset)

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def release_used(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.used)))
        self.pool.release(BASE + offset)
        self.used.remove(offset)

    @rule(offset=st.integers(-3, 70))
    def release_any(self, offset: int) -> None:
        self.pool.release(BASE + offset)
        self.used.discard(offset)

    @invariant()
    def counts_what_is_in_use(self) -> None:
        assert len(self.pool) == len(self.used)


Model.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestPoolAgainstModel = Model.TestCase


def take_all(pool: AddressPool) -> list[str]:
    """Take until the pool is empty."""
    taken = []
    while True:
        try:
            taken.append(str(pool.take()))
        except Exhausted:
            return taken


def test_a_node_range_gives_every_host_address_but_the_reserved_gateway_exactly_once() -> None:
    pool = AddressPool(IPv4Network("10.244.1.0/24"), [IPv4Address("10.244.1.1")])
    assert take_all(pool) == [f"10.244.1.{i}" for i in range(2, 255)]
    assert len(pool) == 253


def test_a_released_address_is_the_last_of_the_free_ones_to_be_used_again() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/28"))
    first = pool.take()
    pool.release(first)
    rest = [pool.take() for _ in range(13)]
    assert first not in rest
    assert pool.take() == first


@given(st.integers(0, 11), st.integers(1, 12))
def test_churn_does_not_give_an_address_again_before_all_others_had_a_turn(keep: int, turns: int) -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/28"))
    for _ in range(keep):
        pool.take()
    seen = []
    for _ in range(min(turns, 14 - keep)):
        seen.append(pool.take())
        pool.release(seen[-1])
    assert len(set(seen)) == len(seen)


def test_an_exhausted_pool_gives_again_what_is_released() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/29"))
    assert len(take_all(pool)) == 6
    pool.release(IPv4Address("10.0.0.4"))
    assert take_all(pool) == ["10.0.0.4"]


def test_exhaustion_names_the_network_and_how_many_are_in_use() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/30"))
    take_all(pool)
    with pytest.raises(Exhausted, match=r"^10\.0\.0\.0/30 has no free address: 2 in use$"):
        pool.take()


@pytest.mark.parametrize(
    ("network", "addresses"),
    [
        ("10.0.0.0/29", ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]),
        ("10.0.0.0/30", ["10.0.0.1", "10.0.0.2"]),
        ("10.0.0.0/31", ["10.0.0.1"]),  # no broadcast address, and the first stays out as everywhere
        ("10.0.0.0/32", []),
    ],
)
def test_small_networks_give_all_but_their_network_and_broadcast_address(network: str, addresses: list[str]) -> None:
    assert take_all(AddressPool(IPv4Network(network))) == addresses


def test_a_slash_30_with_a_gateway_has_room_for_one() -> None:
    assert take_all(AddressPool(IPv4Network("10.0.0.4/30"), [IPv4Address("10.0.0.5")])) == ["10.0.0.6"]


@pytest.mark.parametrize("address", ["10.0.0.0", "10.0.0.3", "10.0.0.4", "9.255.255.255", "10.0.0.1"])
def test_network_broadcast_foreign_and_reserved_addresses_cannot_be_claimed(address: str) -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/30"), [IPv4Address("10.0.0.1")])
    assert not pool.claim(IPv4Address(address))
    assert len(pool) == 0


def test_a_claimed_address_is_not_taken_and_not_claimed_again_until_it_is_released() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/30"))
    assert pool.claim(IPv4Address("10.0.0.1"))
    assert not pool.claim(IPv4Address("10.0.0.1"))
    assert take_all(pool) == ["10.0.0.2"]
    pool.release(IPv4Address("10.0.0.1"))
    assert pool.claim(IPv4Address("10.0.0.1"))


def test_addresses_before_the_first_are_given_out_last() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/29"), first=4)
    assert pool.claim(IPv4Address("10.0.0.2"))
    assert take_all(pool) == ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.1", "10.0.0.3"]


def test_releasing_a_reserved_address_does_not_free_it() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/30"), [IPv4Address("10.0.0.1")])
    pool.release(IPv4Address("10.0.0.1"))
    assert take_all(pool) == ["10.0.0.2"]


@pytest.mark.parametrize(
    ("network", "first"),
    [
        ("10.96.0.0/12", "10.96.1.0"),
        ("10.96.0.0/16", "10.96.1.0"),
        ("10.96.0.0/20", "10.96.1.0"),
        ("10.96.0.0/21", "10.96.0.128"),
        ("10.96.0.0/24", "10.96.0.16"),
        ("10.96.0.0/26", "10.96.0.16"),
        ("10.96.0.0/28", "10.96.0.2"),
    ],
)
def test_automatic_cluster_ips_begin_above_the_band_of_chosen_ones(network: str, first: str) -> None:
    assert str(service_pool(IPv4Network(network)).take()) == first


@given(st.integers(12, 28), st.integers(0, 300))
@settings(deadline=None)
def test_automatic_cluster_ips_are_distinct_hosts_of_the_network(prefix: int, count: int) -> None:
    network = IPv4Network((IPv4Address("10.96.0.0"), prefix))
    pool = service_pool(network)
    taken = []
    for _ in range(count):
        try:
            taken.append(pool.take())
        except Exhausted:
            break
    assert len(set(taken)) == len(taken)
    assert all(a in network and a != network.broadcast_address for a in taken)
    assert network.network_address not in taken
    assert network.network_address + 1 not in taken


def test_the_api_servers_address_is_neither_given_nor_claimed() -> None:
    pool = service_pool(IPv4Network("10.96.0.0/16"))
    assert not pool.claim(IPv4Address("10.96.0.1"))
    assert pool.claim(IPv4Address("10.96.0.10"))  # kube-dns, by convention


def test_a_small_service_network_gives_every_address_there_is() -> None:
    assert len(take_all(service_pool(IPv4Network("10.96.0.0/26")))) == 64 - 3  # network, broadcast, API server

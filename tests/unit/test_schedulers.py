"""ipvs' schedulers: the order they give, and that the switch keeps it packet by packet."""

from __future__ import annotations

from collections import Counter
from functools import reduce
from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import A, cni_of, proxy_of, served, typed

from controllers.compile import pod_bridge
from controllers.flow.fields import ip_number
from controllers.loads import Load
from controllers.proxy.frontends import EndpointSet
from controllers.proxy.schedulers import SCHEDULERS, ahead, cycle
from controllers.services import Endpoint, ServicePort
from controllers.simulate import Packet, Switch
from controllers.state import NodeView

THREE = tuple(Endpoint(ip_number(f"10.244.2.{i}"), 8080, "node-2") for i in (2, 3, 4))


def weighed(*weights: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(i, 80, weight=w) for i, w in enumerate(weights, start=1))


def kernel_wrr(weights: list[int], times: int) -> list[int]:
    """ip_vs_wrr_schedule() of the kernel: a place and a level that falls by the weights' divisor at each round."""
    step, most = reduce(gcd, weights, 0), max(weights)
    place, level, found = -1, 0, []
    while len(found) < times:
        place = (place + 1) % len(weights)
        if place == 0:
            level -= step
            if level <= 0:
                level = most
        if weights[place] >= level:
            found.append(place)
    return found


@pytest.mark.parametrize(
    ("weights", "order"),
    [
        # The Linux Virtual Server's own example: A, B, C of weights 4, 3, 2 give AABABCABC.
        ((4, 3, 2), "112123123"),
        ((1, 1, 1), "123"),
        ((3, 2, 1), "112123"),
        ((4, 2), "112"),
        ((0, 5), "2"),
        ((0, 0), ""),
        ((), ""),
    ],
)
def test_the_cycle_of_weights(weights: tuple[int, ...], order: str) -> None:
    assert "".join(str(e.ip) for e in cycle(weighed(*weights))) == order


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any))
def test_the_cycle_is_the_kernels(weights: list[int]) -> None:
    found = [e.ip - 1 for e in cycle(weighed(*weights))]
    divisor = reduce(gcd, weights, 0)
    assert Counter(found) == {i: w // divisor for i, w in enumerate(weights) if w}
    assert found * 2 == kernel_wrr(weights, 2 * len(found))


def view_of(scheduler: str, endpoints: tuple[Endpoint, ...] = THREE, **more: int) -> tuple[NodeView, ServicePort]:
    port = typed(31, "turns:80/tcp", 31, endpoints, **more)
    return served("ipvs", {port.key: port}, scheduler=scheduler), port


def program_of(view: NodeView) -> dict[str, object]:
    return pod_bridge(view, cni_of(view), proxy_of(view))  # type: ignore[return-value]


def connect(switch: Switch, port: ServicePort, number: int, choose: int = 0) -> int:
    """The last byte of the endpoint that connection number so many of pod a reaches."""
    packet: Packet = {
        "in_port": A.port,
        "dl_src": A.mac,
        "dl_dst": 1,
        "dl_type": 0x800,
        "nw_src": A.ip,
        "nw_ttl": 64,
        "nw_dst": port.cluster_ip,
        "nw_proto": 6,
        "tp_src": 30000 + number,
        "tp_dst": port.port,
    }
    ((_, sent),) = switch.run(packet, lambda many, _: choose % many).outputs
    return sent["nw_dst"] & 0xFF


def test_rr_is_exact() -> None:
    view, port = view_of("rr")
    switch = Switch(program_of(view))  # type: ignore[arg-type]
    assert [connect(switch, port, i) for i in range(9)] == [2, 3, 4] * 3


def test_wrr_is_exact() -> None:
    endpoints = tuple(e._replace(weight=w) for e, w in zip(THREE, (3, 2, 1), strict=True))
    view, port = view_of("wrr", endpoints)
    switch = Switch(program_of(view))  # type: ignore[arg-type]
    assert [connect(switch, port, i) for i in range(12)] == [2, 2, 3, 2, 3, 4] * 2


def test_rr_goes_on_with_the_endpoints_that_are_left() -> None:
    view, port = view_of("rr")
    switch = Switch(program_of(view))  # type: ignore[arg-type]
    assert [connect(switch, port, i) for i in range(2)] == [2, 3]
    fewer, less = view_of("rr", THREE[:2])
    switch.load(program_of(fewer))  # type: ignore[arg-type]
    found = [connect(switch, less, i) for i in range(10, 16)]
    assert found in ([2, 3] * 3, [3, 2] * 3)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_affinity_goes_before_every_scheduler(scheduler: str) -> None:
    view, port = view_of(scheduler, affinity=60)
    switch = Switch(program_of(view))  # type: ignore[arg-type]
    first = connect(switch, port, 0, choose=1)
    # Whatever the switch would choose now.
    assert {connect(switch, port, i, choose=i) for i in range(1, 9)} == {first}
    # Somebody else's endpoint goes: the client stays.
    other = next(e for e in THREE if e.ip & 0xFF != first)
    fewer, less = view_of(scheduler, tuple(e for e in THREE if e is not other), affinity=60)
    switch.load(program_of(fewer))  # type: ignore[arg-type]
    assert {connect(switch, less, i, choose=i) for i in range(10, 14)} == {first}
    # Its own goes: it finds another one, and stays there.
    last, end = view_of(scheduler, tuple(e for e in THREE if e.ip & 0xFF != first), affinity=60)
    switch.load(program_of(last))  # type: ignore[arg-type]
    found = {connect(switch, end, i, choose=i) for i in range(20, 24)}
    assert len(found) == 1 and first not in found


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_every_scheduler_serves_one_endpoint_too(scheduler: str) -> None:
    view, port = view_of(scheduler, THREE[:1])
    switch = Switch(program_of(view))  # type: ignore[arg-type]
    assert {connect(switch, port, i, choose=i) for i in range(4)} == {2}


def test_sources_and_destinations_are_hashed_alone() -> None:
    for scheduler, field in (("sh", "nw_src"), ("dh", "nw_dst")):
        view, _ = view_of(scheduler)
        text = "".join(x.action_text() for p in program_of(view).values() for x in p.flows)  # type: ignore[attr-defined]
        assert f"multipath({field},modulo_n,3->Index)" in text
    view, _ = view_of("mh")
    (group,) = (g for p in program_of(view).values() for g in p.groups)  # type: ignore[attr-defined]
    assert group.hashed and len({b.number for b in group.buckets}) == 3


def order(scheduler: str, loads: list[Load], *weights: int) -> list[int]:
    """The first six places that a counting scheduler gives out."""
    port = typed(31, "turns:80/tcp", 31)
    chosen = EndpointSet(31, port, weighed(*weights), tuple(loads))
    cost = SCHEDULERS[scheduler].cost  # type: ignore[attr-defined]
    return [e.ip for e in ahead(chosen, cost)][:6]


def test_lc_levels_connections_and_counts_an_active_one_for_256() -> None:
    assert order("lc", [Load(2), Load(0), Load(1)], 1, 1, 1) == [2, 2, 3, 1, 2, 3]
    assert order("lc", [Load(1), Load(0, 255), Load(1)], 1, 1, 1)[0] == 2
    assert order("lc", [Load(1), Load(0, 257), Load(1)], 1, 1, 1)[0] == 1


def test_wlc_divides_by_weight_and_gives_weight_0_nothing() -> None:
    assert order("wlc", [Load(), Load(), Load()], 2, 1, 0) == [1, 2, 1, 1, 2, 1]


def test_sed_counts_the_connection_that_comes() -> None:
    assert order("sed", [Load(), Load()], 3, 1) == [1, 1, 1, 2, 1, 1]


def test_nq_takes_an_idle_one_first() -> None:
    assert order("nq", [Load(1), Load()], 9, 1)[0] == 2
    assert order("nq", [Load(1), Load(1)], 9, 1)[0] == 1


@given(st.lists(st.builds(Load, st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=5), st.data())
def test_the_order_ahead_is_what_one_choice_at_a_time_gives(loads: list[Load], data: st.DataObject) -> None:
    scheduler = data.draw(st.sampled_from(["lc", "wlc", "sed", "nq"]))
    weights = data.draw(st.lists(st.integers(1, 4), min_size=len(loads), max_size=len(loads)))
    now, expected = list(loads), []
    for _ in range(6):
        expected.append(order(scheduler, now, *weights)[0])
        now[expected[-1] - 1] = now[expected[-1] - 1]._replace(active=now[expected[-1] - 1].active + 1)
    assert order(scheduler, loads, *weights) == expected

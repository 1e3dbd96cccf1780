"""How each scheduler of the ipvs modes chooses, by real connections."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest

from services.conftest import permanent, started
from services.world import HTTP, NODE_IPS, World, endpoints, ip, node_port, pod, service

MODE = "ipvs"
MODES = ("ipvs", "kernel-ipvs")
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "sh", "dh", "sed", "nq", "mh")
NAMES = ["w-1", "w-2", "w-3"]
WEIGHTS = {"mininetes.dev/weights": '{"w-1": 3, "w-2": 2, "w-3": 1}'}
EVEN = service("even", 101, "w", [node_port(HTTP, 31010)], type="NodePort", externalTrafficPolicy="Local")
WEIGHED = service("weighed", 102, "w", meta={"annotations": WEIGHTS})
CLIENTS = [f"203.0.113.{i}" for i in range(1, 121)]


def of(*schedulers: str) -> Any:
    """Runs a case with each of these schedulers, in both modes."""
    pairs = [pytest.param((mode, name), id=f"{mode}-{name}") for mode in MODES for name in schedulers]
    return pytest.mark.parametrize("world", pairs, indirect=True, scope="module")


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    mode, scheduler = request.param
    # All on one node, so that clients outside are seen as they are.
    things = [*permanent(), EVEN, WEIGHED, service("changes", 103, ""), *(pod(name, 1, "w") for name in NAMES)]
    with started(mode, {"scheduler": scheduler}, things, tmp_path_factory.mktemp(f"{mode}-{scheduler}")) as made:
        yield made


def served_by(world: World, seen: set[str]) -> bool:
    """Whether these are the endpoints that connections, one after the other, should have found."""
    # The kernel's sed and nq count only what is open (ip_vs_sed.c, ip_vs_nq.c): here everybody is idle each time.
    one = world.scheduler == "dh" or (world.mode == "kernel-ipvs" and world.scheduler in ("sed", "nq"))
    return bool(seen) and seen <= set(NAMES) and (one or seen == set(NAMES))


@of(*SCHEDULERS)
def test_every_endpoint_of_a_service_serves_and_no_other(world: World) -> None:
    seen = set(world.at("c0").who(("tcp", ip(101), 80), n=60))
    seen |= set(world.at("client").who(("tcp", NODE_IPS[1], 31010), n=60, sources=CLIENTS))
    assert served_by(world, seen)


@of(*SCHEDULERS)
def test_new_connections_work_without_the_controller(world: World) -> None:
    world.ask("controller", action="stop")
    try:
        seen = set(world.at("c1").who(("tcp", ip(101), 80), n=60))
        seen |= set(world.at("client").who(("tcp", NODE_IPS[1], 31010), n=60, sources=CLIENTS))
        assert served_by(world, seen)
    finally:
        world.ask("controller", action="start")


@of("rr", "wrr")
def test_turns_are_exact(world: World) -> None:
    found = world.at("c0").who(("tcp", ip(101), 80), n=60)
    assert sorted(found[:3]) == NAMES and found == found[:3] * 20
    found = world.at("c0").who(("tcp", ip(102), 80), n=60)
    weights = {"w-1": 3, "w-2": 2, "w-3": 1} if world.scheduler == "wrr" else dict.fromkeys(NAMES, 1)
    # ip_vs_wrr: whose weight reaches 3, then 2, then 1; the kernel has servers in another order than they were given.
    orders = permutations(NAMES) if world.mode == "kernel-ipvs" else [NAMES]
    cycles = [[n for level in (3, 2, 1) for n in order if weights[n] >= level] for order in orders]
    assert found in [(once * 40)[i : i + 60] for once in cycles for i in range(len(once))]


def choices(world: World, number: int) -> list[str]:
    """Who answers each of the clients at worker's port.

    kube-proxy has the kernel's mh hash the client's port too, so there each has always the same one; and the kernel
    must have forgotten its last connection, or this one would be taken for it.
    """
    fixed = {"port": 21000} if (world.mode, world.scheduler) == ("kernel-ipvs", "mh") else {}
    time.sleep(12 if fixed else 0)  # ip_vs_proto_tcp: a closed one is kept for 10 s
    return world.at("client").who(("tcp", NODE_IPS[1], number), n=len(CLIENTS), sources=CLIENTS, **fixed)


@of("sh", "mh")
def test_a_source_keeps_its_endpoint_and_sources_spread(world: World) -> None:
    first = choices(world, 31010)
    assert first == choices(world, 31010)
    seen = Counter(first)
    # Each third of 120, give or take what chance would: four standard deviations.
    assert set(seen) == set(NAMES) and all(19 <= n <= 61 for n in seen.values()), seen


@of("mh")
def test_a_removed_endpoint_moves_its_own_sources_only(world: World) -> None:
    target = ("tcp", NODE_IPS[1], 31030)
    spec = service("changes", 103, "", [node_port(HTTP, 31030)], type="NodePort", externalTrafficPolicy="Local")
    found = [{"addresses": [world.ips[n]], "nodeName": "worker"} for n in NAMES]
    world.apply(spec, endpoints("changes", *found))
    world.at("client").until(target, NAMES)
    before = choices(world, 31030)
    world.apply(endpoints("changes", *found[:2]))
    # The kernel refuses the clients of one that is to go until its connections have ended, and looks once a minute.
    kept = {"w-1", "w-2"}
    world.eventually(lambda: set(world.at("client").who(target, n=40, sources=CLIENTS)) == kept, seconds=90)
    after = choices(world, 31030)
    moved = [a for a, b in zip(after, before, strict=True) if b not in ("w-3", a)]
    # Maglev's table moves a few others too (the paper's section 5.3), rendezvous hashing none.
    assert len(moved) <= (12 if world.mode == "kernel-ipvs" else 0), moved
    assert Counter(a for a, b in zip(after, before, strict=True) if b == "w-3").keys() == kept
    world.apply(endpoints("changes", *found))
    world.eventually(lambda: before == choices(world, 31030))


@of("dh")
def test_a_destination_has_one_endpoint(world: World) -> None:
    for client in ("c0", "c1", "c2"):
        assert len(set(world.at(client).who(("tcp", ip(101), 80), n=20))) == 1


@of("lc", "wlc", "sed", "nq")
def test_connections_go_to_whom_has_the_fewest(world: World) -> None:
    at, names = world.at("c2"), [f"held-{i}" for i in range(12)]
    shares = {"lc": (4, 4, 4)}.get(world.scheduler, (6, 4, 2))
    held = at.do("hold", target=("tcp", ip(102), 80), names=names)
    seen = [held.count(n) for n in NAMES]
    assert all(abs(a - b) <= 1 for a, b in zip(seen, shares, strict=True)), held
    # Whoever loses all its connections gets the next ones, once that was counted.
    gone = [name for name, who in zip(names, held, strict=True) if who == "w-1"]
    at.do("release", names=gone)

    def follows() -> bool:
        more = ["more-0", "more-1", "more-2"]
        found = at.do("hold", target=("tcp", ip(102), 80), names=more)
        at.do("release", names=more)
        return bool(found == ["w-1"] * 3)

    world.eventually(follows)
    at.do("release", names=[n for n in names if n not in gone])

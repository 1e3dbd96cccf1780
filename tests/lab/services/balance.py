"""How new connections are shared out, and that nothing of it needs the controller."""

from __future__ import annotations

import pytest

from services.world import DNS, ECHO, HTTP, NODE_IPS, World, chi_square, ip, node_port, service

ENDPOINTS = [f"echo-{i}" for i in range(4)]
OBJECTS = [
    service("shared", 91, "echo", [node_port(HTTP, 30910), node_port(DNS, 30910)], type="NodePort"),
    service("sticky", 92, "echo", sessionAffinity="ClientIP"),
]
CONNECTIONS = 2000


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_connections_are_shared_out_evenly(lab: World, kind: str) -> None:
    found = lab.at("c0").who((kind, ip(91), 80), n=CONNECTIONS, port=20000, threads=1 if lab.in_turn else 8)
    seen = {name: found.count(name) for name in set(found)}
    assert set(seen) == ECHO, seen
    if lab.in_turn:
        assert found == (found[:4] * CONNECTIONS)[:CONNECTIONS] and sorted(found[:4]) == ENDPOINTS
    else:
        assert chi_square(seen, dict.fromkeys(ENDPOINTS, 0.25)), seen


def test_clients_outside_are_shared_out_evenly_at_each_node(lab: World) -> None:
    sources = [f"203.0.113.{i}" for i in range(1, 255)]
    for address in NODE_IPS[1:3]:
        target, threads = ("tcp", address, 30910), 1 if lab.in_turn else 8
        found = lab.at("client").who(target, n=1000, port=30000, sources=sources, threads=threads)
        seen = {name: found.count(name) for name in set(found)}
        if lab.in_turn:
            assert seen == dict.fromkeys(ENDPOINTS, 250)
        else:
            assert chi_square(seen, dict.fromkeys(ENDPOINTS, 0.25)), seen


def test_new_connections_work_without_the_controller(lab: World) -> None:
    sticky = {c: lab.at(c).who(("tcp", ip(92), 80), n=3) for c in ("c0", "c1")}
    lab.ask("controller", action="stop")
    try:
        for kind in ("tcp", "udp"):
            assert set(lab.at("c0").who((kind, ip(91), 80), n=60)) == ECHO
            assert set(lab.at("client").who((kind, NODE_IPS[1], 30910), n=60)) == ECHO
        assert sticky == {c: lab.at(c).who(("tcp", ip(92), 80), n=3) for c in sticky}
        # A client that asks for the first time is remembered too.
        assert len(set(lab.at("c3").who(("tcp", ip(92), 80), n=10))) == 1
    finally:
        lab.ask("controller", action="start")

"""Connections are counted from a switch's own dump, and schedulers that count give them out accordingly."""

from __future__ import annotations

import pytest

from controllers.flow.fields import ip_number
from controllers.flow.program import Translation
from controllers.kernel.conntrack import ways
from controllers.loads import Load, Server, datagrams, parse
from controllers.proxy.frontends import EndpointSet
from controllers.proxy.schedulers import SCHEDULERS, LeastConnection, ahead
from controllers.services import Endpoint, ServicePort

DUMP = """
tcp,orig=(src=10.244.1.2,dst=10.96.0.10,sport=40000,dport=80),reply=(src=10.244.2.2,dst=10.244.1.2,sport=8080,\
dport=40000),zone=65520,mark=1,protoinfo=(state=ESTABLISHED)
tcp,orig=(src=10.244.1.2,dst=10.96.0.10,sport=40001,dport=80),reply=(src=10.244.2.2,dst=10.244.1.2,sport=8080,\
dport=40001),zone=65520,mark=1,protoinfo=(state=TIME_WAIT)
udp,orig=(src=10.244.1.2,dst=10.96.0.20,sport=40002,dport=53),reply=(src=10.244.2.3,dst=10.244.1.2,sport=5353,\
dport=40002),zone=65520,mark=1
tcp,orig=(src=10.244.1.2,dst=10.244.2.2,sport=40003,dport=8080),reply=(src=10.244.2.2,dst=10.244.1.2,sport=8080,\
dport=40003),zone=65520,mark=1,protoinfo=(state=ESTABLISHED)
icmp,orig=(src=10.244.1.2,dst=10.244.2.2,id=1,type=8,code=0),reply=(src=10.244.2.2,dst=10.244.1.2,id=1,type=0,code=0)
"""


def server(protocol: str, ip: str, port: int) -> Server:
    return Server(protocol, ip_number(ip), port)


def test_only_translated_connections_count_by_endpoint_and_state() -> None:
    assert parse(DUMP) == {
        server("tcp", "10.244.2.2", 8080): Load(active=1, inactive=1),
        server("udp", "10.244.2.3", 5353): Load(active=1),
    }


def test_ways_of_datagrams_are_read_from_the_switch_and_from_the_kernel() -> None:
    asked, endpoint = ip_number("10.96.0.20"), ip_number("10.244.2.3")
    assert datagrams(DUMP) == {Translation(asked, 53, endpoint, 5353)}
    shown = (
        "udp      17 29 src=10.244.1.2 dst=10.96.0.20 sport=40002 dport=53 [UNREPLIED] src=10.244.2.3 dst=10.244.1.2 "
        "sport=5353 dport=40002 mark=0 use=1\n"
    )
    assert ways(shown) == ways(shown.replace("[UNREPLIED] ", "")) == {(asked, 53, endpoint)}


def order(name: str, weights: list[int], loads: list[tuple[int, int]], many: int) -> list[int]:
    """Places of the endpoints that the next connections go to."""
    endpoints = tuple(Endpoint(i, 80, weight=w) for i, w in enumerate(weights))
    port = ServicePort("default/web:80/tcp", "tcp", 1, 80, endpoints, 1)
    scheduler = SCHEDULERS[name]
    assert isinstance(scheduler, LeastConnection)
    chosen = EndpointSet(1, port, endpoints, tuple(Load(*load) for load in loads))
    return [e.ip for e in ahead(chosen, scheduler.cost)[:many]]


@pytest.mark.parametrize(
    ("name", "weights", "loads", "wanted"),
    [
        ("lc", [1, 1, 1], [(2, 0), (0, 0), (1, 0)], [1, 1, 2, 0, 1, 2]),
        ("lc", [1, 1], [(0, 3), (0, 1)], [1, 0, 1, 0]),  # the inactive decide between equal active ones
        ("wlc", [1, 2], [(1, 0), (1, 0)], [1, 0, 1, 1]),
        ("wlc", [0, 1], [(0, 0), (9, 0)], [1, 1, 1]),
        ("sed", [1, 3], [(0, 0), (0, 0)], [1, 1, 0, 1]),
        ("nq", [1, 3], [(0, 0), (0, 0)], [0, 1, 1, 1]),
        ("nq", [1, 3], [(1, 0), (0, 0)], [1, 1, 1, 1, 1, 0]),
    ],
)
def test_connections_go_as_ipvs_gives_them_out(
    name: str, weights: list[int], loads: list[tuple[int, int]], wanted: list[int]
) -> None:
    assert order(name, weights, loads, len(wanted)) == wanted

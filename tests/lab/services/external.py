"""What clients outside the cluster, and everybody else, reach a Service by: node ports, external addresses."""

from __future__ import annotations

import pytest

from services.world import (
    AMONG_PODS,
    DNS,
    ECHO,
    HTTP,
    NO_ANSWER,
    NODE_IPS,
    World,
    ip,
    node_port,
    pod,
    service,
    states,
)
from topo.cluster.errors import UserError

OBJECTS = [
    service("np", 31, "echo", [node_port(HTTP, 30180), node_port(DNS, 30180)], type="NodePort"),
    service("two-protocols", 32, "echo"),
    service("external", 33, "echo", externalIPs=["203.0.113.250", "192.0.2.33"]),
    service("named-first", 34, "", type="ExternalName", externalName="echo.default.svc.cluster.local"),
    service("gone", 35, "echo", [node_port(HTTP, 30350), node_port(DNS, 30350)], type="NodePort"),
    service("local-np", 36, "local-np", [node_port(HTTP, 30360)], type="NodePort", externalTrafficPolicy="Local"),
    pod("local-np-1", 1, "local-np"),
    pod("local-np-2", 2, "local-np"),
]
OUTSIDE = "203.0.113.7"


def at_nodes(number: int, kind: str = "tcp") -> list[tuple[str, str, int]]:
    return [(kind, address, number) for address in NODE_IPS]


@states("nodeport", "nodeport-udp-basic", "pod-service-http", "pod-service-udp")
def test_a_node_port_is_on_every_node_for_pods_and_clients_outside(lab: World) -> None:
    for client in ("c0", "c2", "client"):
        for kind in ("tcp", "udp"):
            for target in at_nodes(30180, kind):
                assert set(lab.at(client).who(target, n=40, threads=4)) == ECHO, (client, target)
    assert lab.at("c0").who(("tcp", ip(31), 80))[0] in ECHO


@states("node-service-http", "node-service-udp", "nodeport-udp-basic")
def test_a_node_reaches_other_nodes_ports(lab: World) -> None:
    for kind in ("tcp", "udp"):
        for target in at_nodes(30180, kind)[2:]:
            assert set(lab.at("worker").who(target, n=40)) == ECHO, target


@states("node-service-http", "node-service-udp")
def test_a_node_reaches_its_own_ports(lab: World) -> None:
    for kind in ("tcp", "udp"):
        assert set(lab.at("worker").who((kind, NODE_IPS[1], 30180), n=40, timeout=0.3)) == ECHO


@states("endpoint-service-http", "endpoint-service-udp")
def test_an_endpoint_reaches_its_own_service_by_node_port(lab: World) -> None:
    for kind in ("tcp", "udp"):
        for target in at_nodes(30180, kind)[1:3]:
            assert set(lab.at("echo-1").who(target, n=40)) == ECHO, target


def test_a_client_of_a_node_port_is_hidden_behind_the_node(lab: World) -> None:
    answers = lab.at("client").ask(("tcp", NODE_IPS[1], 30180), n=20, sources=[OUTSIDE])
    assert {a["client"] for a in answers} <= set(AMONG_PODS[1])
    answers = lab.at("c0").ask(("tcp", NODE_IPS[1], 30180), n=20)
    assert lab.ips["c0"] not in {a["client"] for a in answers}


def test_with_policy_local_servers_see_clients_and_only_their_own_nodes(lab: World) -> None:
    outside = lab.at("client")
    for number in (1, 2):
        for client in (OUTSIDE, "203.0.113.8"):
            answers = outside.ask(("tcp", NODE_IPS[number], 30360), n=5, sources=[client])
            assert {a["pod"] for a in answers} == {f"local-np-{number}"}
            assert {a["client"] for a in answers} <= lab.seen(client, number)
    # Silence, not a reset: another node may serve.
    assert outside.who(("tcp", NODE_IPS[3], 30360), timeout=0.5) == ["timeout"]
    # The cluster's own pods reach every endpoint, of whichever node they ask their own.
    assert set(lab.at("c3").who(("tcp", NODE_IPS[3], 30360), n=30)) == {"local-np-1", "local-np-2"}


@states("external-ip")
def test_an_external_address_that_is_no_nodes(lab: World) -> None:
    assert set(lab.at("c0").who(("tcp", "203.0.113.250", 80), n=40)) == ECHO
    assert lab.at("c0").who(("tcp", ip(33), 80))[0] in ECHO


@states("external-ip")
def test_a_node_reaches_an_external_address(lab: World) -> None:
    assert set(lab.at("worker").who(("tcp", "203.0.113.250", 80), n=40, timeout=0.3)) == ECHO


def test_a_client_outside_reaches_an_external_address_by_whichever_node_it_is_routed_to(lab: World) -> None:
    for address in NODE_IPS[1:]:
        lab.run("client", "ip", "route", "replace", "192.0.2.33", "via", address)
        assert set(lab.at("client").who(("tcp", "192.0.2.33", 80), n=40)) == ECHO


@states("nodeport-two-protocols")
def test_a_service_becomes_a_node_port_of_two_protocols(lab: World) -> None:
    lab.apply(service("two-protocols", 32, "echo", [node_port(HTTP, 30320)], type="NodePort"))
    lab.at("c0").until(("tcp", NODE_IPS[1], 30320), ECHO)
    both = [node_port(HTTP, 30320), node_port(DNS, 30321)]
    lab.apply(service("two-protocols", 32, "echo", both, type="NodePort"))
    lab.at("c0").until(("udp", NODE_IPS[1], 30321), ECHO)
    assert set(lab.at("c0").who(("tcp", NODE_IPS[1], 30320), ("udp", ip(32), 80))) <= ECHO
    lab.apply(service("two-protocols", 32, "echo", type="ClusterIP"))
    lab.at("client").until(("tcp", NODE_IPS[1], 30320), NO_ANSWER)
    assert lab.at("c0").who(("tcp", ip(32), 80))[0] in ECHO


@states("externalname-to-clusterip", "externalname-to-nodeport")
def test_an_external_name_becomes_a_service(lab: World) -> None:
    lab.apply(service("named-first", 34, "echo"))
    lab.at("c0").until(("tcp", ip(34), 80), ECHO)
    lab.apply(service("named-first", 34, "echo", [node_port(HTTP, 30340)], type="NodePort"))
    lab.at("c0").until(("tcp", NODE_IPS[2], 30340), ECHO)


@states("clusterip-to-externalname", "nodeport-to-externalname")
def test_a_service_becomes_an_external_name(lab: World) -> None:
    lab.apply(service("becomes-name", 37, "echo", [node_port(HTTP, 30370)], type="NodePort"))
    lab.at("c0").until(("tcp", NODE_IPS[2], 30370), ECHO)
    name = "echo.default.svc.cluster.local"
    lab.apply(service("becomes-name", 37, "", type="ExternalName", externalName=name))
    lab.at("c0").until(("tcp", ip(37), 80), NO_ANSWER)
    lab.at("client").until(("tcp", NODE_IPS[2], 30370), NO_ANSWER)
    lab.eventually(lambda: not (lab.get("Service", "becomes-name") or {})["spec"].get("clusterIP"))


@states("nodeport-release", "update-nodeport-http", "update-nodeport-udp")
def test_a_deleted_services_node_port_is_free_again(lab: World) -> None:
    targets = [("tcp", NODE_IPS[2], 30350), ("udp", NODE_IPS[2], 30350)]
    for target in targets:
        assert set(lab.at("worker").who(target, n=40)) == ECHO
    lab.delete("Service/gone")
    for target in targets:
        lab.at("worker").until(target, NO_ANSWER)
        assert set(lab.at("worker").who(target, n=10, timeout=0.2)) <= NO_ANSWER
    assert 30350 not in lab.at("worker2").do("listening")
    lab.apply(service("gone", 35, "echo", [node_port(HTTP, 30350), node_port(DNS, 30350)], type="NodePort"))
    lab.at("worker").until(targets[0], ECHO)


@states("nodeport-collision", "nodeport-range")
def test_a_node_port_that_is_taken_or_none_is_refused(lab: World) -> None:
    taken = service("collides", 38, "echo", [node_port(HTTP, 30180)], type="NodePort")
    with pytest.raises(UserError, match="30180"):
        lab.apply(taken)
    assert lab.get("Service", "collides") is None
    with pytest.raises(UserError, match="30000"):
        lab.apply(service("collides", 38, "echo", [node_port(HTTP, 29999)], type="NodePort"))
    lab.apply(service("collides", 38, "echo", type="NodePort"))
    found = lab.get("Service", "collides")
    assert found is not None and 30000 <= found["spec"]["ports"][0]["nodePort"] <= 32767

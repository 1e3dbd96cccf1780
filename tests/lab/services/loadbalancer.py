"""LoadBalancer addresses: from the pool, announced by one node, for whom they are meant."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from services.world import (
    AMONG_PODS,
    DNS,
    ECHO,
    HTTP,
    NODE_IPS,
    NODES,
    World,
    ip,
    pod,
    service,
    states,
)

BALANCED = {"type": "LoadBalancer"}
LOCAL = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
OBJECTS = [
    service("lb", 111, "echo", [HTTP, DNS], **BALANCED),
    service("lb-local", 112, **LOCAL),
    pod("lb-local", 2),
    service("lb-limited", 113, "echo", **BALANCED, loadBalancerSourceRanges=["203.0.113.0/28", "10.244.1.0/24"]),
    service("lb-nobody", 114, **BALANCED),
    service("lb-changes", 115, "echo"),
]
POOL = IPv4Network("172.18.255.192/26")
MACS = {f"0a:58:{IPv4Address(a).packed.hex(':')}": n for a, n in zip(NODE_IPS, NODES, strict=True)}
OUTSIDE = "203.0.113.7"


def address_of(lab: World, name: str) -> str:
    """The address the Service was given."""
    found = lab.get("Service", name)
    assert found is not None
    (given,) = found["status"]["loadBalancer"]["ingress"]
    return str(given["ip"])


def announcer(lab: World, address: str) -> str:
    """The one node that answers for it."""
    macs = lab.at("client").do("arp", address=address, source="172.18.0.1")
    assert len(macs) == 1, macs
    return MACS[macs[0]]


def test_addresses_come_from_the_pool_each_once_and_one_node_answers_for_each(lab: World) -> None:
    found = [address_of(lab, name) for name in ("lb", "lb-local", "lb-limited", "lb-nobody")]
    assert len(set(found)) == 4 and all(IPv4Address(a) in POOL for a in found)
    for address in found:
        assert announcer(lab, address) in NODES
    assert lab.at("client").do("arp", address="172.18.255.250", source="172.18.0.1") == []


@states("same-port-two-protocols-lb")
def test_everybody_reaches_the_address(lab: World) -> None:
    address = address_of(lab, "lb")
    for client in ("client", "c0", "c3", "worker", "control-plane"):
        for kind in ("tcp", "udp"):
            assert set(lab.at(client).who((kind, address, 80), n=40)) == ECHO, (client, kind)
    answers = lab.at("client").ask(("tcp", address, 80), n=10, sources=[OUTSIDE])
    assert {a["client"] for a in answers} <= set(AMONG_PODS[NODES.index(announcer(lab, address))])
    assert set(lab.at("c0").who(("tcp", ip(111), 80), ("udp", ip(111), 80))) <= ECHO


def test_with_policy_local_the_endpoints_node_answers_and_the_client_is_seen(lab: World) -> None:
    address = address_of(lab, "lb-local")
    assert announcer(lab, address) == "worker2"
    answers = lab.at("client").ask(("tcp", address, 80), n=10, sources=[OUTSIDE])
    assert {a["pod"] for a in answers} == {"lb-local"}
    assert {a["client"] for a in answers} <= lab.seen(OUTSIDE, NODES.index("worker2"))
    assert lab.at("c0").who(("tcp", address, 80), n=3) == ["lb-local"] * 3


def test_only_the_source_ranges_reach_the_address(lab: World) -> None:
    address = address_of(lab, "lb-limited")
    for client, source, is_meant in (
        ("client", OUTSIDE, True),
        ("client", "203.0.113.77", False),
        ("c1", "", True),
        ("c2", "", False),
        ("worker", "", False),
    ):
        answers = lab.at(client).who(("tcp", address, 80), n=3, sources=[source], timeout=0.4)
        assert set(answers) <= ECHO if is_meant else set(answers) == {"timeout"}, (client, source, answers)
    # The cluster IP is not limited.
    assert lab.at("c2").who(("tcp", ip(113), 80))[0] in ECHO


def test_an_address_without_endpoints_refuses(lab: World) -> None:
    address = address_of(lab, "lb-nobody")
    for client in ("client", "c0"):
        (answer,) = lab.at(client).ask(("tcp", address, 80))
        assert answer["error"] == "refused" and answer["ms"] < 500


def test_a_service_becomes_a_load_balancer_and_a_cluster_ip_again(lab: World) -> None:
    lab.apply(service("lb-changes", 115, "echo", **BALANCED))
    lab.eventually(lambda: bool((lab.get("Service", "lb-changes") or {}).get("status", {}).get("loadBalancer")))
    target = ("tcp", address_of(lab, "lb-changes"), 80)
    lab.at("client").until(target, ECHO)
    lab.apply(service("lb-changes", 115, "echo", type="ClusterIP"))
    lab.eventually(lambda: lab.at("client").do("arp", address=target[1], source="172.18.0.1") == [])
    assert lab.at("c0").who(("tcp", ip(115), 80))[0] in ECHO


def test_another_node_takes_the_address_when_the_announcers_switch_dies(lab: World) -> None:
    address = address_of(lab, "lb")
    target, before = ("tcp", address, 80), announcer(lab, address)
    assert lab.at("client").who(target)[0] in ECHO
    lab.ask("switch", action="stop", machine=before)
    try:
        # Endpoints of the dead node are still in the Service: one of the others answers before long.
        found = lab.at("client").until(target, ECHO, seconds=30, timeout=0.3)
        print(f"{found['took']:.2f} s from the switch's end to an answer at {address}")
        lab.eventually(lambda: lab.at("client").do("arp", address=address, source="172.18.0.1") != [])
        assert announcer(lab, address) != before
    finally:
        lab.ask("switch", action="start", machine=before)
    lab.eventually(lambda: announcer(lab, address) == before)
    lab.at("client").until(target, ECHO)
    assert set(lab.at("client").who(target, n=40)) == ECHO


@states("hcnp-terminating")
def test_a_health_check_port_tells_where_endpoints_are(lab: World) -> None:
    found = lab.get("Service", "lb-local")
    assert found is not None
    number = found["spec"]["healthCheckNodePort"]
    said = [lab.at("client").do("get", address=address, port=number, path="/healthz") for address in NODE_IPS]
    assert said == [503, 503, 200, 503]

"""Cluster IPs: ports, protocols, endpoints that come and go, hairpin, and who the server sees."""

from __future__ import annotations

import pytest

from services.world import (
    API,
    DNS,
    ECHO,
    HTTP,
    NO_ANSWER,
    NODE_IPS,
    REFUSED,
    World,
    endpoints,
    ip,
    pod,
    service,
    states,
)

TWO = [{"name": "one", "port": 80, "targetPort": "svc1"}, {"name": "two", "port": 81, "targetPort": "svc2"}]
SAME = [{"name": "t", "port": 80, "targetPort": 8080}, {"name": "u", "port": 80, "targetPort": 8081, "protocol": "UDP"}]
SCTP = {"name": "s", "port": 80, "targetPort": 7000, "protocol": "SCTP"}
OBJECTS = [
    service("echo", 1, "echo", [HTTP, DNS]),
    service("multi", 2, ports=TWO),
    service("grows", 3, ports=TWO[:1]),
    pod("hairpin", 1),
    service("hairpin", 4, ports=[HTTP, DNS]),
    service("alone", 18, "hairpin", [{**HTTP, "nodePort": 30190}], type="NodePort"),
    service("up-2", 6, "echo"),
    service("again", 7, "echo"),
    service("made", 8, "", [HTTP, DNS]),
    service("nobody", 9, ports=[HTTP, DNS]),
    service("same", 10, "echo", SAME),
    service("named", 11, "named", [{"name": "http", "port": 80, "targetPort": "web"}]),
    pod("named-0", 1, "named", ports=[{"containerPort": 9000, "name": "web"}]),
    pod("named-1", 2, "named", ports=[{"containerPort": 9001, "name": "web"}]),
    service("sctp", 12, ports=[{"name": "s", "port": 5060, "targetPort": 5060, "protocol": "SCTP"}]),
    service("sctp-echo", 19, ports=[SCTP]),
    *(pod(f"sctp-{i}", i, "sctp-echo", ports=[{"containerPort": 7000, "protocol": "SCTP"}]) for i in (1, 2)),
    service("evicted", 13, publishNotReadyAddresses=True),
    service("less", 14),
    *(pod(f"less-{i}", i, "less") for i in range(1, 4)),
    service("twice-1", 15, "echo", type="NodePort", ports=[{**HTTP, "nodePort": 30151}]),
    service("twice-2", 16, "echo", type="NodePort", ports=[{**HTTP, "nodePort": 30161}]),
]


def slices(lab: World) -> list[dict[str, object]]:
    return [endpoints("made", lab.endpoint("echo-1"), lab.endpoint("echo-2"))]


def named_port(name: str, number: int) -> list[dict[str, object]]:
    return [{"containerPort": number, "name": name}]


@states("multiport-endpoints")
def test_a_named_port_is_an_endpoint_of_the_pods_that_have_it(lab: World) -> None:
    asked = ("tcp", ip(2), 80), ("tcp", ip(2), 81)
    assert lab.endpoints("multi") == {}
    lab.apply(pod("multi-1", 1, "multi", ports=named_port("svc1", 100)))
    lab.apply(pod("multi-2", 2, "multi", ports=named_port("svc2", 101)))
    for target, name in zip(asked, ("multi-1", "multi-2"), strict=True):
        lab.at("c0").until(target, name)
    assert lab.endpoints("multi") == {"multi-1": [100], "multi-2": [101]}
    lab.delete("Pod/multi-1")
    lab.at("c0").until(asked[0], REFUSED)
    assert lab.at("c0").who(asked[1], n=3) == ["multi-2"] * 3 and lab.endpoints("multi") == {"multi-2": [101]}
    lab.delete("Pod/multi-2")
    lab.at("c0").until(asked[1], REFUSED)
    assert lab.endpoints("multi") == {}


@states("add-delete-port")
def test_ports_of_a_service_may_be_added_and_removed(lab: World) -> None:
    lab.apply(pod("grows-1", 1, "grows", ports=named_port("svc1", 100)))
    lab.at("c0").until(("tcp", ip(3), 80), "grows-1")
    lab.apply(service("grows", 3, ports=TWO), pod("grows-2", 2, "grows", ports=named_port("svc2", 101)))
    lab.at("c0").until(("tcp", ip(3), 81), "grows-2")
    lab.apply(service("grows", 3, ports=TWO[:1]))
    lab.at("c0").until(("tcp", ip(3), 81), NO_ANSWER if lab.mode == "kernel-iptables" else REFUSED)
    assert lab.at("c0").who(("tcp", ip(3), 80)) == ["grows-1"]


@states("source-ip-clusterip")
def test_a_server_sees_the_client_pod_itself(lab: World) -> None:
    for node, client in enumerate(("c0", "c1", "c2", "c3")):
        answers = lab.at(client).ask(("tcp", ip(1), 80), ("udp", ip(1), 80), n=8)
        assert {a["client"] for a in answers} <= lab.seen(lab.ips[client], node)
        assert {a["pod"] for a in answers} <= ECHO


@states("hairpin")
def test_a_pod_reaches_itself_through_its_service(lab: World) -> None:
    assert lab.at("hairpin").who(("tcp", ip(4), 80), ("udp", ip(4), 80), n=5) == ["hairpin"] * 10


def test_clients_that_share_a_port_number_do_not_meet_at_their_server(lab: World) -> None:
    # Their port is none that the kernel of the node gives to others (net.ipv4.ip_local_port_range).
    outside = ("tcp", NODE_IPS[1], 30190)
    kept = {
        "client": lab.at("client").do("hold", target=outside, names=["one"], source="203.0.113.7", port=61500),
        "c2": lab.at("c2").do("hold", target=outside, names=["one"], port=61500),
        # The node itself, which the others are hidden behind.
        "worker": lab.at("worker").do("hold", target=("tcp", ip(18), 80), names=["one"], port=61500),
        "c1": lab.at("c1").do("hold", target=("tcp", ip(18), 80), names=["one"], port=61500),
    }
    assert kept == {machine: ["hairpin"] for machine in kept}
    for machine in kept:
        assert lab.at(machine).who(outside, keep="one") == ["hairpin"]
        lab.at(machine).do("release", names=["one"])


@states("pod-service-http", "pod-service-udp")
def test_a_pod_reaches_every_endpoint(lab: World) -> None:
    for kind in ("tcp", "udp"):
        for client in ("c0", "c3"):
            assert set(lab.at(client).who((kind, ip(1), 80), n=40)) == ECHO


@states("node-service-http", "node-service-udp")
def test_a_node_reaches_every_endpoint(lab: World) -> None:
    for kind in ("tcp", "udp"):
        answers = lab.at("worker").ask((kind, ip(1), 80), n=40)
        assert {a.get("pod", a.get("error")) for a in answers} == ECHO


@states("endpoint-service-http", "endpoint-service-udp")
def test_an_endpoint_reaches_every_endpoint_itself_too(lab: World) -> None:
    for kind in ("tcp", "udp"):
        assert set(lab.at("echo-1").who((kind, ip(1), 80), n=40)) == ECHO


@states("up-down")
def test_services_come_and_go_without_touching_others(lab: World) -> None:
    one, two, three = (("tcp", ip(last), 80) for last in (5, 6, 17))
    lab.apply(service("up-1", 5), *(pod(f"up-1-{i}", i, "up-1") for i in (1, 2, 3)))
    lab.at("c0").until(one, {f"up-1-{i}" for i in (1, 2, 3)})
    assert set(lab.at("c0").who(one, n=30)) == {"up-1-1", "up-1-2", "up-1-3"}
    lab.delete("Service/up-1", *(f"Pod/up-1-{i}" for i in (1, 2, 3)))
    lab.at("c0").until(one, NO_ANSWER)
    assert set(lab.at("c0").who(two, n=40)) == ECHO
    lab.apply(service("up-3", 17, "echo"))
    lab.at("c0").until(three, ECHO)
    assert set(lab.at("c0").who(two, n=40)) == set(lab.at("c0").who(three, n=40)) == ECHO


@states("recreate")
def test_a_service_made_again_with_its_old_address_serves_again(lab: World) -> None:
    target = ("tcp", ip(7), 80)
    assert lab.at("c0").who(target)[0] in ECHO
    lab.delete("Service/again")
    lab.at("c0").until(target, NO_ANSWER)
    lab.apply(service("again", 7, "echo"))
    lab.at("c0").until(target, ECHO)


@states("restart-proxy")
def test_a_restarted_controller_changes_nothing(lab: World) -> None:
    asked = ("tcp", ip(1), 80), ("tcp", ip(6), 80)
    lab.ask("controller", action="restart")
    for target in asked:
        assert set(lab.at("c0").who(target, n=40)) == ECHO


def test_a_service_without_selector_serves_its_hand_made_endpoints(lab: World) -> None:
    for kind in ("tcp", "udp"):
        assert set(lab.at("c0").who((kind, ip(8), 80), n=20)) == {"echo-1", "echo-2"}


@states("reject-no-endpoints")
def test_a_service_without_endpoints_refuses_at_once(lab: World) -> None:
    for client in ("c0", "worker"):
        for answer in lab.at(client).ask(("tcp", ip(9), 80), ("udp", ip(9), 80), n=2):
            assert answer["error"] == "refused" and answer["ms"] < 500
    # Nor does a port that a Service does not have, or an address that none has; kube-proxy's iptables mode has no
    # rules for these, and its nftables mode none for the latter ("Service: virtual IPs", KEP-3866).
    unknown_address, unknown_port = lab.at("c0").who(("tcp", "10.96.200.200", 80), ("tcp", ip(1), 81))
    assert unknown_address in (NO_ANSWER if lab.mode.startswith("kernel-") else REFUSED)
    assert unknown_port in (NO_ANSWER if lab.mode == "kernel-iptables" else REFUSED)


@states("reject-evicted")
def test_a_failed_pod_is_no_endpoint_even_of_a_service_that_publishes_the_unready(lab: World) -> None:
    target = ("tcp", ip(13), 80)
    lab.apply(pod("evicted", 1))
    lab.at("c0").until(target, "evicted")
    found = lab.get("Pod", "evicted")
    assert found is not None
    value = {**found["status"], "phase": "Failed", "reason": "Evicted"}
    assert lab.at("worker").do("write_status", api=API, kind="Pod", name="evicted", value=value) == {"ok": True}
    lab.at("c0").until(target, REFUSED)
    assert lab.endpoints("evicted") == {}


@states("same-port-two-protocols", "same-port-two-protocols-lb")
def test_one_number_serves_two_protocols_each_for_itself(lab: World) -> None:
    tcp, udp = ("tcp", ip(10), 80), ("udp", ip(10), 80)
    answers = lab.at("c0").ask(tcp, udp)
    assert [a["port"] for a in answers] == [8080, 8081]
    lab.apply(service("same", 10, "echo", SAME[:1]))
    lab.at("c0").until(udp, NO_ANSWER)
    assert lab.at("c0").who(tcp)[0] in ECHO
    lab.apply(service("same", 10, "echo", SAME[1:]))
    lab.at("c0").until(udp, ECHO)
    assert lab.at("c0").who(tcp)[0] in NO_ANSWER


def test_a_named_target_port_is_each_pods_own(lab: World) -> None:
    answers = lab.at("c0").ask(("tcp", ip(11), 80), n=20)
    assert {(a["pod"], a["port"]) for a in answers} == {("named-0", 9000), ("named-1", 9001)}


@states("sctp-endpoints")
def test_a_pod_with_an_sctp_port_becomes_an_endpoint(lab: World) -> None:
    assert lab.endpoints("sctp") == {}
    lab.apply(pod("sctp", 1, ports=[{"containerPort": 5060, "protocol": "SCTP"}]))
    lab.eventually(lambda: lab.endpoints("sctp") == {"sctp": [5060]})
    lab.delete("Pod/sctp")
    lab.eventually(lambda: lab.endpoints("sctp") == {})


@states("pod-service-sctp", "endpoint-service-sctp")
def test_sctp(lab: World) -> None:
    """As TCP, where the kernel has it."""
    asked = lab.at("c0").who(("sctp", ip(19), 80), n=20)
    if "Protocol not supported" in asked:
        pytest.skip("this kernel has no SCTP")
    assert set(asked) == set(lab.at("sctp-1").who(("sctp", ip(19), 80), n=20)) == {"sctp-1", "sctp-2"}


@states("update-endpoints-http", "update-endpoints-udp")
def test_a_deleted_pod_answers_no_more(lab: World) -> None:
    lab.apply(service("less", 14, ports=[HTTP, DNS]))
    for kind in ("tcp", "udp"):
        lab.at("c0").until((kind, ip(14), 80), {"less-1"})
    lab.delete("Pod/less-1")
    lab.eventually(lambda: set(lab.endpoints("less")) == {"less-2", "less-3"})
    lab.ask("wait", timeout=10)
    for kind in ("tcp", "udp"):
        assert set(lab.at("c0").who((kind, ip(14), 80), n=30)) == {"less-2", "less-3"}


@states("two-services-one-selector")
def test_two_services_of_one_selector_do_not_touch_each_other(lab: World) -> None:
    first = ("tcp", ip(15), 80), ("tcp", "172.18.0.4", 30151)
    second = ("tcp", ip(16), 80), ("tcp", "172.18.0.4", 30161)
    for target in (*first, *second):
        assert set(lab.at("echo-1").who(target, n=40)) == ECHO
    lab.delete("Service/twice-1")
    for target in first:
        lab.at("echo-1").until(target, NO_ANSWER)
    for target in second:
        assert set(lab.at("echo-1").who(target, n=40)) == ECHO

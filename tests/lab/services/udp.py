"""Datagrams of one client port, whose connection would go on for ever: endpoints come and go under it."""

from __future__ import annotations

import pytest

from services.world import DNS, NO_ANSWER, NODE_IPS, World, endpoints, ip, node_port, pod, service, states

OBJECTS = [
    service("udp-np", 81, "udp-np", [node_port(DNS, 30810)], type="NodePort"),
    service("udp-ip", 82, ports=[DNS]),
    service("udp-itp", 83, ports=[DNS], internalTrafficPolicy="Local"),
    service("udp-host", 84, ports=[DNS]),
    service("udp-late", 85, ports=[DNS]),
    service("udp-made", 86, "", [DNS]),
    service("udp-again", 87, "echo", [DNS]),
]
CYCLES = {
    "node-port": ("udp-np", "c0", ("udp", NODE_IPS[1], 30810)),
    "cluster-ip": ("udp-ip", "c0", ("udp", ip(82), 80)),
    "node": ("udp-host", "control-plane", ("udp", ip(84), 80)),
}


@states("udp-nodeport-cycle", "udp-clusterip-cycle", "udp-clusterip-hostnetwork-client")
@pytest.mark.parametrize("case", CYCLES)
def test_a_clients_datagrams_find_the_server_that_is_there(lab: World, case: str) -> None:
    name, client, target = CYCLES[case]
    one, two = f"{name}-1", f"{name}-2"
    at = lab.at(client)
    assert set(at.who(target, n=3, keep=case, timeout=0.2)) <= NO_ANSWER
    lab.apply(pod(one, 1, name))
    at.until(target, one, keep=case, timeout=0.2)
    lab.apply(pod(two, 1, name))
    # What has begun goes on, or moves if the mode keeps no connections.
    assert set(at.who(target, n=3, keep=case, timeout=0.5)) <= {one, two}
    lab.delete(f"Pod/{one}")
    at.until(target, two, keep=case, timeout=0.2, seconds=3)
    assert at.who(target, n=5, keep=case) == [two] * 5


@states("udp-clusterip-itp-local")
def test_datagrams_under_internal_policy_local_find_local_servers_only(lab: World) -> None:
    target, at = ("udp", ip(83), 80), lab.at("c0")
    assert set(at.who(target, n=2, keep="itp", timeout=0.2)) <= NO_ANSWER
    lab.apply(pod("udp-itp-1", 0, "udp-itp"))
    at.until(target, "udp-itp-1", keep="itp", timeout=0.2)
    lab.apply(pod("udp-itp-2", 1, "udp-itp"))
    lab.delete("Pod/udp-itp-1")
    at.until(target, NO_ANSWER, keep="itp", timeout=0.2, seconds=3)
    assert set(at.who(target, n=3, keep="itp", timeout=0.2)) <= NO_ANSWER
    lab.apply(pod("udp-itp-3", 0, "udp-itp"))
    at.until(target, "udp-itp-3", keep="itp", timeout=0.2, seconds=3)


@states("udp-unready-then-ready")
def test_datagrams_to_a_server_that_was_not_ready_yet_reach_it_once_it_is(lab: World) -> None:
    target, at = ("udp", ip(85), 80), lab.at("c0")
    never = {"readinessProbe": {"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1, "failureThreshold": 1}}
    lab.apply(pod("udp-late", 1, container=never))
    found = lab.get("Pod", "udp-late")
    assert found is not None
    address = found["status"]["podIP"]
    lab.at("worker").do("post", address=address, port=8080, path="/unhealthy")
    lab.eventually(lambda: lab.endpoints("udp-late") == {})
    at.until(target, NO_ANSWER, keep="late", timeout=0.2)
    assert set(at.who(target, n=3, keep="late", timeout=0.2)) <= NO_ANSWER
    lab.at("worker").do("post", address=address, port=8080, path="/healthy")
    at.until(target, "udp-late", keep="late", timeout=0.2)


def test_only_the_removed_endpoints_datagrams_move(lab: World) -> None:
    target, at = ("udp", ip(86), 80), lab.at("c0")
    names = ["echo-1", "echo-2", "echo-3"]
    lab.apply(endpoints("udp-made", *(lab.endpoint(n) for n in names)))
    at.until(target, names)
    ports = [f"made-{i}" for i in range(24)]
    chosen = {p: at.who(target, keep=p, timeout=2)[0] for p in ports}
    assert set(chosen.values()) == set(names)
    if lab.mode != "userspace":
        assert chosen == {p: at.who(target, keep=p, timeout=2)[0] for p in ports}
    gone = chosen[ports[0]]
    lab.apply(endpoints("udp-made", *(lab.endpoint(n) for n in names if n != gone)))
    at.until(target, set(names) - {gone}, keep=ports[0], timeout=0.2, seconds=2)
    after = {p: at.who(target, keep=p, timeout=2)[0] for p in ports}
    assert gone not in after.values() and set(after.values()) < set(names)
    if lab.mode != "userspace":  # which forgets a client that is silent for a quarter of a second
        assert {p: n for p, n in after.items() if chosen[p] != gone} == {p: n for p, n in chosen.items() if n != gone}


def test_datagrams_of_a_deleted_service_are_refused_and_found_again(lab: World) -> None:
    target, at = ("udp", ip(87), 80), lab.at("c0")
    at.until(target, {"echo-0", "echo-1", "echo-2", "echo-3"}, keep="again")
    lab.delete("Service/udp-again")
    at.until(target, NO_ANSWER, keep="again", timeout=0.2, seconds=3)
    lab.apply(service("udp-again", 87, "echo", [DNS]))
    at.until(target, {"echo-0", "echo-1", "echo-2", "echo-3"}, keep="again", timeout=0.2, seconds=3)

"""Where a Service's traffic may go: internal traffic policy, topology, labels that leave a Service alone, affinity."""

from __future__ import annotations

import time

import pytest

from services.world import (
    ECHO,
    HTTP,
    NO_ANSWER,
    NODE_IPS,
    World,
    endpoints,
    ip,
    node_port,
    pod,
    service,
    states,
)

PROXY_NAME = {"service.kubernetes.io/service-proxy-name": "foo-bar"}
HEADLESS = {"service.kubernetes.io/headless": ""}
HOST = {"hostNetwork": True}
# Longer than it takes to ask a few times, shorter than a test's patience.
SHORT = {"clientIP": {"timeoutSeconds": 2}}
OBJECTS = [
    service("itp", 61, "itp-1", internalTrafficPolicy="Local"),
    pod("itp-1", 1),
    service(
        "itp-host", 62, "on-host", [{"name": "http", "port": 80, "targetPort": 10180}], internalTrafficPolicy="Local"
    ),
    pod("on-host", 1, spec=HOST, ports=[{"containerPort": 10180}]),
    service("on-host-2", 74, ports=[{"name": "http", "port": 80, "targetPort": 10181}]),
    pod("on-host-2", 2, spec=HOST, ports=[{"containerPort": 10181}]),
    service("zones", 63, ""),
    service("prefer", 64, "prefer", trafficDistribution="PreferClose"),
    service("prefer-zone", 65, "prefer", trafficDistribution="PreferSameZone"),
    *(pod(f"prefer-{i}", i, "prefer") for i in range(3)),
    service("affine", 66, "echo", sessionAffinity="ClientIP"),
    service("affine-np", 67, "echo", [node_port(HTTP, 30670)], type="NodePort", sessionAffinity="ClientIP"),
    service(
        "brief",
        68,
        "echo",
        [node_port(HTTP, 30680)],
        type="NodePort",
        sessionAffinity="ClientIP",
        sessionAffinityConfig=SHORT,
    ),
    service("named-off", 69, "echo", meta={"labels": PROXY_NAME}),
    service("headless-off", 70, "echo", meta={"labels": HEADLESS}),
    service("left", 71, "echo"),
    service("switches", 72, "echo", [node_port(HTTP, 30720)], type="NodePort"),
    service("loses", 73, "", sessionAffinity="ClientIP"),
]


def slices(lab: World) -> list[dict[str, object]]:
    return [endpoints("zones", *(lab.endpoint(f"echo-{i}", zones=[z]) for i, z in enumerate("aab")))]


@states("itp-local-pod", "itp-local-host-client")
def test_internal_policy_local_keeps_to_the_node(lab: World) -> None:
    target = ("tcp", ip(61), 80)
    for near, far in (("c1", "c2"), ("worker", "worker2")):
        assert lab.at(near).who(target, n=5) == ["itp-1"] * 5
        assert set(lab.at(far).who(target, n=3, timeout=0.3)) <= NO_ANSWER


@states("itp-local-host-backend")
def test_internal_policy_local_with_an_endpoint_on_the_host(lab: World) -> None:
    target = ("tcp", ip(62), 80)
    assert lab.at("c1").who(target, n=5) == ["on-host"] * 5
    for far in ("c2", "worker2"):
        assert set(lab.at(far).who(target, n=3, timeout=0.3)) <= NO_ANSWER


@states("itp-local-host-backend")
def test_a_node_reaches_an_endpoint_on_its_own_host(lab: World) -> None:
    assert lab.at("worker").who(("tcp", ip(62), 80), n=3, timeout=0.3) == ["on-host"] * 3


def test_a_node_reaches_an_endpoint_on_another_host(lab: World) -> None:
    assert lab.at("worker").who(("tcp", ip(74), 80), n=3, timeout=0.3) == ["on-host-2"] * 3


def test_a_pod_reaches_an_endpoint_on_another_host(lab: World) -> None:
    assert lab.at("c1").who(("tcp", ip(74), 80), n=3) == ["on-host-2"] * 3


def close_to(lab: World, last: int, names: list[str]) -> None:
    """Endpoints 0 and 1 in zone a, 2 in zone b, none in zone c; clients 0 and 1 in a, 2 in b, 3 in c."""
    zone_a = set(names[:2])
    for client, wanted in (("c0", zone_a), ("c1", zone_a), ("c2", {names[2]}), ("c3", set(names))):
        assert set(lab.at(client).who(("tcp", ip(last), 80), n=40)) == wanted, client


def test_hints_keep_traffic_in_its_zone(lab: World) -> None:
    close_to(lab, 63, ["echo-0", "echo-1", "echo-2"])


@states("td-prefer-close", "td-prefer-close-multinode")
def test_prefer_close_keeps_traffic_in_its_zone(lab: World) -> None:
    close_to(lab, 64, ["prefer-0", "prefer-1", "prefer-2"])


@states("td-prefer-same-zone", "td-prefer-same-zone-multinode")
def test_prefer_same_zone_keeps_traffic_in_its_zone(lab: World) -> None:
    close_to(lab, 65, ["prefer-0", "prefer-1", "prefer-2"])


@states("affinity-clusterip", "affinity-nodeport")
def test_affinity_keeps_a_client_at_its_pod(lab: World) -> None:
    for client in ("c0", "c1", "c2", "c3", "worker"):
        for target in (("tcp", ip(66), 80), ("tcp", NODE_IPS[2], 30670)):
            found = lab.at(client).who(target, n=15)
            assert len(set(found)) == 1 and set(found) <= ECHO, (client, target, found)
    # Each client outside has a memory of its own, whichever node it asks at; a proxy process sees only the node.
    sources = [f"203.0.113.{i}" for i in range(1, 25)]
    target = ("tcp", NODE_IPS[1], 30670)
    first, second = (lab.at("client").who(target, n=24, sources=sources) for _ in range(2))
    assert first == second and (set(first) == ECHO or lab.mode == "userspace")


@states("affinity-timeout-clusterip", "affinity-timeout-nodeport")
def test_affinity_ends_when_the_client_was_away_for_its_timeout(lab: World) -> None:
    targets = [("tcp", ip(68), 80), ("tcp", NODE_IPS[1], 30680)]
    seen: list[set[str]] = [set(), set()]
    # While it is asked, its time runs anew.
    for turn in range(4):
        for i, target in enumerate(targets):
            seen[i] |= set(lab.at("c2").who(target, n=3))
        time.sleep(0.7 if turn < 3 else 0)
    assert [len(s) for s in seen] == [1, 1], seen
    clients = ["c0", "c1", "c2", "c3"]
    before = {client: lab.at(client).who(*targets) for client in clients}
    changed = [False, False]
    # The kernel keeps a client for a minute more if its time ends while a connection of it is remembered, closed as it
    # may be for ten seconds by then (ip_vs_conn_expire).
    for wait in (75, 75) if lab.mode == "kernel-ipvs" else (3.2,) * 4:
        time.sleep(wait)
        after = {client: lab.at(client).who(*targets) for client in clients}
        for i in (0, 1):
            changed[i] = changed[i] or any(after[c][i] != before[c][i] for c in clients)
        if all(changed):
            break
    assert changed == [True, True]


@states("affinity-switch-clusterip", "affinity-switch-nodeport")
def test_affinity_can_be_switched_on_and_off(lab: World) -> None:
    targets = [("tcp", ip(72), 80), ("tcp", NODE_IPS[1], 30720)]
    ports = [node_port(HTTP, 30720)]
    for affinity in ("ClientIP", "None", "ClientIP"):
        lab.apply(service("switches", 72, "echo", ports, type="NodePort", sessionAffinity=affinity))
        for target in targets:
            found = set(lab.at("c0").who(target, n=40))
            assert found <= ECHO and (len(found) == 1) == (affinity == "ClientIP"), (affinity, found)


def test_affinity_ends_with_its_endpoint_and_others_keep_theirs(lab: World) -> None:
    target, names = ("tcp", ip(73), 80), ["echo-1", "echo-2", "echo-3"]
    clients = ["c0", "c1", "c2", "c3"]
    lab.apply(endpoints("loses", *(lab.endpoint(n) for n in names)))
    lab.at("c0").until(target, names)
    chosen = {client: lab.at(client).who(target, n=3)[-1] for client in clients}
    gone = chosen["c0"]
    lab.apply(endpoints("loses", *(lab.endpoint(n) for n in names if n != gone)))
    lab.at("c0").until(target, set(names) - {gone})
    for client in clients:
        found = set(lab.at(client).who(target, n=5))
        assert len(found) == 1 and gone not in found and (chosen[client] == gone or found == {chosen[client]})


@pytest.mark.parametrize(("last", "label"), [(69, PROXY_NAME), (70, HEADLESS)], ids=["proxy-name", "headless"])
@states("service-proxy-name", "headless-label")
def test_a_label_leaves_a_service_to_others(lab: World, last: int, label: dict[str, str]) -> None:
    other, target = ("tcp", ip(last), 80), ("tcp", ip(71), 80)
    assert set(lab.at("c0").who(other, n=3)) <= NO_ANSWER
    assert lab.at("c0").who(target)[0] in ECHO
    lab.apply(service("left", 71, "echo", meta={"labels": label}))
    lab.at("c0").until(target, NO_ANSWER)
    # Applying adds labels and takes none away, so the Service is made anew without.
    lab.delete("Service/left")
    lab.apply(service("left", 71, "echo"))
    lab.at("c0").until(target, ECHO)
    assert set(lab.at("c0").who(other, n=3)) <= NO_ANSWER

"""Endpoints that are not ready, that end, and that become what they were not."""

from __future__ import annotations

from statistics import median

from services.world import (
    API,
    ECHO,
    FLOWS,
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

PROBE = {"readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}}
ENDING = {"ready": False, "serving": True, "terminating": True}
UNREADY = {"ready": False, "serving": False, "terminating": False}
OBJECTS = [
    service("flips", 51),
    pod("flips", 1, container=PROBE),
    pod("steady", 2, "flips"),
    service("publishes", 52, publishNotReadyAddresses=True),
    service("ending", 53, "", [node_port(HTTP, 30530)], type="NodePort"),
    service("ending-itp", 54, "", internalTrafficPolicy="Local"),
    service("ending-etp", 55, "", [node_port(HTTP, 30550)], type="NodePort", externalTrafficPolicy="Local"),
    service("some-end", 56, ""),
    service("unready", 57, "", [node_port(HTTP, 30570)], type="NodePort"),
    service("hinted", 58, ""),
]


def slices(lab: World) -> list[dict[str, object]]:
    ending = lab.endpoint("echo-1", **ENDING)
    return [
        *(endpoints(name, ending) for name in ("ending", "ending-itp", "ending-etp")),
        endpoints("some-end", ending, lab.endpoint("echo-2")),
        endpoints("unready", lab.endpoint("echo-1", **{**UNREADY, "terminating": True})),
    ]


def test_new_connections_follow_a_verdict_within_a_tenth_of_a_second(lab: World) -> None:
    target, flips, delays = ("tcp", ip(51), 80), 8, []
    lab.at("c0").until(target, "flips")
    lab.at("c0").begin("watch", api=API, pod="flips", target=target, flips=flips)
    for turn in range(flips):
        path = "/healthy" if turn % 2 else "/unhealthy"
        lab.at("worker").do("post", address=lab.ips["flips"], port=8080, path=path)
        lab.eventually(lambda turn=turn: _is_ready(lab, "flips") == bool(turn % 2))  # type: ignore[misc]
    log = lab.at("c0").end()
    verdicts = [(at, what) for at, what, _ in log if what != "answer"][1:]
    assert [what for _, what in verdicts] == ["unready", "ready"] * (flips // 2)
    ends = [at for at, _ in verdicts[1:]] + [log[-1][0] + 1]
    for (at, what), end in zip(verdicts, ends, strict=True):
        answers = [(when, name) for when, kind, name in log if kind == "answer" and at < when < end]
        assert {name for _, name in answers} <= {"flips", "steady"}
        moved = [when for when, name in answers if name == "flips"]
        # Unready: the last that still reached it. Ready: the first that did, of which each has an even chance.
        delays.append((min(moved) if what == "ready" else max(moved, default=at)) - at)
    print("seconds from each verdict until connections heeded it:", [round(d, 4) for d in delays])
    # A kernel's tables are written by a program that is started for it.
    assert median(delays) < (0.1 if lab.mode in FLOWS else 0.5), delays


def _is_ready(lab: World, name: str) -> bool:
    found = lab.get("Pod", name)
    assert found is not None
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"]["conditions"])


@states("publish-not-ready")
def test_a_service_may_publish_pods_that_are_not_ready(lab: World) -> None:
    never = {"readinessProbe": {"tcpSocket": {"port": 9}, "periodSeconds": 100}}
    lab.apply(pod("publishes", 1, container=never), wait=False)
    target = ("tcp", ip(52), 80)
    lab.at("c0").until(target, "publishes")
    lab.apply(service("publishes", 52, publishNotReadyAddresses=False), wait=False)
    lab.at("c0").until(target, NO_ANSWER)
    lab.apply(service("publishes", 52, publishNotReadyAddresses=True), wait=False)
    lab.at("c0").until(target, "publishes")
    lab.delete("Pod/publishes")


@states("terminating-unready-not-published")
def test_an_unready_endpoint_that_ends_serves_nobody(lab: World) -> None:
    for client in ("c1", "c3"):
        assert lab.at(client).who(("tcp", ip(57), 80)) == ["refused"]
        for address in NODE_IPS[:2]:
            assert lab.at(client).who(("tcp", address, 30570), timeout=0.3)[0] in NO_ANSWER


@states("terminating-unready-published")
def test_published_endpoints_serve_whatever_else_they_are(lab: World) -> None:
    lab.apply(endpoints("unready", lab.endpoint("echo-1", ready=True, serving=False, terminating=True)))
    for client in ("c1", "c3"):
        lab.at(client).until(("tcp", ip(57), 80), "echo-1")
        for address in NODE_IPS[:2]:
            assert lab.at(client).who(("tcp", address, 30570)) == ["echo-1"]
    lab.apply(*slices(lab)[-1:])


@states("fallback-terminating-itp-cluster", "fallback-terminating-etp-cluster")
def test_endpoints_that_end_serve_where_nobody_else_is(lab: World) -> None:
    for client in ("c0", "c1", "c2"):
        assert lab.at(client).who(("tcp", ip(53), 80), n=3) == ["echo-1"] * 3
        for address in NODE_IPS:
            assert lab.at(client).who(("tcp", address, 30530)) == ["echo-1"]
    assert lab.at("client").who(("tcp", NODE_IPS[2], 30530)) == ["echo-1"]
    # A ready one is preferred.
    assert set(lab.at("c0").who(("tcp", ip(56), 80), n=20)) == {"echo-2"}


@states("fallback-terminating-itp-local")
def test_a_local_endpoint_that_ends_serves_its_node_under_internal_policy_local(lab: World) -> None:
    assert lab.at("c1").who(("tcp", ip(54), 80), n=3) == ["echo-1"] * 3
    assert lab.at("c2").who(("tcp", ip(54), 80), timeout=0.3)[0] in NO_ANSWER


@states("fallback-terminating-etp-local")
def test_a_local_endpoint_that_ends_serves_its_nodes_port_under_external_policy_local(lab: World) -> None:
    for client in ("c1", "c2", "client"):
        assert lab.at(client).who(("tcp", NODE_IPS[1], 30550)) == ["echo-1"]
    for client in ("c1", "client"):
        assert lab.at(client).who(("tcp", NODE_IPS[2], 30550), timeout=0.3)[0] in NO_ANSWER


def test_a_changed_condition_moves_new_connections(lab: World) -> None:
    target = ("tcp", ip(58), 80)
    for name in ("echo-1", "echo-2", "echo-3"):
        lab.apply(endpoints("hinted", lab.endpoint(name), lab.endpoint("echo-0", **UNREADY)))
        lab.at("c0").until(target, name)
        assert set(lab.at("c0").who(target, n=10)) == {name} <= ECHO

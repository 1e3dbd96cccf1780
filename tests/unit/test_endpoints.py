"""EndpointSlices hold the pods of a Service with the conditions and ports that Kubernetes gives them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.cluster.store import Object
from topo.control.endpoints import HEADLESS, MANAGED_BY, MOST, OURS, SERVICE_NAME, behind, slices


def service(*ports: dict[str, Any], **spec: Any) -> Object:
    return {
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": list(ports) or [{"port": 80}], **spec},
    }


def pod(
    number: int = 1,
    ready: bool = True,
    ending: bool = False,
    ports: list[dict[str, Any]] | None = None,
    **spec: Any,
) -> Object:
    """Pod p001, p002, ... with an address of its own."""
    thing: Object = {
        "kind": "Pod",
        "metadata": {"name": f"p{number:03}", "namespace": "shop", "labels": {"app": "web", "more": "x"}},
        "spec": {"nodeName": f"n{number % 3}", "containers": [{"name": "c", "ports": ports or []}], **spec},
        "status": {
            "phase": "Running",
            "podIP": f"10.244.{number // 256}.{number % 256}",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }
    if ending:
        thing["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
    return thing


def addresses(found: list[Object]) -> list[list[str]]:
    return [[e["addresses"][0] for e in one["endpoints"]] for one in found]


def numbers(one: Object) -> dict[str, int]:
    return {port["name"]: port["port"] for port in one["ports"]}


def test_a_slice_tells_of_its_service_its_ports_and_its_pods() -> None:
    assert slices(service({"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}), [pod(1)]) == [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "web-0",
                "namespace": "shop",
                "labels": {SERVICE_NAME: "web", MANAGED_BY: OURS},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            "endpoints": [
                {
                    "addresses": ["10.244.0.1"],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "nodeName": "n1",
                    "targetRef": {"kind": "Pod", "name": "p001", "namespace": "shop"},
                }
            ],
        }
    ]


@pytest.mark.parametrize("publish", [False, True])
@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("ending", [False, True])
def test_conditions_follow_readiness_termination_and_publishing(publish: bool, ready: bool, ending: bool) -> None:
    (one,) = slices(service(publishNotReadyAddresses=publish), [pod(ready=ready, ending=ending)])
    assert one["endpoints"][0]["conditions"] == {
        "ready": publish or (ready and not ending),
        "serving": ready,
        "terminating": ending,
    }


def test_a_pod_that_has_said_nothing_of_its_readiness_is_not_ready() -> None:
    silent = pod()
    del silent["status"]["conditions"]
    (one,) = slices(service(), [silent])
    assert one["endpoints"][0]["conditions"]["ready"] is False


@pytest.mark.parametrize(
    "made",
    [
        service(selector=None),
        service(selector={}),
        service(type="ExternalName", externalName="example.org"),
        {"kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}},
    ],
)
def test_without_a_selector_or_with_an_external_name_there_are_none(made: Object) -> None:
    assert slices(made, [pod()]) == []


def test_a_service_without_pods_has_no_slice() -> None:
    assert slices(service(), []) == []


def test_pods_of_other_namespaces_and_labels_are_left_out() -> None:
    elsewhere, other, partly = pod(1), pod(2), pod(3)
    elsewhere["metadata"]["namespace"] = "default"
    other["metadata"]["labels"] = {"app": "db"}
    del partly["metadata"]["labels"]["more"]
    made = service(selector={"app": "web", "more": "x"})
    assert addresses(slices(made, [elsewhere, other, partly, pod(4)])) == [["10.244.0.4"]]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_pods_that_ended_are_left_out(phase: str) -> None:
    ended = pod()
    ended["status"]["phase"] = phase
    assert slices(service(publishNotReadyAddresses=True), [ended]) == []


def test_pods_without_an_address_are_left_out() -> None:
    made, placed = pod(1), pod(2)
    del made["status"]
    del placed["status"]["podIP"]
    assert slices(service(), [made, placed]) == []


def test_the_target_port_is_the_port_unless_it_is_given() -> None:
    (one,) = slices(service({"name": "a", "port": 80}, {"name": "b", "port": 81, "targetPort": 9000}), [pod()])
    assert numbers(one) == {"a": 80, "b": 9000}


def test_protocols_are_kept_and_tcp_by_default() -> None:
    (one,) = slices(service({"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53}), [pod()])
    assert [(p["name"], p["protocol"]) for p in one["ports"]] == [("a", "UDP"), ("b", "TCP")]


def test_a_named_target_port_is_that_of_the_pod() -> None:
    named = [{"name": "metrics", "containerPort": 9100}, {"name": "http", "containerPort": 8080}]
    (one,) = slices(service({"port": 80, "targetPort": "http"}), [pod(ports=named)])
    assert numbers(one) == {"": 8080}


def test_a_named_target_port_of_another_container_is_found_too() -> None:
    two = pod()
    two["spec"]["containers"].append({"name": "d", "ports": [{"name": "http", "containerPort": 8081}]})
    (one,) = slices(service({"port": 80, "targetPort": "http"}), [two])
    assert numbers(one) == {"": 8081}


def test_pods_whose_named_port_differs_are_in_slices_of_their_own() -> None:
    old, new = [[{"name": "http", "containerPort": number}] for number in (8080, 9090)]
    made = service({"name": "http", "port": 80, "targetPort": "http"}, {"name": "fixed", "port": 443})
    found = slices(made, [pod(1, ports=old), pod(2, ports=new), pod(3, ports=old)])
    assert [numbers(one) for one in found] == [{"http": 8080, "fixed": 443}, {"http": 9090, "fixed": 443}]
    assert addresses(found) == [["10.244.0.1", "10.244.0.3"], ["10.244.0.2"]]
    assert [one["metadata"]["name"] for one in found] == ["web-0", "web-1"]


def test_a_named_port_must_be_of_the_services_protocol() -> None:
    both = [
        {"name": "dns", "containerPort": 5353, "protocol": "TCP"},
        {"name": "dns", "containerPort": 5300, "protocol": "UDP"},
    ]
    (one,) = slices(service({"port": 53, "targetPort": "dns", "protocol": "UDP"}), [pod(ports=both)])
    assert numbers(one) == {"": 5300}


def test_a_port_whose_name_a_pod_lacks_is_left_out_for_that_pod() -> None:
    made = service({"name": "http", "port": 80, "targetPort": "http"}, {"name": "fixed", "port": 443})
    (one,) = slices(made, [pod()])
    assert numbers(one) == {"fixed": 443}


def test_a_headless_service_has_slices_too() -> None:
    assert addresses(slices(service(clusterIP="None"), [pod()])) == [["10.244.0.1"]]


def test_a_headless_service_without_ports_has_its_pods() -> None:
    made = service(clusterIP="None")
    del made["spec"]["ports"]
    (one,) = slices(made, [pod()])
    assert one["ports"] == []
    assert addresses([one]) == [["10.244.0.1"]]


def test_a_pods_hostname_is_told_in_the_service_that_is_its_subdomain() -> None:
    pods = [pod(1, hostname="web-0", subdomain="web"), pod(2), pod(3, hostname="web-0", subdomain="other")]
    (one,) = slices(service(clusterIP="None"), pods)
    assert [e.get("hostname") for e in one["endpoints"]] == ["web-0", None, None]
    assert one["metadata"]["labels"] == {SERVICE_NAME: "web", MANAGED_BY: OURS, HEADLESS: ""}


def test_a_port_of_a_sidecar_is_found_by_name() -> None:
    beside = {"name": "s", "restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15001}]}
    done = {"name": "i", "ports": [{"name": "proxy", "containerPort": 1}]}
    (one,) = slices(service({"port": 80, "targetPort": "proxy"}), [pod(1, initContainers=[done, beside])])
    assert numbers(one) == {"": 15001}


NODES = {
    "n0": {"kind": "Node", "metadata": {"name": "n0"}},
    "n1": {"kind": "Node", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}}},
}
BY_ZONE, BY_NODE = {"forZones": [{"name": "a"}]}, {"forNodes": [{"name": "n0"}]}


@pytest.mark.parametrize(
    ("wish", "hints"),
    [
        (None, [None, None]),
        ("PreferClose", [BY_ZONE, None]),
        ("PreferSameZone", [BY_ZONE, None]),
        ("PreferSameNode", [{**BY_ZONE, "forNodes": [{"name": "n1"}]}, BY_NODE]),
    ],
)
def test_hints_follow_the_wish_for_closeness(wish: str | None, hints: list[Any]) -> None:
    (one,) = slices(service(trafficDistribution=wish), [pod(1), pod(3)], NODES)
    assert [e.get("hints") for e in one["endpoints"]] == hints
    assert [e.get("zone") for e in one["endpoints"]] == ["a", None]


def test_only_ready_endpoints_have_hints() -> None:
    (one,) = slices(service(trafficDistribution="PreferClose"), [pod(1, ready=False), pod(4, ending=True)], NODES)
    assert all("hints" not in e and e["zone"] == "a" for e in one["endpoints"])


@pytest.mark.parametrize(("count", "sizes"), [(100, [100]), (101, [100, 1]), (250, [100, 100, 50])])
def test_more_than_a_hundred_pods_are_split(count: int, sizes: list[int]) -> None:
    found = slices(service(), [pod(i) for i in range(1, count + 1)])
    assert [len(one["endpoints"]) for one in found] == sizes
    assert [one["metadata"]["name"] for one in found] == [f"web-{i}" for i in range(len(sizes))]


PODS = st.lists(
    st.builds(
        lambda number, ready, ending, port: pod(number, ready, ending, [{"name": "http", "containerPort": port}]),
        st.integers(1, 400),
        st.booleans(),
        st.booleans(),
        st.sampled_from([8080, 9090]),
    ),
    max_size=300,
    unique_by=lambda p: str(p["metadata"]["name"]),
)


@given(PODS, st.randoms())
@settings(max_examples=30, deadline=None)
def test_every_pod_is_in_exactly_one_slice_whatever_the_order(pods: list[Object], rng: Any) -> None:
    made = service({"port": 80, "targetPort": "http"})
    found = slices(made, pods)
    listed = [ip for group in addresses(found) for ip in group]
    assert sorted(listed) == sorted(p["status"]["podIP"] for p in pods)
    assert all(0 < len(one["endpoints"]) <= MOST for one in found)
    port_of = {p["status"]["podIP"]: p["spec"]["containers"][0]["ports"][0]["containerPort"] for p in pods}
    assert all(numbers(one) == {"": port_of[e["addresses"][0]]} for one in found for e in one["endpoints"])
    assert len({one["metadata"]["name"] for one in found}) == len(found)
    rng.shuffle(pods)
    assert slices(made, pods) == found


def test_a_service_is_behind_until_its_slices_have_its_ready_pods() -> None:
    pods, web = [pod(1), pod(2), pod(3, ready=False)], service()
    said = ["Service web does not have all of its 2 ready pods yet"]
    assert behind([web], lambda _: pods, {}, []) == said
    assert behind([web], lambda _: pods, {}, slices(web, pods[:1])) == said
    assert behind([web], lambda _: pods, {}, slices(web, [pod(1), pod(2, ready=False)])) == said
    assert behind([web], lambda _: pods, {}, slices(web, pods)) == []
    assert behind([service(selector=None)], lambda _: pods, {}, []) == []
    others = slices(service(), pods)
    others[0]["metadata"]["namespace"] = "elsewhere"
    assert behind([web], lambda _: pods, {}, others) == said

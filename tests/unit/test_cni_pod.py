"""What plugins are told of a pod: CNI_ARGS, and the capability arguments of its ports and annotations."""

from __future__ import annotations

from typing import Any

import pytest

from topo.cni import pod
from topo.cni.conf import NAME
from topo.cni.pod import BadPod

UID = "0b1f2e3d-0000-4000-8000-000000000001"


def thing(ports: list[dict[str, Any]] | None = None, uid: str = UID) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": "a", "namespace": "n", "uid": uid, "annotations": {}}
    return {"kind": "Pod", "metadata": meta, "spec": {"containers": [{"name": "c", "ports": ports or []}]}}


def annotated(key: str, value: str) -> dict[str, Any]:
    found = thing()
    found["metadata"]["annotations"][key] = value
    return found


def test_args_are_those_of_a_kubelets_runtime() -> None:
    assert pod.args(thing()) == {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": "n",
        "K8S_POD_NAME": "a",
        "K8S_POD_INFRA_CONTAINER_ID": UID,
        "K8S_POD_UID": UID,
    }


def test_a_pod_without_wishes_has_nothing_to_say() -> None:
    assert pod.capabilities(thing([{"containerPort": 80, "protocol": "TCP"}])) == {}


def test_host_ports_become_mappings() -> None:
    ports = [
        {"containerPort": 80, "hostPort": 8080, "protocol": "TCP"},
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "172.18.0.3"},
        {"containerPort": 81},
    ]
    assert pod.capabilities(thing(ports))["portMappings"] == [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "172.18.0.3"},
    ]


@pytest.mark.parametrize(
    ("text", "rate", "burst"),
    [
        ("10M", 10_000_000, 1_000_000),
        ("1k", 1000, 524_288),
        ("1.5G", 1_500_000_000, 150_000_000),
        ("2Mi", 2_097_152, 524_288),
        ("1P", 10**15, 2**31 - 1),
    ],
)
def test_rates_are_quantities_and_bursts_a_tenth_of_a_second(text: str, rate: int, burst: int) -> None:
    assert pod.capabilities(annotated(pod.INGRESS, text))["bandwidth"] == {"ingressRate": rate, "ingressBurst": burst}
    assert pod.capabilities(annotated(pod.EGRESS, text))["bandwidth"] == {"egressRate": rate, "egressBurst": burst}


@pytest.mark.parametrize("text", ["", "fast", "10MM", "999", "2P", "-5M", "1e9999999M", "NaN"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(BadPod, match=r"annotation kubernetes.io/ingress-bandwidth: .* is no rate; expected bit/s"):
        pod.capabilities(annotated(pod.INGRESS, text))


def test_an_address_and_a_mac_can_be_asked_for() -> None:
    assert pod.capabilities(annotated(pod.WANTED_IP, '["10.244.1.9"]')) == {"ips": ["10.244.1.9"]}
    assert pod.capabilities(annotated(pod.WANTED_MAC, "0a:58:00:00:00:09")) == {"mac": "0a:58:00:00:00:09"}
    for text in ("10.244.1.9", "[]", '["x"]', "{}"):
        with pytest.raises(BadPod, match="is no JSON list with an address"):
            pod.capabilities(annotated(pod.WANTED_IP, text))


@pytest.mark.parametrize("uid", [UID, "a", "-a", "x y", "", "é"])
def test_whatever_the_uid_there_is_a_container_id(uid: str) -> None:
    assert NAME.fullmatch(pod.container_id(thing(uid=uid)))

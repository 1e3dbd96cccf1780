"""What a lab refuses because of what it has already."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from topo.admission import check, check_change
from topo.cluster.errors import InputError
from topo.cluster.store import Object

NETWORK = IPv4Network("10.96.0.0/16")


def service(name: str = "web", *ports: dict[str, Any], **spec: Any) -> Object:
    meta = {"name": name, "namespace": "default"}
    return {"kind": "Service", "metadata": meta, "spec": {"ports": list(ports) or [{"port": 80}], **spec}}


def admit(*objects: Object, there: tuple[Object, ...] = ()) -> None:
    check(objects, ["n1"], NETWORK, there)


TAKEN = service("old", {"port": 80, "nodePort": 30080}, type="LoadBalancer", healthCheckNodePort=30081)


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (
            service("new", {"port": 1, "nodePort": 30080}, type="NodePort"),
            r"ports\[0\].nodePort: 30080: the port is al",
        ),
        (service("new", {"port": 1, "nodePort": 30081}, type="NodePort"), "already allocated, to Service default/old"),
        (service("new", type="LoadBalancer", healthCheckNodePort=30080), "healthCheckNodePort: 30080: the port is al"),
        (service("new", {"port": 1, "nodePort": 29999}, type="NodePort"), "out of range; expected 30000 to 32767"),
        (service("new", type="LoadBalancer", healthCheckNodePort=32768), "out of range"),
    ],
)
def test_ports_of_nodes_are_of_the_range_and_belong_to_one_service(made: Object, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        admit(made, there=(TAKEN,))


def test_a_service_may_name_its_own_port_again_and_for_two_protocols() -> None:
    admit(TAKEN, there=(TAKEN,))
    ports = [{"name": p, "port": 53, "protocol": p, "nodePort": 30053} for p in ("TCP", "UDP")]
    admit(service("dns", *ports, type="NodePort"))
    with pytest.raises(InputError, match="already allocated"):
        admit(service("a", ports[0], type="NodePort"), service("b", ports[1], type="NodePort"))


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        ({"clusterIP": "10.96.0.9"}, {}, True),
        ({"clusterIP": "10.96.0.9"}, {"clusterIP": "10.96.0.9"}, True),
        ({"clusterIP": "10.96.0.9"}, {"clusterIP": "10.96.0.8"}, False),
        ({"clusterIP": "10.96.0.9"}, {"clusterIP": "None"}, False),
        ({"clusterIP": "None"}, {"type": "NodePort"}, False),
        ({"clusterIP": "None"}, {"type": "ExternalName"}, True),
        ({"clusterIP": "10.96.0.9"}, {"type": "ExternalName"}, True),
        ({"type": "ExternalName"}, {"clusterIP": "10.96.0.8"}, True),
    ],
)
def test_an_address_is_for_life(old: dict[str, Any], new: dict[str, Any], allowed: bool) -> None:
    if allowed:
        check_change(service(**old), service(**new))
    else:
        with pytest.raises(InputError, match=r"spec\.clusterIP"):
            check_change(service(**old), service(**new))


def test_a_program_may_be_run_for_an_init_container() -> None:
    spec = {"containers": [{"name": "c"}], "initContainers": [{"name": "first"}]}
    pod = {
        "kind": "Pod",
        "metadata": {"name": "p", "annotations": {"mininetes.dev/command.first": "true"}},
        "spec": spec,
    }
    admit(pod)
    pod["metadata"]["annotations"] = {"mininetes.dev/command.other": "true"}  # type: ignore[index]
    with pytest.raises(InputError, match="there is no container 'other'"):
        admit(pod)

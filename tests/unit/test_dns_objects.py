"""What a lab's DNS consists of, and how a lab file or an option decides about it."""

from __future__ import annotations

import shlex
from ipaddress import IPv4Network

import pytest

from scenarios.lab import assemble
from topo import labfile
from topo.addons.dns.objects import missing, objects
from topo.cluster.errors import InputError
from topo.cluster.wiring import COMMAND

HEAD = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"
SERVICES = IPv4Network("10.2.0.0/20")


def test_two_pods_behind_the_tenth_address() -> None:
    _, service, deployment = objects(SERVICES, "172.18.0.1")
    assert (service["metadata"]["name"], service["spec"]["clusterIP"]) == ("kube-dns", "10.2.0.10")
    assert deployment["spec"]["replicas"] == 2
    template = deployment["spec"]["template"]
    command = shlex.split(template["metadata"]["annotations"][COMMAND])
    assert command[1:] == ["-m", "topo.addons.dns", "--upstream", "172.18.0.1"]
    assert template["metadata"]["labels"] == service["spec"]["selector"]


def test_the_users_own_objects_win() -> None:
    own = {"kind": "Deployment", "metadata": {"name": "coredns", "namespace": "kube-system"}}
    assert [o["kind"] for o in missing([own], SERVICES, "x")] == ["Namespace", "Service"]


def test_the_lab_file_decides() -> None:
    config = labfile.default_config(2)
    assert config.dns and len(assemble.dns(config, [])) == 3
    assert assemble.dns(config, [])[1]["metadata"]["annotations"]["mininetes.dev/node-resolver"] == "172.18.0.1"
    without = labfile.parse(f"{HEAD}mininetes: {{dns: false}}\n", "f.yaml").config
    assert assemble.dns(without, []) == []
    other = labfile.parse(f'{HEAD}mininetes: {{dnsUpstream: "192.0.2.1:5353"}}\n', "f.yaml").config
    assert "192.0.2.1:5353" in str(assemble.dns(other, []))


@pytest.mark.parametrize("value", ["x", '"192.0.2.1:"', '"192.0.2.1:0"', '"192.0.2.1:70000"', '"::1"'])
def test_an_upstream_that_is_none(value: str) -> None:
    with pytest.raises(InputError, match=r"f.yaml:3: mininetes.dnsUpstream"):
        labfile.parse(f"{HEAD}mininetes: {{dnsUpstream: {value}}}\n", "f.yaml")

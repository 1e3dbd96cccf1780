"""The evaluator agrees with every case of tests/data/policy: Kubernetes' own suite, recipes, pages, a generator."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

import policy_world
import pytest

from controllers.policy.evaluate import judge
from scenarios.netpol import labs
from scenarios.netpol.cases import Case, PodSpec, World, load, parse
from topo import fabric, labfile

DATA = Path(__file__).parents[1] / "data" / "policy"
FILES = sorted(DATA.rglob("*.json"))
CASES = [case for file in FILES for case in load(file)]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.file}: {c.name}"[:90])
def test_the_evaluator_expects_what_the_case_expects(case: Case) -> None:
    world = World.of(case.cluster)
    ports = next((p.ports for p in case.cluster.pods.values()), ())
    for number, step in enumerate(case.steps):
        world.change(step.raw, ports)
        cluster = policy_world.cluster(world)
        ends = {name: policy_world.end(cluster, name) for p in step.scored for name in (p.source, p.target)}
        differs = {
            str(probe): judge(cluster, ends[probe.source], ends[probe.target], probe.protocol, probe.port)
            for probe, allowed in step.scored.items()
            if judge(cluster, ends[probe.source], ends[probe.target], probe.protocol, probe.port).allowed != allowed
        }
        assert not differs, f"step {number + 1}"


def test_every_case_scores_something() -> None:
    assert all(step.scored for case in CASES for step in case.steps)
    assert len(CASES) == 30 + 60 + 26 + 3 + 48 * 2 + 20 + 15
    assert sum(len(step.scored) for case in CASES for step in case.steps) > 40_000


def test_cases_of_other_addresses_get_a_lab_of_theirs() -> None:
    config = labfile.default_config(4)
    own, other = labs.grouped(CASES, config)
    assert own[0] is config
    assert {case.file for case in other[1]} == {"cases.json"} and len(other[1]) == 20 + 3
    networks = [fabric.pod_cidr(other[0], i) for i in range(4)]
    assert str(other[0].pod_subnet) == "192.168.0.0/16" and str(networks[3]) == "192.168.192.0/18"
    assert all(labs.fits(case, networks) for case in other[1])


def test_a_pod_listens_where_it_is_asked() -> None:
    (case,) = (c for c in CASES if c.name == "multiport allow egress port")
    assert ("", "TCP", 30080) in case.cluster.pods["bar/b"].ports


def test_a_pod_may_be_an_object_with_ports_and_an_address_of_its_own() -> None:
    pod = {"labels": {"app": "a"}, "ip": "10.244.1.9", "ports": [{"name": "web", "protocol": "TCP", "port": 80}]}
    host = pod | {"ip": "172.18.0.3", "hostNetwork": True}
    steps = [{"create_pod": {"x/b": pod | {"ip": "10.244.2.9"}}, "probes": []}, {"label_pod": {"x/a": {"app": "c"}}}]
    case = {
        "name": "n",
        "cluster": {"namespaces": {"x": {}}, "pods": {"x/a": pod, "x/h": host}},
        "steps": steps,
        "depends_on_pod_ips": True,
    }
    (found,) = parse(json.dumps({"cases": [case]}), "f.json")
    assert found.needs_addresses and found.cluster.pods["x/h"].host_network
    world = World.of(found.cluster)
    for step in steps:
        world.change(step)
    assert world.pods["x/a"] == PodSpec({"app": "c"}, (("web", "TCP", 80),), "10.244.1.9")
    assert world.pods["x/b"].ip == "10.244.2.9"
    assert labs.fits(found, [IPv4Network("10.244.0.0/16")]) and not labs.fits(found, [IPv4Network("10.9.0.0/16")])

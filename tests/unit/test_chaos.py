"""The plan of a chaos is a function of seed and shape, and what an audit reads says what is wrong."""

from __future__ import annotations

import os
import random
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest

from controllers.flow.fields import ip_number, ip_text
from controllers.policy import read
from controllers.policy.evaluate import Cluster
from controllers.policy.model import Pod
from scenarios.chaos import SCENARIO
from scenarios.disorder import audit, manifests, reach
from scenarios.disorder.census import ENDED, LAB, census
from scenarios.disorder.deeds import _DEEDS
from scenarios.disorder.growth import MEASURES, Rest, leaks, slope
from scenarios.disorder.plan import CHANGES, FAULTS, ROUND, Change, Shape, is_rest, steps
from scenarios.lab.assemble import Choices, parts
from scenarios.netpol.prober_client import Prober
from topo.cluster.errors import InputError
from topo.lab import Lab
from topo.labfile import default_config

SHAPE = Shape(
    ("control-plane", "worker", "worker2"),
    ("leaf-1", "leaf-2", "spine-1", "spine-2"),
    tuple((leaf, spine) for leaf in ("leaf-1", "leaf-2") for spine in ("spine-1", "spine-2")),
    ("worker",),
    manifests.WORKLOADS,
)
FLOWS = """ cookie=0x6d00000000000001, duration=1s, table=0, n_packets=0, n_bytes=0, actions=drop
 cookie=0x6c00000000000002, duration=1s, table=25, n_packets=0, n_bytes=0, actions=drop
 cookie=0x0, duration=1s, table=7, n_packets=0, n_bytes=0, actions=drop
"""


def test_a_seed_gives_the_same_steps_and_another_gives_others() -> None:
    one = steps(7, SHAPE, 200, FAULTS)
    assert one == steps(7, SHAPE, 200, FAULTS)
    assert one != steps(8, SHAPE, 200, FAULTS)
    assert one[:50] == steps(7, SHAPE, 50, FAULTS)


def test_every_kind_comes_as_often_as_any_other_and_only_where_there_is_something_to_break() -> None:
    found = steps(1, SHAPE, 14 * 10, FAULTS)
    assert {fault: sum(step.fault == fault for step in found) for fault in FAULTS} == dict.fromkeys(FAULTS, 10)
    assert {change.kind for step in found for change in step.changes} == set(CHANGES)
    assert {step.target for step in found if step.fault == "BIRD killed"} == {("worker",)}
    assert not [s for s in found if s.fault == "node replaced" and s.target == ("control-plane",)]
    without = steps(1, replace(SHAPE, birds=(), links=()), 100, FAULTS)
    assert not [step for step in without if step.fault in ("BIRD killed", "link cut")]
    assert {step.fault for step in steps(1, SHAPE, 20, {"pod killed"})} == {"pod killed"}


def test_all_is_as_in_the_beginning_again_after_each_round_and_at_the_end() -> None:
    found = steps(1, SHAPE, 2 * ROUND + 3, FAULTS)
    assert [s.number for s in found if is_rest(s, len(found))] == [ROUND, 2 * ROUND, 2 * ROUND + 3]


def test_every_kind_of_failure_and_change_can_be_done() -> None:
    assert _DEEDS.keys() == FAULTS.keys()
    (deployment,) = [thing for thing in manifests.at_rest() if thing["metadata"]["name"] == "web"][:1]
    (scaled,) = manifests.made_by(Change("scale", "web", 0), deployment)
    assert scaled["spec"]["replicas"] == 0
    (rolled,) = manifests.made_by(Change("roll", "web", 5), scaled)
    assert rolled["spec"]["replicas"] == 0 and rolled["spec"]["template"] != deployment["spec"]["template"]
    for kind in ("service", "policy"):
        (made,) = manifests.made_by(Change(kind, "web", 1), deployment)
        name = (made["kind"], made["metadata"]["name"])
        assert manifests.removed_by(Change(kind, "web", 0)) == [name] and name in manifests.extras()
        assert (
            manifests.made_by(Change(kind, "web", 0), deployment) == manifests.removed_by(Change(kind, "web", 1)) == []
        )


def test_the_lab_is_one_with_bird_unless_the_users_own_is_wanted() -> None:
    config = replace(default_config(3), cni="weave", scenario=SCENARIO.options)
    assert SCENARIO.plan(config)[0].cni == "calico"
    assert parts(SCENARIO.plan(config)[0], Choices())
    assert SCENARIO.plan(replace(config, scenario={**SCENARIO.options, "lab": "own"}))[0].cni == "weave"
    for key, value in (("lab", "other"), ("lab", "bird,own"), ("kinds", "rain"), ("steps", "0"), ("steps", "1,2")):
        with pytest.raises(InputError, match=f"--option {key}="):
            SCENARIO.plan(replace(config, scenario={**SCENARIO.options, key: value}))
    with pytest.raises(InputError, match="--nodes"):
        SCENARIO.plan(replace(default_config(1), scenario=SCENARIO.options))


def test_flows_are_known_by_table_and_cookie_and_learned_ones_are_the_switchs_own() -> None:
    assert list(audit.held(FLOWS)) == [(0, 0x6D00000000000001), (7, 0)]
    assert audit.buckets(" group_id=7,type=select,bucket=x,bucket=y\n group_id=8,type=select\n") == {7: 2, 8: 0}


def test_addresses_and_interfaces_are_read_from_what_keeps_them(tmp_path: Path) -> None:
    network = tmp_path / "mininetes"
    network.mkdir()
    for name in ("10.244.0.2", "lock", "last_reserved_ip.0"):
        (network / name).write_text("")
    assert list(audit.reservations(tmp_path)) == ["10.244.0.2"]
    assert list(audit.veths("a\nb\n  eth0: 1 2\nveth12ab: 0 0\n")) == ["veth12ab"]


def test_a_pod_that_is_assigned_and_not_yet_made_is_one_without_an_address(tmp_path: Path) -> None:
    pod = {"metadata": {"namespace": "default", "name": "new"}, "spec": {"nodeName": "worker"}}
    lab = create_autospec(Lab, instance=True)
    lab.run, lab.nodes = tmp_path, {"worker": SimpleNamespace()}
    lab.nodes["worker"].name = "worker"
    lab.store = SimpleNamespace(list=lambda *_: [pod])
    assert list(audit.addresses(lab)) == ["worker is missing: address (none yet) of default/new"]


def test_a_process_that_ended_and_was_not_waited_for_is_counted() -> None:
    before = census(Path("/proc"))
    assert before[LAB] == [os.getpid()]
    child = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert child.pid in census(Path("/proc"))[ENDED]
    finally:
        child.wait()


def rest(step: int, memory: float, files: float = 0, **processes: float) -> Rest:
    had: dict[str, dict[str, float]] = {measure: {} for measure in MEASURES}
    return Rest(step, had | {"memory": {LAB: memory}, "open files": {LAB: files}, "processes": processes})


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (rest(50, 60, 30, sleep=9), []),
        (rest(50, 90, 30, sleep=9), ["memory of lab grew from step 20 to 50: 50 to 90 MiB"]),
        (rest(50, 50, 60, sleep=9), ["open files of lab grew from step 20 to 50: 30 to 60"]),
        (rest(50, 50, 30, sleep=10), ["processes of sleep grew from step 20 to 50: 9 to 10"]),
        (rest(50, 50, 30, sleep=9, bird=1), ["processes of bird grew from step 20 to 50: 0 to 1"]),
    ],
)
def test_what_grew_much_is_said_after_three_rests(last: Rest, said: list[str]) -> None:
    assert list(leaks([rest(10, 20, 5, sleep=1), rest(20, 50, 30, sleep=9), last])) == said


def wavering(a_step: float) -> list[Rest]:
    """500 steps of a lab of 60 MiB, whose memory warms up, goes up and down by 2 MiB, and grows by so much a step."""
    rng = random.Random(1)
    steps_rested = range(10, 501, 10)
    return [rest(n, 60 - 10 / (n / 10) + rng.uniform(-2, 2) + a_step * n, n % 7) for n in steps_rested]


def test_slow_growth_is_told_from_what_goes_up_and_down() -> None:
    assert list(leaks(wavering(0.0))) == []
    (said,) = leaks(wavering(0.03))
    assert said.startswith("memory of lab grows by 0.0") and "from step 130 to 500" in said
    # Of four processes each may have grown so.
    several = [Rest(one.step, one.had | {"processes": {LAB: 4.0}}) for one in wavering(0.03)]
    assert list(leaks(several)) == []
    # Too few to tell, of those after the lab has warmed up.
    assert list(leaks(wavering(0.03)[:13])) == []


def test_a_lab_that_keeps_an_object_of_each_pod_is_found_by_the_blocks_it_has_in_use() -> None:
    def lab(a_step: float) -> list[Rest]:
        return [Rest(r.step, r.had | {"blocks": {LAB: 370_000 + a_step * r.step}}) for r in wavering(0.0)]

    assert list(leaks(lab(50.0))) == []
    (said,) = leaks(lab(500.0)[:20])
    assert said.startswith("blocks of lab grows by 500.000 a step")


def test_a_slope_is_the_middle_of_all_and_lies_between_its_bounds() -> None:
    line = [(float(x), 3.0 * x) for x in range(20)]
    wild = [(x, 900.0 if x == 7 else y) for x, y in line]
    found = slope(wild)
    assert found is not None and found.middle == 3.0 and found.least <= 3.0 <= found.most
    assert slope(line[:4]) is None
    # By hand: 21 slopes, of which the normal approximation leaves out four at either end.
    sen = slope([(1, 9), (2, 15), (3, 19), (4, 20), (10, 45), (12, 55), (18, 78)])
    assert sen is not None and sen.middle == 4.0 and (round(sen.least, 2), round(sen.most, 2)) == (3.75, 4.18)


def test_each_look_at_packets_waits_longer_for_them_than_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    def differences(_lab: Lab, _prober: Prober, limit: float) -> list[str]:
        limits.append(limit)
        return ["a -> b TCP/80 is refused"] * (len(limits) < 6)

    monkeypatch.setattr(reach, "differences", differences)
    reach.converge(create_autospec(Lab), create_autospec(Prober), 30.0)
    assert limits == [1.5, 3.0, 6.0, 12.0, 12.0, 12.0]


@pytest.mark.parametrize(
    ("mode", "on", "asked"),
    [
        # Nobody but clients; a node's process asks its own pods as their node, and takes any connection meanwhile.
        ("ovs", "worker", {"TCP": False, "UDP": False}),
        ("userspace", "worker", {"TCP": True, "UDP": True}),
        ("userspace", "worker2", {"UDP": False}),
    ],
)
def test_behind_a_proxy_that_hides_clients_policies_judge_their_node(
    mode: str, on: str, asked: dict[str, bool]
) -> None:
    (only_clients,) = manifests.made_by(Change("policy", "web", 1), None)
    policy, gateway = read.policy(only_clients), ip_number("10.244.1.1")
    assert policy is not None
    policy = replace(policy, ingress=tuple(replace(rule, ports=()) for rule in policy.ingress or ()))
    one = Pod("default/store", {"app": "store"}, ip_number("10.244.1.2"), "worker")
    web = Pod("default/web", {"app": "web"}, ip_number("10.244.1.3" if on == "worker" else "10.244.2.3"), on)
    pods = {pod.key: pod for pod in (one, web)}
    whole = Cluster({"default": {}}, pods, [policy], {gateway: "worker"})
    service = next(s for s in manifests.at_rest() if s["kind"] == "Service" and s["metadata"]["name"] == "web")
    endpoints = [{"addresses": [ip_text(web.ip)], "conditions": {"ready": True}}]
    ports = [{"name": "web", "port": 8080}, {"name": "dns", "port": 5353}]
    meta = {"name": "x", "labels": {"kubernetes.io/service-name": "web"}}
    lab = create_autospec(Lab, instance=True)
    lab.parts = SimpleNamespace(proxy_mode=mode)
    lab.nodes = {"worker": SimpleNamespace(gateway_ip=IPv4Address("10.244.1.1"))}
    lab.store = SimpleNamespace(list=lambda *_: [{"metadata": meta, "endpoints": endpoints, "ports": ports}])
    found = {p.protocol: wanted for p, wanted in reach._to_service(lab, whole, pods, "web", service)}
    assert found == asked

"""Packets while the controller, a switch or a link goes and comes back; and what every switch holds afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import oracle
import pytest
from conftest import MANIFESTS, RunningLab, StartLab
from inside import Background, ask, ping, traffic


@pytest.fixture(scope="module", params=("flannel", "calico"))
def lab(request: pytest.FixtureRequest, start_lab: StartLab) -> Iterator[RunningLab]:
    started = start_lab("--cni", request.param, str(MANIFESTS / "guestbook.yaml"))
    yield started
    started.ask("down", ok=False)


@pytest.fixture
def nothing_amiss(lab: RunningLab) -> Iterator[None]:
    """After the test every bridge holds exactly what its program says."""
    yield
    oracle.check(lab)


pytestmark = pytest.mark.usefixtures("nothing_amiss")


def pods_of(lab: RunningLab, node: str) -> list[dict[str, Any]]:
    return [p for p in lab.status()["pods"] if p["node"] == node]


def across(lab: RunningLab, every: float = 0.002) -> Background:
    """Pings and connections from a pod on worker to a pod behind the other leaf and to a Service."""
    here, there = pods_of(lab, "worker")[0]["name"], pods_of(lab, "control-plane")[0]["ip"]
    return traffic(lab, here, there, lab.service("frontend"), 80, every)


def progress(running: Background) -> list[int]:
    """Pings sent, pings answered, connections, failures so far."""
    running.say("how far?")
    return list(running.json())


def goes_on(lab: RunningLab, running: Background) -> None:
    """Wait until some more of everything was answered."""
    _, answered, connections, _ = progress(running)

    def more() -> bool:
        now = progress(running)
        return now[1] >= answered + 50 and now[2] >= connections + 10

    lab.eventually(more)


def assert_nothing_lost(summary: dict[str, Any]) -> None:
    assert summary["lost"] == [] and summary["failures"] == [], summary
    # A second is when TCP would have sent its SYN again (RFC 6298).
    assert summary["sent"] > 100 and summary["connections"] > 20 and summary["slowest"] < 1, summary


def assert_nothing_sent(lab: RunningLab) -> None:
    """The controller that runs now found every switch as it should be."""
    for bridge in oracle.bridges(lab):
        diff = oracle.last_change(lab, bridge)
        assert (diff["set"], diff["removed"]) == (0, 0), (bridge, diff)


def test_a_restart_of_the_controller_loses_no_packet_and_no_connection(lab: RunningLab) -> None:
    before = oracle.installed(lab)
    with across(lab) as running:
        goes_on(lab, running)
        old = lab.status()["controller"]["pid"]
        lab.ask("controller", "restart")
        goes_on(lab, running)
        assert_nothing_lost(running.finish())
    assert lab.status()["controller"]["pid"] != old
    assert_nothing_sent(lab)
    assert oracle.installed(lab) == before


@pytest.mark.parametrize("way", ["stop", "SIGKILL"])
def test_new_connections_work_without_a_controller_and_the_next_one_sends_nothing(lab: RunningLab, way: str) -> None:
    before = oracle.installed(lab)
    others = [p["name"] for p in lab.status()["pods"]]
    with across(lab) as running:
        goes_on(lab, running)
        if way == "stop":
            lab.ask("controller", "stop")
            assert lab.status()["controller"]["pid"] is None
        else:
            lab.exec("worker2", "kill", "-9", str(lab.status()["controller"]["pid"]))
        goes_on(lab, running)
        for name in others:
            answers = ask(lab, name, [("TCP", lab.service("frontend"), 80), ("TCP", lab.service("redis-master"), 6379)])
            assert [a.error for a in answers] == ["", ""], name
        lab.ask("controller", "start")
        goes_on(lab, running)
        assert_nothing_lost(running.finish())
    assert_nothing_sent(lab)
    assert oracle.installed(lab) == before


def test_pods_of_a_node_are_back_soon_after_its_switch_restarts(lab: RunningLab) -> None:
    here = [p["ip"] for p in pods_of(lab, "worker")]
    there = pods_of(lab, "control-plane")[0]
    lab.ask("switch", "restart", "worker")
    began = time.monotonic()
    lab.eventually(lambda: None not in ping(lab, there["name"], here).values(), 3)
    assert time.monotonic() - began < 3
    for pod in pods_of(lab, "worker"):
        answers = ask(lab, pod["name"], [("TCP", lab.service("frontend"), 80)] * 5)
        assert [a.error for a in answers] == [""] * 5


def sent(lab: RunningLab, machine: str, port: str) -> int:
    shown = json.loads(lab.exec(machine, "ip", "-json", "-s", "link", "show", port))
    return int(shown[0]["stats64"]["tx"]["packets"])


def spread(lab: RunningLab) -> list[int]:
    """Packets that leaf-1 sent to each spine while a pod there asked another behind leaf-2 on 200 ports by UDP."""
    here, there = pods_of(lab, "control-plane")[0]["name"], pods_of(lab, "worker")[0]["ip"]
    before = [sent(lab, "leaf-1", port) for port in ("eth1", "eth2")]
    # Nothing listens there: each datagram is answered by an ICMP error, and that is an answer.
    answers = ask(lab, here, [("UDP", there, 9)] * 200)
    assert {a.error for a in answers} == {"ECONNREFUSED"}
    return [sent(lab, "leaf-1", port) - old for port, old in zip(("eth1", "eth2"), before, strict=True)]


def test_many_udp_flows_take_both_spines(lab: RunningLab) -> None:
    assert min(spread(lab)) > 50


@pytest.mark.parametrize("port", ["eth1", "eth2"])
def test_traffic_takes_the_other_spine_within_a_second_and_comes_back(lab: RunningLab, port: str) -> None:
    with across(lab, 0.005) as running:
        goes_on(lab, running)
        lab.exec("leaf-1", "ip", "link", "set", port, "down")
        goes_on(lab, running)
        assert min(spread(lab)) == 0
        lab.exec("leaf-1", "ip", "link", "set", port, "up")
        lab.eventually(lambda: min(spread(lab)) > 50, 15)
        summary = running.finish()
    assert summary["gap"] < 1, summary
    # One that met the dead link may have been sent again after a second.
    assert summary["failures"] == [] and summary["slowest"] < 2, summary

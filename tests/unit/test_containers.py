"""What a pod's manifest says of its containers: which programs, which ports, and how they end."""

from __future__ import annotations

from typing import Any

import pytest

from topo.cluster.store import Object
from topo.containers import Stop, commands, delay_before, init_steps, lifecycle_notes, of, stop


def pod(*containers: Object, init: list[Object] | None = None, **notes: str) -> Object:
    """notes: annotations of our group, with underscores for the hyphens of their names."""
    annotations = {f"mininetes.dev/{name.replace('_', '-')}": text for name, text in notes.items()}
    spec: Object = {"containers": list(containers) or [{"name": "c"}], "initContainers": init or []}
    return {"kind": "Pod", "metadata": {"name": "p", "annotations": annotations}, "spec": spec}


def hooked(command: list[str] | None = None, name: str = "c", **hook: Any) -> Object:
    return {"name": name, "lifecycle": {"preStop": {"exec": {"command": command}} if command else hook}}


def test_a_program_is_the_first_containers_or_that_of_the_named_one_init_or_not() -> None:
    one = pod({"name": "a"}, {"name": "b"}, init=[{"name": "i"}], command="x -y 'z z'")
    one["metadata"]["annotations"] |= {"mininetes.dev/command.b": "b", "mininetes.dev/command.i": "i 1"}
    assert commands(one) == {"a": ["x", "-y", "z z"], "b": ["b"], "i": ["i", "1"]}
    assert init_steps(one) == [("i", ["i", "1"])]


def test_sidecars_run_with_the_others_and_have_ports() -> None:
    ports = [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]
    beside = {"name": "s", "restartPolicy": "Always", "ports": ports[:1]}
    found = of(pod({"name": "c", "ports": ports}, init=[{"name": "i"}, beside]))
    assert [(c.name, c.beside, c.ports) for c in found] == [("s", True, [("TCP", 80)]), ("c", False, [("UDP", 53)])]


def test_a_real_program_has_its_own_ports() -> None:
    (one,) = of(pod({"name": "c", "ports": [{"containerPort": 80}]}, command="x"))
    assert (one.is_real, one.ports) == (True, [])


@pytest.mark.parametrize(
    ("container", "seconds"),
    [
        (hooked(sleep={"seconds": 5}), 5),
        (hooked(["sleep", "7"]), 7),
        (hooked(["/bin/sleep", "1.5"]), 1.5),
        (hooked(["sh", "-c", "sleep 15"]), 15),
        (hooked(["/bin/sh", "-c", "sleep 3s; nginx -s quit && sleep 1m"]), 63),
    ],
)
def test_stand_ins_serve_while_a_hook_sleeps(container: Object, seconds: float) -> None:
    assert stop(pod(container)) == Stop({"c": seconds}, {}, seconds)
    assert lifecycle_notes(pod(container)) == []


@pytest.mark.parametrize("command", [["nosleep", "5"], ["asleep", "5"], ["sh", "-c", "oversleep 5"]])
def test_what_does_not_sleep_is_told_not_to_be_run(command: list[str]) -> None:
    assert stop(pod(hooked(command))) == Stop({}, {}, None)
    assert lifecycle_notes(pod(hooked(command))) == [f"container c: preStop is nothing instead of running {command[0]}"]


def test_a_real_program_ends_after_its_hook_has() -> None:
    one = pod(hooked(["quit", "now"]), command="serve")
    assert stop(one) == Stop({}, {"c": ["quit", "now"]}, None)
    assert lifecycle_notes(one) == []


def test_the_annotation_adds_to_the_longest_hook() -> None:
    assert stop(pod(serve_after_term="4")).serve == 4
    assert stop(pod(serve_after_term="0")).serve == 0
    assert stop(pod(serve_after_term="soon")).serve is None
    both = pod(hooked(sleep={"seconds": 2}), hooked(sleep={"seconds": 3}, name="d"), serve_after_term="4")
    assert stop(both).serve == 7


def test_restarts_wait_ever_longer() -> None:
    assert [delay_before(n) for n in (1, 2, 3, 4, 7, 100)] == [0, 10, 20, 40, 300, 300]
    (one,) = of(pod())
    assert [one.delay(1), one.delay(1), one.delay(700), one.delay(1)] == [0, 10, 0, 10]

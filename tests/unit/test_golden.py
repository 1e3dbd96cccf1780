"""Whole programs as text, against listings kept in golden/, so that a changed flow shows in review.

MININETES_GOLDEN=write rewrites the files, after printing what changes.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
from views import OVS, SWITCHES, cluster, cni_of, fabric

from controllers.compile import fabric_switch, pod_bridge, uplink_bridge
from controllers.flow.program import Program, check, listing
from controllers.state import NodeView

GOLDEN = Path(__file__).parent / "golden"
SEEDS = range(5)


def pods_only(view: NodeView) -> Program:
    """The pod bridge but for the Service ports, which are the same for every CNI and have a file of their own."""
    return pod_bridge(replace(view, services={}), cni_of(view), OVS)


def services(view: NodeView) -> Program:
    return {fragment.key: fragment for fragment in OVS.fragments(view)}


def uplink(view: NodeView) -> Program:
    return uplink_bridge(view, cni_of(view))


PROGRAMS: dict[str, Callable[[], Program]] = {
    "br-int-flannel": lambda: pods_only(cluster("flannel")["node-1"]),
    "br-int-calico": lambda: pods_only(cluster("calico")["node-1"]),
    "br-ex-flannel": lambda: uplink(cluster("flannel")["node-1"]),
    "br-ex-calico": lambda: uplink(cluster("calico")["node-1"]),
    "service-ports": lambda: services(cluster("flannel")["node-1"]),
    "fabric-leaf": lambda: fabric_switch(fabric()["leaf-1"]),
    "fabric-spine": lambda: fabric_switch(fabric()["spine-1"]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_is_as_it_was_reviewed(name: str) -> None:
    program, file = PROGRAMS[name](), GOLDEN / f"{name}.txt"
    check(program)
    got, had = listing(program), file.read_text() if file.exists() else ""
    changes = "".join(unified_diff(had.splitlines(True), got.splitlines(True), f"golden/{name}.txt", "compiled"))
    if os.environ.get("MININETES_GOLDEN") == "write" and changes:
        print(changes)
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(got)
    else:
        assert not changes, f"\n{changes}\nIf this is what you want: MININETES_GOLDEN=write"


def test_every_golden_file_is_compared() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == {f"{name}.txt" for name in PROGRAMS}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cni", ["flannel", "calico"])
@pytest.mark.parametrize("node", ["node-1", "node-2", "node-3"])
def test_listing_of_a_node_does_not_depend_on_the_order_of_what_it_is_made_of(node: str, cni: str, seed: int) -> None:
    view, mix = cluster(cni)[node], random.Random(seed)

    def shuffled(things: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(mix.sample(things, len(things)))

    other = replace(
        view,
        pods=shuffled(view.pods),
        peers=shuffled(view.peers),
        services=dict(shuffled(tuple(view.services.items()))),
    )
    for compiled in (lambda v: pod_bridge(v, cni_of(v), OVS), uplink):
        assert listing(compiled(other)) == listing(compiled(view))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SWITCHES)
def test_listing_of_a_fabric_switch_does_not_depend_on_the_order_of_switches_and_ports(name: str, seed: int) -> None:
    mix = random.Random(seed)
    switches = {
        key: replace(switch, ports=dict(mix.sample(sorted(switch.ports.items()), len(switch.ports))))
        for key, switch in mix.sample(sorted(SWITCHES.items()), len(SWITCHES))
    }
    view = fabric()[name]
    other = replace(view, switch=switches[name], switches=switches)
    assert listing(fabric_switch(other)) == listing(fabric_switch(view))

"""One lab a proxy mode, with the objects of every case in it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from running import RunningLab, mininetes

from services import balance, external, loadbalancer, policies, ports, readiness, udp, world
from services.world import NODES, PODS, ZONES, Object, World

CASES = (ports, external, loadbalancer, policies, readiness, udp, balance)


def lab_file(mode: str, options: Mapping[str, object]) -> str:
    """The lab of a mode: four nodes in three zones, no DNS."""
    nodes = [
        {"role": "worker" if i else "control-plane", "labels": {"topology.kubernetes.io/zone": zone}}
        for i, zone in enumerate(ZONES)
    ]
    more = {"proxy": dict(options)} if options else {}
    return yaml.safe_dump(
        {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "nodes": nodes,
            "networking": {"kubeProxyMode": mode},
            "mininetes": {"dns": False, **more},
        }
    )


@contextmanager
def started(mode: str, options: Mapping[str, object], things: Iterable[Object], folder: Path) -> Iterator[World]:
    """A lab of this mode with these objects, or a skip that says why there is none."""
    listed = mininetes("list", "proxy", "--json")
    assert listed.returncode == 0, listed.stderr
    there = json.loads(listed.stdout)["proxy"]
    if mode not in there:
        pytest.skip(f"there is no proxy mode {mode}; there are {', '.join(there)}")
    (folder / "lab.yaml").write_text(lab_file(mode, options))
    (folder / "objects.yaml").write_text(yaml.safe_dump_all(things))
    running = RunningLab(f"test-{uuid.uuid4().hex[:8]}")
    up = mininetes("up", "--detach", "--lab", running.name, str(folder / "lab.yaml"), str(folder / "objects.yaml"))
    if up.returncode == 2:  # refused before anything was made
        pytest.skip(f"mode {mode}: {up.stderr.strip()}")
    assert up.returncode == 0, up.stderr + up.stdout
    made = World(running.name, mode, str(options.get("scheduler", "rr")))
    made.ips = {p["name"]: p["ip"] for p in running.status()["pods"]}
    try:
        yield made
    finally:
        made.close()
        running.ask("down", ok=False)


def permanent() -> list[Object]:
    """A client and a server on every node."""
    clients = [world.pod(name, i, "client", ports=[]) for i, name in enumerate(PODS)]
    return clients + [world.pod(f"echo-{i}", i, "echo") for i in range(len(NODES))]


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The lab of the module's MODE, with the objects of every case."""
    mode = request.module.MODE
    things = permanent() + [thing for case in CASES for thing in case.OBJECTS]
    with started(mode, {}, things, tmp_path_factory.mktemp(mode)) as made:
        made.apply(*(thing for case in CASES for thing in getattr(case, "slices", lambda _: ())(made)))
        yield made

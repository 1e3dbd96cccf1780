"""1,000 Services of 10 endpoints on 10 nodes: how long until every switch holds them, and one endpoint more or less."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

from benchmarks.figure import Figure, in_capsule
from scenarios.lab import assemble
from topo import capsule, labfile
from topo.config import FabricConfig
from topo.lab import Lab

SERVICES, ENDPOINTS, NODES, CHANGES = 1000, 10, 10, 20


def figures() -> list[Figure]:
    """Both figures, in one lab."""
    return in_capsule(_measure)


def _measure() -> list[Figure]:
    config = replace(labfile.default_config(NODES), fabric=FabricConfig(shape="star"))
    lab = Lab(config, assemble.parts(config, assemble.Choices()), capsule.RUN)
    lab.start()
    lab.confirm()
    for number in range(SERVICES):
        for thing in service(number):
            lab.store.create(thing)
    begun = time.monotonic()
    lab.confirm()
    programmed = time.monotonic() - begun
    changes = [change(lab, step, SERVICES // 2) for step in range(CHANGES)]
    what = f"{SERVICES} Services x {ENDPOINTS} endpoints on {NODES} nodes"
    return [
        Figure(f"{what}: from the store holding them to the last barrier", programmed, "s", 1.5),
        Figure(f"{what}: one endpoint more or less, median of {CHANGES}", statistics.median(changes) * 1e3, "ms", 50),
    ]


def service(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A Service and its slice; number: up to 50,000."""
    name, meta = f"s{number}", {"namespace": "default"}
    address = f"10.96.{20 + number // 250}.{number % 250 + 1}"
    ends = [{"addresses": [f"10.244.{n}.{number % 250 + 2}"], "conditions": {"ready": True}} for n in range(ENDPOINTS)]
    ports = [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]
    label = {"kubernetes.io/service-name": name}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {**meta, "name": name}}
    return service | {"spec": {"type": "ClusterIP", "clusterIP": address, "ports": ports}}, {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**meta, "name": f"{name}-x", "labels": label},
        "addressType": "IPv4",
        "ports": [{"port": 8080, "protocol": "TCP"}],
        "endpoints": ends,
    }


def change(lab: Lab, step: int, number: int) -> float:
    """Seconds until an endpoint of that Service that comes or goes is confirmed."""

    def edit(part: dict[str, Any]) -> None:
        if step % 2:
            part["endpoints"].append({"addresses": ["10.244.9.77"], "conditions": {"ready": True}})
        else:
            part["endpoints"].pop()

    begun = time.monotonic()
    lab.store.update("EndpointSlice", "default", f"s{number}-x", edit)
    lab.confirm()
    return time.monotonic() - begun

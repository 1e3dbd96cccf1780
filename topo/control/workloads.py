"""Which pods a workload should have: Deployment, ReplicaSet, StatefulSet, DaemonSet and Job, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from topo.cluster.store import Object
from topo.control.children import (
    Plan,
    Suffix,
    first_to_go,
    is_available,
    is_ending,
    is_live,
    is_over,
    is_ready,
    new_pod,
    owned,
    template_hash,
    wait_for,
)
from topo.control.daemons import daemon_set
from topo.control.ordered import stateful_set
from topo.control.rollout import deployment

__all__ = ["Plan", "is_available", "is_ending", "is_live", "is_over", "is_ready", "owned", "plan", "template_hash"]

WORKLOADS = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job")


def plan(owner: Object, children: Sequence[Object], nodes: Sequence[Object], suffix: Suffix, now: datetime) -> Plan:
    """What must change so that `owner` has the children it should.

    children: all it owns, oldest first (for a Deployment: its ReplicaSets and their pods); suffix: fresh five letters
    each call; now: by which pods become available.
    """
    waits = [wait_for(p, owner["spec"].get("minReadySeconds", 0), now) for p in children if p["kind"] == "Pod"]
    again = min(filter(None, waits), default=None)
    return replace(_plan(owner, children, nodes, suffix, now), again=again)


def _plan(owner: Object, children: Sequence[Object], nodes: Sequence[Object], suffix: Suffix, now: datetime) -> Plan:
    match owner["kind"]:
        case "Deployment":
            return deployment(owner, children, now)
        case "ReplicaSet":
            return _replicas(owner, [p for p in children if is_live(p)], owner["spec"].get("replicas", 1), suffix)
        case "Job":
            return _job(owner, children, suffix)
        case "StatefulSet":
            return stateful_set(owner, children, now)
        case "DaemonSet":
            return daemon_set(owner, children, nodes, suffix, now)
    raise ValueError(f"{owner['kind']} is no workload")


def _replicas(owner: Object, live: Sequence[Object], wanted: int, suffix: Suffix) -> Plan:
    """As many live pods as wanted."""
    if len(live) < wanted:
        name = owner["metadata"]["name"]
        return Plan(create=tuple(new_pod(owner, f"{name}-{suffix()}") for _ in range(wanted - len(live))))
    surplus = len(live) - wanted
    return Plan(delete=tuple(first_to_go(live)[:surplus]) if surplus else ())


def _job(owner: Object, pods: Sequence[Object], suffix: Suffix) -> Plan:
    """As many pods at a time as its parallelism, until enough have succeeded (Kubernetes, "Jobs", "Parallel")."""
    spec = owner["spec"]
    live = [p for p in pods if is_live(p)]
    phases = [p.get("status", {}).get("phase") for p in pods]
    wanted = spec.get("parallelism", 1)
    if spec.get("completions") is not None:
        wanted = min(wanted, max(0, spec["completions"] - phases.count("Succeeded")))
    elif "Succeeded" in phases:  # a work queue: whoever ends first has seen its end
        wanted = min(wanted, len(live))
    if phases.count("Failed") > spec.get("backoffLimit", 6):
        wanted = 0
    return _replicas(owner, live, wanted, suffix)

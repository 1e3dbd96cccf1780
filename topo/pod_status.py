"""What a kubelet writes into a pod's status (Kubernetes API, PodStatus)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from topo.cluster import wiring
from topo.cluster.store import Object
from topo.containers import Container
from topo.pods import Sandbox


def write(pod: Object, sandbox: Sandbox, containers: Sequence[Container], initialized: bool, now: str) -> None:
    """All of it, and the annotations by which the controller knows the pod's port. now: as `time_text` writes it."""
    if sandbox.port:  # on the switch
        notes = pod["metadata"].setdefault("annotations", {})
        notes |= {wiring.MAC: sandbox.mac, wiring.PORT: str(sandbox.port)}
    before = pod.get("status") or {}
    phase = _phase(containers, initialized)
    ready = phase == "Running" and all(c.ready for c in containers)
    values = {"PodScheduled": True, "Initialized": initialized, "ContainersReady": ready, "Ready": ready}
    pod["status"] = {
        "phase": phase,
        "podIP": str(sandbox.ip),
        "podIPs": [{"ip": str(sandbox.ip)}],
        "hostIP": str(sandbox.node.ip),
        "startTime": before.get("startTime", now),
        "conditions": [_condition(before, name, value, now) for name, value in values.items()],
        "containerStatuses": [_container(c, initialized) for c in containers],
    }


def _phase(containers: Sequence[Container], initialized: bool) -> str:
    if not initialized:
        return "Pending"
    regular = [c for c in containers if not c.beside]
    if all(c.over for c in regular):
        return "Failed" if any(c.exit for c in regular) else "Succeeded"
    return "Running"


def _condition(status: Object, name: str, value: bool, now: str) -> Object:
    text = "True" if value else "False"
    for condition in status.get("conditions", ()):
        if condition["type"] == name and condition["status"] == text:
            return dict(condition)
    return {"type": name, "status": text, "lastTransitionTime": now}


def _container(container: Container, initialized: bool) -> Object:
    state: dict[str, Any]
    if container.running:
        state = {"running": {}}
    elif container.over:
        state = {"terminated": {"exitCode": container.exit or 0}}
    else:
        state = {"waiting": {"reason": "CrashLoopBackOff" if initialized and container.failed else "PodInitializing"}}
    return {
        "name": container.name,
        "ready": container.ready,
        "started": container.started,
        "restartCount": container.restarts,
        "state": state,
    }

"""DaemonSets: a pod on every node that takes it, replaced node by node when the template changes.

Source: Kubernetes, "DaemonSet" (how daemon pods are scheduled, taints and tolerations) and "Perform a Rolling Update on
a DaemonSet".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from topo.cluster.store import Object
from topo.control.children import (
    REVISION,
    Plan,
    Suffix,
    is_available,
    is_ending,
    is_live,
    is_over,
    new_pod,
    share,
    template_hash,
)
from topo.control.scheduler import chooses, untolerated

# Kubernetes, "DaemonSet": the tolerations that every daemon pod gets.
_OWN_TOLERATIONS = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect}
    for key, effect in (
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    )
]
_NETWORK_TOLERATION = {"key": "node.kubernetes.io/network-unavailable", "operator": "Exists", "effect": "NoSchedule"}


def daemon_set(owner: Object, pods: Sequence[Object], nodes: Sequence[Object], suffix: Suffix, now: datetime) -> Plan:
    """Pods to make and to delete."""
    like = _pod(owner, "")
    there: dict[str, list[Object]] = {}
    for pod in pods:
        there.setdefault(pod["spec"].get("nodeName", ""), []).append(pod)
    homes, may_stay = _places(like, nodes)
    create, delete = [], [p for p in pods if is_live(p) and p["spec"].get("nodeName") not in may_stay]
    delete += [p for p in pods if is_over(p) and not is_ending(p)]
    for node in sorted(homes):
        live = [p for p in there.get(node, ()) if is_live(p)]
        # As Kubernetes does: a port of the node's must be free before the next daemon takes it.
        if not there.get(node):
            create.append(_pod(owner, f"{owner['metadata']['name']}-{suffix()}", node))
        elif len(live) > 1 and len({_revision(p) for p in live}) == 1:
            delete += sorted(live, key=lambda p: str(p["metadata"]["creationTimestamp"]))[1:]
    if (owner["spec"].get("updateStrategy") or {}).get("type") != "OnDelete":
        more, less = _update(owner, {n: there.get(n, []) for n in sorted(homes)}, suffix, now)
        create += more
        delete += [p for p in less if p not in delete]
    return Plan(tuple(create), tuple(delete))


def _places(like: Object, nodes: Sequence[Object]) -> tuple[set[str], set[str]]:
    """Nodes that such a pod is made on, and those where one that is there may stay."""
    homes, may_stay = set(), set()
    for node in nodes:
        if not chooses(like["spec"], node):
            continue
        name = node["metadata"]["name"]
        if untolerated(like["spec"], node, ("NoExecute",)) is None:
            may_stay.add(name)
            if untolerated(like["spec"], node, ("NoSchedule",)) is None:
                homes.add(name)
    return homes, may_stay


def _update(
    owner: Object, there: Mapping[str, list[Object]], suffix: Suffix, now: datetime
) -> tuple[list[Object], list[Object]]:
    """Pods to make and to delete so that those of an old template give way. there: all pods by node."""
    spec = owner["spec"]
    rolling, min_ready = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}, spec.get("minReadySeconds", 0)
    surge = share(rolling.get("maxSurge", 0), len(there), up=True)
    most = 0 if surge else max(1, share(rolling.get("maxUnavailable", 1), len(there), up=True))
    surging, current = surge > 0, template_hash(spec["template"])
    delete: list[Object] = []
    candidates: list[Object] = []
    for pods in there.values():
        live = [p for p in pods if is_live(p)]
        old = [p for p in live if _revision(p) != current]
        ready = [p for p in live if is_available(p, min_ready, now)]
        if not ready:
            most -= 1
            delete += old  # it serves nobody
        elif any(p not in old for p in ready):
            delete += old
        elif len(old) < len(live):
            surge -= 1  # its successor comes up
        else:
            candidates += old
    if not surging:
        return [], delete + candidates[: max(0, most)]
    name = owner["metadata"]["name"]
    made = [_pod(owner, f"{name}-{suffix()}", p["spec"]["nodeName"]) for p in candidates[: max(0, surge)]]
    return made, delete


def _revision(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get(REVISION, ""))


def _pod(owner: Object, name: str, node: str = "") -> Object:
    made = new_pod(owner, name, {REVISION: template_hash(owner["spec"]["template"])})
    spec = made["spec"]
    own = _OWN_TOLERATIONS + ([_NETWORK_TOLERATION] if spec.get("hostNetwork") else [])
    spec["tolerations"] = [*(spec.get("tolerations") or ()), *own]
    if node:
        spec["nodeName"] = node
    return made

"""Where a pod runs: the fitting node with the fewest pods, as a pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from topo.cluster.labels import matches_labels
from topo.cluster.store import Object


class Unschedulable(Exception):
    """No node fits; the message says why each does not, as the Kubernetes scheduler's event does."""


def choose(pod: Object, nodes: Iterable[Object], load: Mapping[str, int]) -> str:
    """The name of the node for `pod`: least loaded, first by name among equals. load: pods per node now.

    Honours nodeSelector, spec.unschedulable, NoSchedule and NoExecute taints, and the node's Ready condition.
    Raises Unschedulable.
    """
    reasons: dict[str, int] = {}
    fitting: list[str] = []
    total = 0
    for node in nodes:
        total += 1
        reason = _refusal(pod, node)
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            fitting.append(node["metadata"]["name"])
    if not fitting:
        detail = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        raise Unschedulable(f"0/{total} nodes are available: {detail or 'there are none'}")
    return min(fitting, key=lambda name: (load.get(name, 0), name))


def _refusal(pod: Object, node: Object) -> str:
    """Why the pod may not run there, or nothing."""
    spec = node.get("spec", {})
    selector = pod["spec"].get("nodeSelector") or {}
    if not matches_labels(selector, node["metadata"].get("labels", {})):
        return "node(s) didn't match the pod's nodeSelector"
    if spec.get("unschedulable"):
        return "node(s) were unschedulable"
    conditions = node.get("status", {}).get("conditions", ())
    if any(c["type"] == "Ready" and c["status"] != "True" for c in conditions):
        return "node(s) were not ready"
    for taint in spec.get("taints") or ():
        if taint["effect"] in ("NoSchedule", "NoExecute") and not any(
            _tolerates(t, taint) for t in pod["spec"].get("tolerations") or ()
        ):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    return ""


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Source: Kubernetes, "Taints and Tolerations"."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    same_value = toleration.get("value", "") == taint.get("value", "")
    return bool(toleration.get("key") == taint["key"] and same_value)

"""Where a pod runs: the fitting node with the fewest pods, as a pure function."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from topo.cluster.labels import holds, matches_labels
from topo.cluster.store import Object


class Unschedulable(Exception):
    """No node fits; the message says why each does not, as the Kubernetes scheduler's event does."""


def choose(pod: Object, nodes: Iterable[Object], load: Mapping[str, int]) -> str:
    """The name of the node for `pod`: least loaded, first by name among equals. load: pods per node now.

    Honours nodeSelector, required node affinity, spec.unschedulable, NoSchedule and NoExecute taints, and the node's
    Ready condition.
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


def chooses(spec: Mapping[str, Any], node: Object) -> bool:
    """Whether a pod of this spec asks for such a node: nodeSelector and required node affinity.

    Source: Kubernetes, "Assigning Pods to Nodes".
    """
    if not matches_labels(spec.get("nodeSelector") or {}, node["metadata"].get("labels", {})):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(_fits(term, node) for term in required.get("nodeSelectorTerms") or ())


def untolerated(spec: Mapping[str, Any], node: Object, effects: Collection[str]) -> Mapping[str, Any] | None:
    """The first taint of these effects that keeps a pod of this spec away, or None."""
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint["effect"] in effects and not any(_tolerates(t, taint) for t in spec.get("tolerations") or ()):
            return dict(taint)
    return None


def _fits(term: Mapping[str, Any], node: Object) -> bool:
    """One nodeSelectorTerm; an empty one chooses nothing."""
    labels, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    own = {"metadata.name": node["metadata"]["name"]}
    return bool(labels or fields) and (
        all(holds(e["key"], e["operator"], e.get("values") or (), node["metadata"].get("labels", {})) for e in labels)
        and all(holds(e["key"], e["operator"], e.get("values") or (), own) for e in fields)
    )


def _refusal(pod: Object, node: Object) -> str:
    """Why the pod may not run there, or nothing."""
    spec = node.get("spec", {})
    if not chooses(pod["spec"], node):
        by = "nodeSelector" if not (pod["spec"].get("affinity") or {}).get("nodeAffinity") else "node affinity/selector"
        return f"node(s) didn't match the pod's {by}"
    if spec.get("unschedulable") and not any(_tolerates(t, _CORDONED) for t in pod["spec"].get("tolerations") or ()):
        return "node(s) were unschedulable"
    conditions = node.get("status", {}).get("conditions", ())
    if any(c["type"] == "Ready" and c["status"] != "True" for c in conditions):
        return "node(s) were not ready"
    taint = untolerated(pod["spec"], node, ("NoSchedule", "NoExecute"))
    if taint is not None:
        return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    return ""


# What a cordoned node is tainted with (Kubernetes, "Taints and Tolerations").
_CORDONED = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Source: Kubernetes, "Taints and Tolerations"."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    same_value = toleration.get("value", "") == taint.get("value", "")
    return bool(toleration.get("key") == taint["key"] and same_value)

"""Label selectors: which objects a selector chooses (Kubernetes, "Labels and Selectors")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """A LabelSelector (matchLabels and matchExpressions, all must hold). None chooses nothing, {} everything."""
    if selector is None:
        return False
    return matches_labels(selector.get("matchLabels") or {}, labels) and all(
        holds(e["key"], e["operator"], e.get("values") or (), labels) for e in selector.get("matchExpressions") or ()
    )


def matches_labels(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Plain equality, as in a Service's selector or a nodeSelector."""
    return all(labels.get(key) == value for key, value in wanted.items())


def holds(key: str, operator: str, values: Any, labels: Mapping[str, str]) -> bool:
    """One requirement. Gt and Lt compare whole numbers, and are for nodes only."""
    match operator:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt" | "Lt":
            try:
                have, limit = int(labels[key]), int(values[0])
            except (KeyError, ValueError, IndexError):
                return False
            return have > limit if operator == "Gt" else have < limit
    return False

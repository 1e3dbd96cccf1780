"""Selectors choose what "Labels and Selectors" of Kubernetes says they choose."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topo.cluster.labels import matches, matches_labels

KEYS, VALUES = st.sampled_from(["app", "tier", "zone"]), st.sampled_from(["", "a", "b", "c"])
LABELS = st.dictionaries(KEYS, VALUES)


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    """A selector of one requirement."""
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


@pytest.mark.parametrize(
    ("selector", "labels", "chosen"),
    [
        (None, {"app": "a"}, False),
        ({}, {"app": "a"}, True),
        ({}, {}, True),
        ({"matchLabels": {}}, {}, True),
        ({"matchLabels": {"app": "a"}}, {"app": "a", "tier": "b"}, True),
        ({"matchLabels": {"app": "a"}}, {"app": "b"}, False),
        ({"matchLabels": {"app": ""}}, {}, False),
        ({"matchLabels": {"app": ""}}, {"app": ""}, True),
        (expression("app", "In", "a", "b"), {"app": "b"}, True),
        (expression("app", "In", "a", "b"), {"app": "c"}, False),
        (expression("app", "In", "a", "b"), {}, False),
        (expression("app", "NotIn", "a", "b"), {"app": "c"}, True),
        (expression("app", "NotIn", "a", "b"), {"app": "a"}, False),
        (expression("app", "NotIn", "a", "b"), {}, True),
        (expression("app", "Exists"), {"app": ""}, True),
        (expression("app", "Exists"), {"tier": "a"}, False),
        (expression("app", "DoesNotExist"), {"tier": "a"}, True),
        (expression("app", "DoesNotExist"), {"app": ""}, False),
        ({"matchLabels": {"app": "a"}, **expression("tier", "Exists")}, {"app": "a", "tier": "b"}, True),
        ({"matchLabels": {"app": "a"}, **expression("tier", "Exists")}, {"app": "a"}, False),
        ({"matchLabels": {"app": "a"}, **expression("tier", "Exists")}, {"tier": "b"}, False),
    ],
)
def test_a_selector_chooses_what_fulfils_all_its_requirements(
    selector: dict[str, Any] | None, labels: dict[str, str], chosen: bool
) -> None:
    assert matches(selector, labels) is chosen


@given(KEYS, st.lists(VALUES, min_size=1), LABELS)
def test_in_and_not_in_part_all_objects(key: str, values: list[str], labels: dict[str, str]) -> None:
    assert matches(expression(key, "In", *values), labels) != matches(expression(key, "NotIn", *values), labels)


@given(KEYS, LABELS)
def test_exists_and_does_not_exist_part_all_objects(key: str, labels: dict[str, str]) -> None:
    assert matches(expression(key, "Exists"), labels) != matches(expression(key, "DoesNotExist"), labels)


@given(LABELS, LABELS)
def test_match_labels_is_in_with_one_value_for_each(wanted: dict[str, str], labels: dict[str, str]) -> None:
    each = [e for key, value in wanted.items() for e in expression(key, "In", value)["matchExpressions"]]
    assert matches({"matchLabels": wanted}, labels) == matches({"matchExpressions": each}, labels)
    assert matches({"matchLabels": wanted}, labels) == matches_labels(wanted, labels)


@given(LABELS, LABELS)
def test_more_labels_never_unchoose_by_equality(wanted: dict[str, str], labels: dict[str, str]) -> None:
    assert matches_labels(wanted, {**labels, **wanted})

"""A pod's limits of bandwidth are read from what the runtime tells, and refused where they are none."""

from __future__ import annotations

from typing import Any

import pytest

from topo.cni import pod
from topo.cni.bandwidth import Bucket, Limits, read
from topo.cni.errors import CniError


def test_each_direction_has_a_limit_of_its_own() -> None:
    notes = {pod.INGRESS: "10M", pod.EGRESS: "20M"}
    told = pod.capabilities({"metadata": {"annotations": notes}, "spec": {}})
    assert read(told) == Limits(Bucket(10_000_000, 1_000_000), Bucket(20_000_000, 2_000_000))
    assert read(pod.capabilities({"metadata": {"annotations": {pod.EGRESS: "20M"}}, "spec": {}})).ingress is None


@pytest.mark.parametrize("told", [{}, {"bandwidth": {}}, {"bandwidth": {"ingressRate": 0, "ingressBurst": 0}}])
def test_nothing_said_is_no_limit(told: dict[str, Any]) -> None:
    assert read(told) == Limits()


@pytest.mark.parametrize(
    "given",
    [5, {"egressRate": 1000}, {"egressBurst": 1000}, {"egressRate": "10M", "egressBurst": 1000}, {"ingressRate": -8}],
)
def test_what_is_no_limit_is_refused(given: Any) -> None:
    with pytest.raises(CniError, match=r"runtimeConfig\.bandwidth"):
        read({"bandwidth": given})

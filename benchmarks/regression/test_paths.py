"""`make regression`: paths of a lab beside others of the same moment, against the ratios in results/baseline/."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import paths
from scenarios.testing.lab import Lab

Check = Callable[..., None]


@pytest.fixture(scope="module")
def service(lab: Lab) -> str:
    """The address of a Service whose one endpoint is on another node than the client."""
    return paths.service(lab)


@pytest.mark.parametrize("kind", paths.KINDS)
def test_a_service_beside_its_pod(lab: Lab, service: str, assert_no_regression: Check, kind: str) -> None:
    assert_no_regression(paths.measure(lab, service, kind), paths.baseline(kind), paths.TOLERANCE)

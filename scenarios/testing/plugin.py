"""The pytest plugin `mininetes`: a lab for a module's tests, and an assertion that a path did not become slower."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from scenarios.measure.regression import Beside
    from scenarios.testing.lab import Lab

# Imports are inside: the plugin is loaded in every run of pytest on a machine that has mininetes.
BASELINES = "mininetes_baselines"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where known ratios are, and what labs are like."""
    parser.addini(BASELINES, "YAML file with known ratios, from pytest's root", default="results/baseline/ratios.yaml")
    parser.getgroup("mininetes").addoption(
        "--lab-arguments", default="", metavar="ARGS", help="more arguments of `mininetes up`, for every lab"
    )


@pytest.fixture(scope="module")
def lab_arguments() -> Sequence[str]:
    """What `mininetes up` is given; a module's own fixture of this name says something else."""
    return ()


@pytest.fixture(scope="module")
def lab(lab_arguments: Sequence[str], pytestconfig: pytest.Config) -> Iterator[Lab]:
    """A lab for the module's tests, ready; gone after them."""
    from scenarios.testing.lab import started

    with started(*lab_arguments, *shlex.split(pytestconfig.getoption("--lab-arguments"))) as found:
        yield found


@pytest.fixture(scope="session")
def assert_no_regression(pytestconfig: pytest.Config) -> Callable[[Beside, str | float, float], None]:
    """assert_no_regression(metric, baseline, tolerance): fails if the path is slower than it was, beyond chance.

    metric: what lab.measure gave; baseline: a ratio, or the name of a known one; tolerance: 0.25 for a quarter more.
    """
    from scenarios.measure import regression

    file = pytestconfig.rootpath / str(pytestconfig.getini(BASELINES))

    def check(metric: Beside, baseline: str | float, tolerance: float = 0.25) -> None:
        known = regression.known_ratio(file, baseline, metric) if isinstance(baseline, str) else float(baseline)
        verdict = regression.judge(metric, known, tolerance)
        if verdict.slower:
            pytest.fail(verdict.text, pytrace=False)

    return check

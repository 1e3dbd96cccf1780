"""Notes with every test what it ran on, for JUnit's report (`make ran` reads it there)."""

from __future__ import annotations

import os
from functools import cache

import pytest

from topo import platform


@cache
def _datapath() -> str:
    """What labs take that are not told otherwise."""
    return platform.choose_datapath("auto")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The kernel's release; for tests with labs the datapath that they have unless they name one."""
    item.user_properties.append(("kernel", os.uname().release))
    if item.path.is_relative_to(item.config.rootpath / "tests" / "lab"):
        item.user_properties.append(("datapath", _datapath()))

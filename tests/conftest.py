"""Notes with every test what it ran on, for JUnit's report (`make ran` reads it there)."""

from __future__ import annotations

import os
import signal
from functools import cache

import as_root
import pytest
from as_root import pytest_runtest_protocol

from topo import platform
from topo.system import find_system_programs

__all__ = ["pytest_runtest_protocol"]

# What runs behind a shell that has no job control is born deaf to Ctrl-C (POSIX, sh, 2.11), and so would be all that
# tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
find_system_programs()  # whoever runs the tests: those ask whether there is a program, and start some


@cache
def _datapath() -> str:
    """What labs take that are not told otherwise."""
    return platform.choose_datapath("auto")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The kernel's release; for tests with labs the datapath that they have unless they name one."""
    item.user_properties.append(("kernel", os.uname().release))
    if item.path.is_relative_to(item.config.rootpath / "tests" / "lab"):
        item.user_properties.append(("datapath", _datapath()))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave no process behind."""
    as_root.end(config)

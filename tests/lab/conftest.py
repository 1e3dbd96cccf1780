"""Starts and ends the labs of tests; says why where there can be none."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from functools import cache

import pytest
from running import RunningLab, StartLab, mininetes

from topo import platform


@pytest.fixture(scope="module")
def start_lab() -> Iterator[StartLab]:
    """Starts labs, and ends them after the module's tests."""
    started: list[RunningLab] = []

    def start(*arguments: str) -> RunningLab:
        lab = RunningLab(f"test-{uuid.uuid4().hex[:8]}")
        done = mininetes("up", "--detach", "--lab", lab.name, *arguments, timeout=120)
        assert done.returncode == 0, done.stderr + done.stdout
        started.append(lab)
        return lab

    yield start
    for lab in started:
        lab.ask("down", ok=False)


@cache
def lacking() -> str:
    """What keeps an ordinary user from having labs here, with what would provide it; "" if nothing does."""
    found = () if os.getuid() == 0 else (platform.namespaces(), platform.tun())
    return "; ".join(f"{part.part}: {part.detail}: {part.remedy}" for part in found if not part.there)


def pytest_runtest_setup() -> None:
    """Skip every test here, so that one line says why, where there can be no lab."""
    if lacking():
        pytest.skip(lacking())

"""Starts and ends the labs of tests; says why where there can be none."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from running import RunningLab, StartLab, mininetes


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Labs need root here or a user namespace with /dev/net/tun; say why where neither is."""
    if os.getuid() == 0 or os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return
    for item in items:
        if "tests/lab" in str(item.path):
            item.add_marker(pytest.mark.skip(reason="not root, and /dev/net/tun cannot be opened: chmod 0666 it"))

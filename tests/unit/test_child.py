"""A lab's process of its own: its status, and what becomes of an error that nobody caught in it."""

from __future__ import annotations

import pytest

from scenarios.lab.child import in_child


def test_the_status_is_the_child_s() -> None:
    assert in_child(lambda: 3) == 3


def test_an_error_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    assert in_child(lambda: int("none")) == 1
    assert "invalid literal" in capfd.readouterr().err

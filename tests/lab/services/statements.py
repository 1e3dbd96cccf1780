"""Kubernetes' own statements about Services: which are tested here, and why the others are not as they are written."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

FILE = Path(__file__).parents[2] / "data" / "services" / "e2e-statements.yaml"
# Statements ask by a Service's name in places; here it is its address, and names are tests/lab/test_dns.py's.
NOT_AS_WRITTEN = {
    "kubernetes-service": "nothing listens where an API server would; a Service that leads there would be none",
    "restart-apiserver": "the store is the lab's own process, and ends with it",
    "tcp-invalid-dropped": "no segment is made by hand; tests/unit/test_simulate.py holds that invalid ones end",
}


def written() -> set[str]:
    """The ids of all statements."""
    return {s["id"] for s in yaml.safe_load(FILE.read_text())["statements"]}


def covered(modules: tuple[ModuleType, ...]) -> set[str]:
    """The ids that cases name."""
    found: set[str] = set()
    for module in modules:
        cases: list[Any] = [x for name, x in vars(module).items() if name.startswith("test_")]
        marks = [mark for case in cases for mark in getattr(case, "pytestmark", ())]
        found |= {name for mark in marks if mark.name == "statement" for name in mark.args}
    return found

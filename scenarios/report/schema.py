"""The schema of result.json (result.schema.json beside this file), and checking a document against it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from topo.cluster.errors import InputError

# A reader of v1 may rely on every key that its schema requires; keys may be added, a change of meaning is a v2.
NAME = "mininetes/result/v1"
FILE = Path(__file__).with_name("result.schema.json")


def check(document: Any, where: str) -> None:
    """Raises InputError, which names the first place that is wrong."""
    from jsonschema import Draft202012Validator  # half the time of starting a verb
    from jsonschema.exceptions import best_match

    found = document.get("schema") if isinstance(document, dict) else None
    if found != NAME:
        raise InputError(f"{where}: schema", f"unknown schema {found!r}", NAME)
    problem = best_match(Draft202012Validator(json.loads(FILE.read_text())).iter_errors(document))
    if problem is not None:
        raise InputError(f"{where}: {problem.json_path}", f"does not fit {NAME} ({problem.message[:200]})")

"""What we read out of BIRD, against BGP messages of another implementation and what they are said to mean."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controllers.bgp import control, show

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests" / "data" / "bgp" / "vectors.json").read_text())["encoding"]


def plain(vector: dict[str, Any]) -> dict[str, str]:
    """Prefix -> next hop, of an UPDATE that announces IPv4 routes and nothing else; {} for another."""
    announced = vector.get("update", {}).get("announce", {})
    # An attribute that is not optional and that nobody knows ends the session, rightly (RFC 4271, section 6.3).
    strange = any(name.startswith("attribute-") for name in vector.get("update", {}).get("attribute", {}))
    if vector["type"] != 2 or set(announced) != {"ipv4 unicast"} or strange:
        return {}
    routes = [(hop, route) for hop, routes in announced["ipv4 unicast"].items() for route in routes]
    return (
        {r["nlri"]: hop for hop, r in routes} if all(set(r) == {"nlri"} and ":" not in hop for hop, r in routes) else {}
    )


@pytest.mark.skipif(shutil.which("bird") is None, reason="bird2 is not installed")
def test_birds_answers_are_read_as_the_messages_mean_them(tmp_path: Path) -> None:
    chosen = [vector for vector in VECTORS if plain(vector)]
    assert len(chosen) >= 40
    sessions = [{"own": v["asn"]["local"], "bird": v["asn"]["peer"], "updates": [v["hex"]]} for v in chosen]
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    command = [
        "unshare",
        *user,
        "--net",
        sys.executable,
        str(Path(__file__).with_name("bgp_raw_peer.py")),
        str(tmp_path),
    ]
    done = subprocess.run(
        command,
        input=json.dumps(sessions),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    for vector, lines in zip(chosen, json.loads(done.stdout), strict=True):
        paths = {path["prefix"]: path for path in show.bird(control.routes(lines))}
        expected, said = plain(vector), vector["update"]["attribute"]
        assert set(paths) == set(expected), vector["command"]
        for path in paths.values():
            assert path["origin"] == {"igp": "i", "egp": "e", "incomplete": "?"}[said["origin"]]
            assert path["med"] == said.get("med", 0)
            assert path["localPreference"] == said.get("local-preference", 100)
            assert path["communities"] == [f"{a}:{b}" for a, b in said.get("community", ())]
            assert path["asPath"] == [
                asn for segment in said.get("as-path", {}).values() for asn in segment.get("value", ())
            ]

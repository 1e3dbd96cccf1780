"""The CNI benchmark, as small as it gets: wires carry no more than they should, servers serve, costs are there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from running import mininetes

RATE = 40
CHOSEN = ("cnis=flannel udp", "tests=tcp,http,ftp,scp,connections", f"rate={RATE}")


def test_the_benchmark_of_one_cni_on_a_shaped_wire(tmp_path: Path) -> None:
    options = [word for one in CHOSEN for word in ("--option", one)]
    own = ("--lab", f"benchmark-{os.getpid()}", "--results", str(tmp_path))
    few = ("--nodes", "2", "--repeats", "1", "--seconds", "0.05", "--json")
    done = mininetes("run", "cni-benchmark", *own, *few, *options, timeout=180)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    found: Any = json.loads(done.stdout)
    values = {(m["name"], m["path"]): m["summary"] and m["summary"]["p50"] for m in found["measurements"]}
    streams = ("tcp_throughput", "http_download", "ftp_download", "scp_download")
    for path in (
        "no CNI, shaped: bare",
        "no CNI, shaped: nodes",
        "flannel udp, shaped: nodes",
        "flannel udp, shaped: pod",
    ):
        for name in streams:
            # A link's burst is 64 KiB beyond its rate.
            assert 0 < values[name, path] < 1.1 * RATE * 1e6, (name, path)
        assert values["http_connections", path] > 0
    assert values["tcp_throughput", "flannel udp, shaped: Service"] > 0
    # The tunnel is a program of each node; without it nodes have their switch and their part of the agent.
    details = {m["path"]: m["details"] for m in found["measurements"] if m["name"] == "node_memory"}
    assert details["no CNI, shaped: idle"]["programs_mb"] == 0
    assert details["flannel udp, shaped: idle"]["programs_mb"] > 1
    assert values["cpu_cost", "flannel udp, shaped: pod"] > 0 and values["flows", "flannel udp, shaped: idle"] > 0
    titles = [table["title"] for table in found["tables"]]
    rows = {row[0]: row for row in found["tables"][0]["rows"]}
    assert titles[0] == "shaped: Mbit/s between two nodes" and set(rows) == {"bare", "no CNI", "flannel udp"}
    assert rows["flannel udp"][1].rstrip("*").endswith(" one repeat")  # which is no ground for a rating

"""How long labs take to be ready and to go, how much memory they hold, beside plain Mininet's bare hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figure import Figure, in_capsule
from topo import capsule
from topo.ovs import empty_database

PODS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: @N@
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
"""


def figures() -> list[Figure]:
    """A small and a large lab, and plain Mininet with as many hosts on one switch, in turn."""
    small, down_small, _ = _lab(3, 30)
    plain = in_capsule(lambda: _plain_mininet(420))[0].value
    large, down_large, memory = _lab(20, 400)
    return [
        Figure("lab of 3 nodes, 30 pods: ready", small, "s", 4),
        Figure("lab of 3 nodes, 30 pods: down", down_small, "s", 1),
        Figure("lab of 20 nodes, 400 pods: ready", large, "s", 30),
        Figure("lab of 20 nodes, 400 pods: down", down_large, "s", 1),
        Figure("plain Mininet, 420 bare hosts on one switch: started", plain, "s"),
        Figure("ratio of the two, per host", large / plain, "", 1.0),
        Figure("memory a node (vswitchd and ovsdb-server)", memory["node"], "MB", 45),
        Figure("memory a pod (holder and its share of the stand-in)", memory["pod"], "MB", 8),
        Figure("memory of the controller", memory["controller"], "MB", 150),
    ]


def _lab(nodes: int, pods: int) -> tuple[float, float, dict[str, float]]:
    """Seconds from the command to ready, seconds to be gone, and memory, of a lab started as a user starts it."""
    name = f"bench-{os.getpid()}"
    command = [sys.executable, "-m", "scenarios"]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(PODS.replace("@N@", str(pods)))
        file.flush()
        begun = time.monotonic()
        up = [*command, "up", "--detach", "--lab", name, "--nodes", str(nodes), file.name]
        subprocess.run(up, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "MININETES_BENCH": name})
        ready = time.monotonic() - begun
    memory = _memory(name, pods)
    done = subprocess.run([*command, "down", "--lab", name, "--json"], check=True, capture_output=True, text=True)
    return ready, float(json.loads(done.stdout)["seconds"]), memory


def _memory(name: str, pods: int) -> dict[str, float]:
    """Proportional set sizes in MB, of the processes that bear the benchmark's mark in their environment."""
    sums = {"ovs-vswitchd": 0.0, "ovsdb-server": 0.0, "sleep": 0.0, "topo.standin": 0.0, "controllers": 0.0}
    counts = dict.fromkeys(sums, 0)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if f"MININETES_BENCH={name}".encode() not in (entry / "environ").read_bytes():
                continue
            words = (entry / "cmdline").read_text().split("\0")
            kind = next((k for k in sums if words[0] == k or words[1:3] == ["-m", k]), None)
            if kind:
                lines = (entry / "smaps_rollup").read_text().splitlines()
                sums[kind] += next(int(x.split()[1]) for x in lines if x.startswith("Pss:")) / 1024
                counts[kind] += 1
        except OSError:
            continue  # it ended
    switches = counts["ovs-vswitchd"]
    return {
        "node": (sums["ovs-vswitchd"] + sums["ovsdb-server"]) / switches,
        "pod": (sums["sleep"] + sums["topo.standin"]) / pods,
        "controller": sums["controllers"],
    }


def _plain_mininet(hosts: int) -> list[Figure]:
    """Mininet's own classes: bare hosts with a link each to one userspace switch, built and started."""
    from mininet.net import Mininet
    from mininet.node import OVSSwitch
    from mininet.topo import SingleSwitchTopo

    Mininet.inited = True  # else it would raise limits of the whole machine
    # One private Open vSwitch for Mininet's tools to find, in the capsule's own namespace.
    run = capsule.RUN / "plain"
    run.mkdir()
    os.environ |= {"OVS_RUNDIR": str(run), "OVS_DBDIR": str(run), "OVS_LOGDIR": str(run)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": run}
    empty = empty_database(capsule.RUN)
    database = ["ovsdb-server", str(empty), f"--remote=punix:{run}/db.sock", f"--unixctl={run}/db.ctl"]
    subprocess.Popen(database, **quiet)  # type: ignore[call-overload]
    while not (run / "db.sock").exists():
        time.sleep(0.01)
    subprocess.run(["ovs-vsctl", "--no-wait", "init"], check=True)
    subprocess.Popen(["ovs-vswitchd", f"unix:{run}/db.sock"], **quiet)  # type: ignore[call-overload]
    begun = time.monotonic()
    network = Mininet(
        SingleSwitchTopo(hosts), controller=None, switch=lambda *a, **k: OVSSwitch(*a, datapath="user", **k)
    )
    network.start()
    return [Figure("plain", time.monotonic() - begun, "s")]

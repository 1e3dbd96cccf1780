"""Measuring for real, between namespaces of its own inside a capsule: nothing touches the host's network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = [name for name in ("unshare", "mnexec", "ip", "iperf3", "ethtool") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(bool(NEEDED), reason=f"not installed: {', '.join(NEEDED)}")

# Every script is the capsule's process 1; whatever else is in its /proc at the end was left running.
PRELUDE = f"""
import json, os, signal, subprocess, sys
sys.path.insert(0, {str(ROOT)!r})
from scenarios.measure import place, suite, usage
def left():
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and name != "1"]
def say(**found):
    print(json.dumps(found | {{"left": left(), "devices": os.listdir("/proc/sys/net/ipv4/conf")}}))
"""


def in_capsule(script: str) -> dict[str, Any]:
    """Run a script in its own network and PID namespaces, all of it ended with this call; what it said."""
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    capsule = ["unshare", *user, "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*capsule, sys.executable, "-c", PRELUDE + script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.pop("left") == [], "programs were left running"
    assert sorted(found.pop("devices")) == ["all", "default", "lo"], "devices were made outside the namespaces"
    return found


@pytest.mark.parametrize("tx_off", [False, True])
def test_the_baseline_is_measured_in_every_way(tx_off: bool) -> None:
    found = in_capsule(f"""
from dataclasses import asdict
progress = []
measurements, samples, note = suite.baseline(repeats=1, seconds=0.05, progress=progress.append, tx_off={tx_off})
say(measurements=[asdict(one) for one in measurements], runs=[len(one.values) for one in samples],
    note=note, progress=progress)
""")
    kinds = ["icmp_rtt", "tcp_rr", "tcp_crr", "udp_rr", "tcp_throughput", "udp_throughput"]
    assert [one["name"] for one in found["measurements"]] == kinds
    for one in found["measurements"]:
        assert one["note"] == ""
        assert 0 < one["summary"]["p50"] <= one["summary"]["p90"] <= one["summary"]["p99"]
        if one["unit"] == "us":
            assert one["lost"] == 0
    assert found["runs"] == [one["repeats"][0]["count"] for one in found["measurements"]]
    assert found["progress"][1] == "baseline: TCP RR 1/1"
    assert ("offload off" in found["note"]) is tx_off


def test_offload_is_really_off() -> None:
    found = in_capsule("""
with suite.baseline_places(tx_off=True) as ends:
    states = [place.run(end, ["ethtool", "-k", "eth0"], 5) for end in ends]
say(states=states)
""")
    for state in found["states"]:
        assert "tx-checksumming: off" in state
        assert "tx-tcp-segmentation: off" in state


def test_same_pod_and_service_address() -> None:
    # A second address of the server stands for a ClusterIP: the servers do not listen on it, a DNAT would be needed;
    # so nothing answers, and that is told as such instead of ending the whole measurement.
    found = in_capsule("""
with suite.baseline_places() as (client, server):
    loopback = place.Place("same", client.pid, "127.0.0.1")
    same, _ = suite.measure_path("same pod", loopback, loopback, repeats=1, seconds=0.02)
    service, _ = suite.measure_path("ClusterIP", client, client, address=server.address, repeats=1, seconds=0.02)
say(same=[one.note for one in same], service={one.name: one.note for one in service})
""")
    assert found["same"] == [""] * 6
    assert found["service"]["icmp_rtt"] == "not measured: a ClusterIP answers no ICMP"
    assert found["service"]["tcp_rr"] == "not measured: Connection refused"
    assert "Connection refused" in found["service"]["tcp_throughput"]


# 20 % of what a device sends, by netfilter or by traffic control, whichever the machine has. tc has no random drop
# but netem and act_gact; where the kernel lacks both, a classic BPF filter on a random number (SKF_AD_OFF +
# SKF_AD_RANDOM, linux/filter.h) can choose an HTB class that ends in a blackhole.
LOSE = """
import shutil
def commands():
    if shutil.which("nft"):
        yield "nft add table ip lossy"
        yield "nft add chain ip lossy out { type filter hook output priority 0 ; }"
        yield "nft add rule ip lossy out numgen random mod 100 < 20 drop"
        return
    below = (2**32 - 1) * 20 // 100
    program = f"4,32 0 0 {0xfffff000 + 56},37 1 0 {below},6 0 0 65535,6 0 0 0"
    yield "tc qdisc add dev eth0 root handle 1: htb default 1"
    yield "tc class add dev eth0 parent 1: classid 1:1 htb rate 10gbit quantum 60000"
    yield "tc class add dev eth0 parent 1: classid 1:2 htb rate 10gbit quantum 60000"
    yield "tc qdisc add dev eth0 parent 1:2 handle 2: blackhole"
    yield ["tc", *"filter add dev eth0 parent 1: protocol ip bpf bytecode".split(), program, "flowid", "1:2"]
def lose(end):
    for command in commands():
        place.run(end, command if isinstance(command, list) else command.split(), 5)
"""


def test_loss_is_counted_as_loss() -> None:
    found = in_capsule(
        LOSE
        + """
with suite.baseline_places() as (client, server):
    try:
        lose(server)
        problem = ""
    except place.ProgramError as refused:
        problem = str(refused)
    limits = dict(seconds=20, count=300, timeout=0.03)
    runs = {} if problem else {
        "icmp": suite.ping(client, server.address, **limits),
        "udp": suite.request_response(client, server, "udp", **limits),
        "crr": suite.request_response(client, server, "crr", **limits),
    }
say(problem=problem, runs={name: (len(run.values), run.lost, run.problem) for name, run in runs.items()})
"""
    )
    if found["problem"]:
        print(found["problem"])
        pytest.skip(f"neither nft nor tc can drop at random here: {found['problem']}")
    for name, (answered, lost, problem) in found["runs"].items():
        assert answered + lost == 300
        # Four standard deviations are 9 %. Of a CRR's packets a lost SYN-ACK is always a loss (it is sent again after
        # a second, RFC 6298), a lost answer or FIN only if TCP does not make it good within the time-out.
        least, most = (0.11, 0.60) if name == "crr" else (0.11, 0.30)
        assert least <= lost / 300 <= most, name
        assert problem == "no answer in time"


def test_an_mtu_is_found_by_dont_fragment() -> None:
    found = in_capsule("""
with suite.baseline_places() as (client, server):
    sizes = [(1472, True), (1473, True), (1473, False)]
    runs = [suite.ping(client, server.address, seconds=5, count=5, size=size, dont_fragment=df) for size, df in sizes]
say(runs=[(len(run.values), run.lost, run.problem) for run in runs])
""")
    assert found["runs"] == [[5, 0, ""], [0, 5, "Message too long"], [5, 0, ""]]


def test_an_interrupted_measurement_leaves_nothing_running() -> None:
    found = in_capsule("""
def interrupt(step):
    if step == "baseline: TCP CRR 1/3":
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)  # again, until it is in the middle of the run
def runs(pid):
    try:
        return b"\\0client\\0crr" in open(f"/proc/{pid}/cmdline", "rb").read()
    except OSError:
        return False
def handler(*_):
    if any(map(runs, left())):
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, handler)
interrupted = False
try:
    suite.baseline(seconds=5, progress=interrupt)
except KeyboardInterrupt:
    interrupted = True
say(interrupted=interrupted)
""")
    assert found["interrupted"]


def test_usage_counts_cpu_and_memory() -> None:
    found = in_capsule("""
import time
from dataclasses import asdict
before = usage.read({"self": [os.getpid()], "none": [999999]})
until = time.process_time() + 0.3
while time.process_time() < until:
    pass
subprocess.run([sys.executable, "-I", "-S", "-c", "import time\\nwhile time.process_time() < 0.3: pass"])
cost = usage.difference(before, usage.read({"self": [os.getpid()], "none": [999999]}))
say(cost=asdict(cost))
""")
    own = found["cost"]["groups"]["self"]
    assert 0.5 <= own["cpu_seconds"] <= 1.5
    assert own["memory"] > 1 << 20
    assert found["cost"]["groups"]["none"] == {
        "cpu_seconds": 0.0,
        "cpus": 0.0,
        "memory": 0,
        "memory_growth": 0,
        "ended": 0,
    }


def test_every_kind_of_device_carries_packets_and_leaves_nothing() -> None:
    found = in_capsule("""
from contextlib import ExitStack
from scenarios.measure import device_pairs
from topo import capsule
from topo.cluster.errors import PlatformError
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
capsule.RUN.mkdir()
lost, missing, obeyed = {}, {}, {}
for name, build in device_pairs.KINDS.items():
    with ExitStack() as stack:
        try:
            pair = build(stack)
            obeyed[name] = device_pairs.set_offload(pair, False)
            run = suite.request_response(pair.client, pair.server, "tcp", seconds=0.02, address=pair.address, port=7001)
            lost[name] = run.lost if run.values else run.problem
        except PlatformError as problem:
            missing[name] = str(problem)
files = [str(file) for file in capsule.RUN.iterdir()]
say(lost=lost, missing=missing, obeyed=obeyed, files=files)
""")
    print(found["missing"])
    assert found["lost"] == dict.fromkeys(found["lost"], 0) and found["files"] == []
    # What every machine of a lab has; the others say what they lack.
    assert {"veth", "TAP", "OVS userspace", "routed"} <= set(found["lost"])
    assert all(": " in why for why in found["missing"].values())
    assert [name for name, did in found["obeyed"].items() if not did] in ([], ["macvlan"])

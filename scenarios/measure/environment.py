"""What results were measured on: the machine, its programs' versions and how busy it was already."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

# Percent of the CPUs' time from which on they are taken for the limit.
BUSY = 90.0


def environment(
    *, datapath: str, offloads: str, seed: int | None, checkout: Path | None = None, watch: float = 0.5
) -> dict[str, object]:
    """Describe the machine and its programs. Takes `watch` seconds, to see how busy the machine is before the run.

    datapath, offloads: of the lab ("userspace OVS", "tx checksum off"). checkout: where to look for a git commit.
    """
    before = cpu_times_now()
    time.sleep(watch)
    busy, steal = shares(before, cpu_times_now())
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "tcp_congestion_control": _read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "ovs": version(_output(["ovs-vsctl", "--version"])),
        "iperf3": version(_output(["iperf3", "--version"])),
        "python": platform.python_version(),
        "mininet": _package("mininet"),
        "ryu": _package("ryu"),
        "datapath": datapath,
        "offloads": offloads,
        "seed": seed,
        "commit": commit(checkout),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "busy_percent_before": busy,
        "steal_percent_before": steal,
    }


def cpu_model(cpuinfo: str) -> str | None:
    """The processor's name from /proc/cpuinfo, where it tells one (on ARM it does not)."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else None


def cpu_times(stat: str) -> tuple[int, ...]:
    """user, nice, system, idle, iowait, irq, softirq, steal ticks of all CPUs from /proc/stat (proc_stat(5))."""
    return tuple(int(word) for word in stat.splitlines()[0].split()[1:9])


def cpu_times_now() -> tuple[int, ...]:
    """As they are now; `shares` tells what they became."""
    return cpu_times(Path("/proc/stat").read_text())


def shares(before: Sequence[int], after: Sequence[int]) -> tuple[float, float]:
    """Percent of the CPUs' time that was busy, and that the hypervisor gave to others (steal)."""
    spent = [new - old for old, new in zip(before, after, strict=True)]
    total = sum(spent) or 1
    idle, steal = spent[3] + spent[4], spent[7]
    return round(100 * (total - idle - steal) / total, 1), round(100 * steal / total, 1)


def cpu_bound(busy: Mapping[str, float]) -> list[str]:
    """A sentence that names what was measured while the CPUs had nothing left; none if nothing was.

    busy: percent of the machine's CPUs, whoever used them, by what was measured.
    """
    found = [f"{name} ({percent:.0f} %)" for name, percent in busy.items() if percent >= BUSY]
    where = "everything that was measured" if len(found) == len(busy) > 1 else ", ".join(found)
    return [f"The machine's CPUs were the limit, or waited for, in {where}."] if found else []


def version(output: str | None) -> str | None:
    """The first thing in a program's output that looks like a version number."""
    found = re.search(r"\d+\.\d+(\.\d+)*", output or "")
    return found[0] if found else None


def commit(checkout: Path | None) -> str | None:
    """The commit that is checked out, "+changes" if files differ from it; None if it is no checkout."""
    if checkout is None or (head := _output(["git", "-C", str(checkout), "rev-parse", "HEAD"])) is None:
        return None
    changed = _output(["git", "-C", str(checkout), "status", "--porcelain", "--untracked-files=no"])
    return head.strip() + ("+changes" if changed else "")


def _output(argv: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _package(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None

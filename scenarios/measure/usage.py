"""What groups of processes cost between two readings: CPU time and memory, from /proc (proc_pid_stat(5))."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MemoryKind = Literal["PSS", "RSS"]


@dataclass(frozen=True, slots=True)
class Process:
    """One process's costs. pss is None where the kernel does not tell it."""

    cpu_seconds: float
    rss: int
    pss: int | None


@dataclass(frozen=True, slots=True)
class Group:
    """cpu_seconds: since the processes' start. memory: bytes. pids: those that were there."""

    cpu_seconds: float
    memory: int
    pids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Usage:
    """A reading. memory_kind: PSS shares common pages out; RSS counts them once for each process, so too high."""

    at: float
    groups: Mapping[str, Group]
    memory_kind: MemoryKind


@dataclass(frozen=True, slots=True)
class GroupCost:
    """cpu_seconds: used in between. cpus: that per second, 1.0 is one CPU. memory: bytes at the end; growth: since.

    ended: processes that were gone at the end. Their last CPU time is counted only if their parent is in the group
    and has waited for them; otherwise cpu_seconds is too low.
    """

    cpu_seconds: float
    cpus: float
    memory: int
    memory_growth: int
    ended: int


@dataclass(frozen=True, slots=True)
class Cost:
    seconds: float
    groups: Mapping[str, GroupCost]
    memory_kind: MemoryKind


def parse_stat(text: str, children: bool) -> float:
    """CPU seconds, user and system, from /proc/PID/stat; with those of children that were waited for, or without."""
    # The name in parentheses may have blanks and parentheses itself; after the last one comes field 3.
    fields = text[text.rindex(")") + 1 :].split()
    utime, stime, cutime, cstime = (int(field) for field in fields[11:15])
    return (utime + stime + (cutime + cstime if children else 0)) / TICK


def parse_pss(text: str) -> int | None:
    """Bytes of PSS from /proc/PID/smaps_rollup; None if it does not say."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def read_process(pid: int, children: bool = True) -> Process | None:
    """One process's costs until now; None if there is no such process."""
    folder = Path(f"/proc/{pid}")
    try:
        cpu = parse_stat((folder / "stat").read_text(), children)
        rss = int((folder / "statm").read_text().split()[1]) * PAGE
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        pss = parse_pss((folder / "smaps_rollup").read_text())
    except OSError:  # No CONFIG_PROC_PAGE_MONITOR, not allowed (ptrace(2), access mode), or a kernel thread.
        pss = None
    return Process(cpu, rss, pss if rss else 0)


def age(pid: int) -> float:
    """Seconds since a process began (proc_pid_stat(5), field 22; proc_uptime(5))."""
    began = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) / TICK
    return float(Path("/proc/uptime").read_text().split()[0]) - began


def read(groups: Mapping[str, Iterable[int]], *, children: bool = True) -> Usage:
    """Read the costs of groups of pids.

    children: count children that have ended and were waited for. Right for daemons that fork helpers; wrong for a
    process that also starts the measurement's own programs.
    """
    found = {
        name: {pid: process for pid in set(pids) if (process := read_process(pid, children)) is not None}
        for name, pids in groups.items()
    }
    # One kind for all, or the groups could not be compared.
    everywhere = all(process.pss is not None for group in found.values() for process in group.values())
    return Usage(
        at=time.monotonic(),
        groups={
            name: Group(
                cpu_seconds=sum(process.cpu_seconds for process in group.values()),
                memory=sum(
                    process.pss if everywhere and process.pss is not None else process.rss for process in group.values()
                ),
                pids=frozenset(group),
            )
            for name, group in found.items()
        },
        memory_kind="PSS" if everywhere else "RSS",
    )


def difference(before: Usage, after: Usage) -> Cost:
    """What the groups of the second reading cost since the first.

    The memory growth is 0 if the two readings are of different kinds.
    """
    seconds = after.at - before.at
    same = before.memory_kind == after.memory_kind
    costs = {}
    for name, group in after.groups.items():
        old = before.groups.get(name, Group(0.0, 0, frozenset()))
        cpu = max(0.0, group.cpu_seconds - old.cpu_seconds)
        costs[name] = GroupCost(
            cpu_seconds=cpu,
            cpus=cpu / seconds if seconds > 0 else 0.0,
            memory=group.memory,
            memory_growth=group.memory - old.memory if same else 0,
            ended=len(old.pids - group.pids),
        )
    return Cost(seconds, costs, after.memory_kind)

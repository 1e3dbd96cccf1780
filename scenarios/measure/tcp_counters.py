"""What TCP of a network namespace has counted, from /proc (proc_pid_net(5); RFC 4022 for the names of snmp's)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

RETRANSMITTED, TIMEOUTS = "Tcp.RetransSegs", "TcpExt.TCPTimeouts"


def parse(text: str) -> dict[str, int]:
    """GROUP.NAME -> value, of a file whose lines are in pairs: a group's names, then its values."""
    lines = [line.split() for line in text.splitlines()]
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        group = names[0].rstrip(":")
        found |= {f"{group}.{name}": int(value) for name, value in zip(names[1:], values[1:], strict=True)}
    return found


def total(pids: Iterable[int], *names: str) -> tuple[int, ...]:
    """Each counter's sum over the namespaces of these processes."""
    sums = dict.fromkeys(names, 0)
    for pid in pids:
        found = parse(Path(f"/proc/{pid}/net/snmp").read_text()) | parse(Path(f"/proc/{pid}/net/netstat").read_text())
        for name in names:
            sums[name] += found[name]
    return tuple(sums.values())

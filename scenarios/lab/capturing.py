"""The program that captures on an interface and writes a pcap file to its standard output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def command(interface: str, count: int | None, words: Sequence[str], *, may_drop: bool) -> list[str]:
    """words: a filter (pcap-filter(7)); may_drop: whether a process can become another user here.

    tcpdump does that before it captures, and ends where it cannot: in a user namespace dumpcap(1) captures, which stays
    who it is. Without --immediate-mode the kernel holds packets back for up to a second, and the last are lost then.
    """
    most = ["-c", str(count)] if count else []
    if may_drop:
        return ["tcpdump", "-i", interface, "--immediate-mode", "-U", "-w", "-", *most, *words]
    return ["dumpcap", "-q", "-P", "-i", interface, "-w", "-", *most, *(["-f", " ".join(words)] if words else [])]


def may_drop_privileges() -> bool:
    """Whether setgroups(2) is allowed (user_namespaces(7), /proc/PID/setgroups)."""
    return Path("/proc/self/setgroups").read_text().strip() == "allow"

"""Bandwidth, delay and loss of a link end, by Linux traffic control."""

from __future__ import annotations

import subprocess

from topo.cluster.errors import PlatformError
from topo.config import LinkConfig
from topo.hosts import Host

# What to say for each queueing discipline that a kernel may lack.
_NEEDS = {"netem": "link delay and loss need sch_netem", "htb": "link bandwidth needs sch_htb"}


def commands(link: LinkConfig, interface: str) -> list[tuple[str, list[str]]]:
    """(queueing discipline, tc arguments) in order; none for a link that is not shaped (tc-htb(8), tc-netem(8))."""
    out: list[tuple[str, list[str]]] = []
    parent = ["root"]
    if link.bandwidth is not None:
        rate = f"{link.bandwidth:g}mbit"
        out.append(("htb", ["qdisc", "add", "dev", interface, "root", "handle", "1:", "htb", "default", "1"]))
        # The burst carries 10 ms at full rate and never less than one large packet.
        burst = f"{max(int(link.bandwidth * 1250), 65536)}b"
        out.append(
            (
                "htb",
                ["class", "add", "dev", interface, "parent", "1:", "classid", "1:1", "htb", "rate", rate]
                + ["burst", burst, "cburst", burst],
            )
        )
        parent = ["parent", "1:1"]
    if link.delay or link.loss:
        netem = ["netem", "limit", "10000"]
        netem += ["delay", f"{link.delay * 1000:g}us"] if link.delay else []
        netem += ["loss", f"{link.loss:g}%"] if link.loss else []
        out.append(("netem", ["qdisc", "add", "dev", interface, *parent, "handle", "2:", *netem]))
    return out


def apply(host: Host, interface: str, link: LinkConfig) -> None:
    """Shape what leaves by an interface. Raises PlatformError naming what the kernel lacks."""
    for discipline, arguments in commands(link, interface):
        try:
            host.run("tc", *arguments)
        except subprocess.CalledProcessError as error:
            if "qdisc kind is unknown" in error.stderr or "No such file" in error.stderr:
                raise PlatformError(
                    f"{_NEEDS[discipline]}, which this kernel lacks",
                    f"modprobe sch_{discipline}, or run in a VM with a distribution's kernel",
                ) from error
            raise PlatformError(f"tc refused {' '.join(arguments)}", error.stderr.strip()) from error


def reset(host: Host, interface: str) -> None:
    """Shape it no more."""
    if any(
        line.split()[1] in _NEEDS for line in host.run("tc", "qdisc", "show", "dev", interface, "root").splitlines()
    ):
        host.run("tc", "qdisc", "del", "dev", interface, "root")

"""What a lab that is not whole holds, for whoever has to find out why: switches' flows and memory, programs' logs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from topo import capsule
from topo.lab import Lab

# What is asked of every bridge (ovs-ofctl(8)), and of every switch (ovs-vswitchd(8)).
_BRIDGE = ("show", "dump-flows", "dump-groups")
_SWITCH = {
    "megaflows": ("dpctl/dump-flows", "-m"),
    "connections": ("dpctl/dump-conntrack", "-m"),
    "coverage": ("coverage/show",),
}


def gather(lab: Lab) -> Mapping[str, str]:
    """Texts by the name of the file that each becomes. What cannot be asked says why."""
    switches = {name: machine.switch for name, machine in lab.switches.items()}
    switches |= {node.name: node.machine.switch for node in lab.nodes.values()}
    found = {"store.json": json.dumps(list(lab.store), indent=1)}
    for name, bridge in lab.bridges():
        found |= {f"{name}.{bridge}.{what}": _said(switches[name].ofctl, what, bridge) for what in _BRIDGE}
    for name, switch in switches.items():
        found |= {f"{name}.{what}": _said(switch.appctl, *asked) for what, asked in _SWITCH.items()}
    return found | logs(capsule.RUN)


def _said(ask: Callable[..., str], *words: str) -> str:
    try:
        return ask(*words)
    except (OSError, RuntimeError) as error:
        return f"{error}\n"


def logs(folder: Path) -> dict[str, str]:
    """Every log below the folder, under its path with dots for slashes."""
    return {
        ".".join(path.relative_to(folder).parts): path.read_text(errors="replace")
        for path in sorted(folder.rglob("*.log"))
    }

"""A lab's wiring as plain data, for whoever draws it: switches, machines, their pods, and links with their limits."""

from __future__ import annotations

from typing import Any

from topo import fabric
from topo.config import LabConfig
from topo.lab import Lab


def describe(lab: Lab) -> dict[str, Any]:
    """What is there now."""
    pods: dict[str, list[str]] = {}
    for pod in lab.store.list("Pod"):
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        pods.setdefault(pod["spec"].get("nodeName", ""), []).append(name)
    attached = {name: node.attachment.switch for name, node in lab.nodes.items()}
    return wiring(lab.config, attached, pods)


def wiring(config: LabConfig, attached: dict[str, str], pods: dict[str, list[str]]) -> dict[str, Any]:
    """attached: node -> its switch; pods: node -> its pods."""
    switches = fabric.switches(config.fabric)
    machines = {**attached, fabric.CLIENT: fabric.attach_client(config.fabric).switch}
    leaves = [s for s in switches if s.tier == "leaf"]
    # Each once: two leaves may be joined to one another.
    pairs = list({tuple(sorted((s.name, peer))): None for s in leaves for peer in s.ports.values()})
    pairs += [(switch, machine) for machine, switch in machines.items()]
    return {
        "switches": [{"name": s.name, "tier": s.tier} for s in switches],
        "machines": [
            {"name": name, "switch": switch, "node": name != fabric.CLIENT, "pods": sorted(pods.get(name, ()))}
            for name, switch in machines.items()
        ],
        "links": [_link(config, one, two) for one, two in pairs],
    }


def _link(config: LabConfig, one: str, two: str) -> dict[str, Any]:
    """bandwidth: Mbit/s, delay: ms, loss: percent; None for none."""
    limits = fabric.link(config.fabric, one, two)
    return {
        "ends": [one, two],
        "bandwidth": limits.bandwidth,
        "delay": limits.delay,
        "loss": limits.loss,
        "mtu": limits.mtu,
    }

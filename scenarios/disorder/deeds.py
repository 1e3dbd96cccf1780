"""What each kind of failure does to a lab, and how it ends; what each change of the manifests is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

from scenarios.disorder import manifests
from scenarios.disorder.plan import Change, Shape, Step, Target
from scenarios.lab import failures, verbs
from topo import fabric, platform, shaping
from topo.cluster.store import NotFound, Object
from topo.config import LinkConfig
from topo.config_rules import fabric_links
from topo.lab import Lab
from topo.nodes import Machine
from topo.system import wait_end

# Mbit/s of a slow link, percent of packets that a lossy one loses and a duplicating one sends twice.
SLOW, LOSSY, TWICE = 5.0, 20.0, 30


def shape(lab: Lab) -> Shape:
    """What of this lab can break."""
    leaf_spine = lab.config.fabric.shape == "leaf-spine" and lab.config.fabric.spines > 1
    nodes = tuple(node.name for node in lab.config.nodes)
    links = tuple(pair for pair in fabric_links(lab.config) if set(pair) <= set(lab.switches)) if leaf_spine else ()
    birds = tuple(name for name in nodes if _bird_file(lab, name).exists())
    return Shape(nodes, tuple(lab.switches), links, birds, manifests.WORKLOADS)


def left_out(kinds: frozenset[str]) -> dict[str, str]:
    """Of these kinds those that this kernel cannot do, and what they need."""
    has_netem = next(finding.there for finding in platform.findings() if finding.part == "sch_netem")
    why = "needs sch_netem, which this kernel lacks (a VM with a stock kernel has it)"
    return {} if has_netem else dict.fromkeys(sorted(kinds & {"link lossy", "link duplicating"}), why)


def failing(lab: Lab, step: Step) -> AbstractContextManager[None]:
    """The failure begins with the block and ends after it."""
    return _DEEDS[step.fault](lab, step.target)


def change(lab: Lab, wanted: Change) -> None:
    """As a user's `apply` and `delete`."""
    verbs.apply_objects(lab, manifests.made_by(wanted, lab.store.get("Deployment", "default", wanted.target)))
    _remove(lab, manifests.removed_by(wanted))


def rest(lab: Lab) -> None:
    """The manifests as in the beginning."""
    verbs.apply_objects(lab, manifests.at_rest())
    _remove(lab, manifests.extras())


def _remove(lab: Lab, keys: list[tuple[str, str]]) -> None:
    for kind, name in keys:
        with suppress(NotFound):  # it was not there
            lab.store.delete(kind, "default", name)


def _ends(lab: Lab, target: Target) -> tuple[str, str]:
    """(switch, neighbour) of a link; a node alone is its link to its switch, another after it came again."""
    switch, peer = target if len(target) > 1 else (lab.nodes[target[0]].attachment.switch, target[0])
    return switch, peer


def _machine(lab: Lab, name: str) -> Machine:
    return lab.nodes[name].machine if name in lab.nodes else lab.switches[name]


@contextmanager
def _controller(lab: Lab, _: Target) -> Iterator[None]:
    lab.controller.stop()
    yield
    lab.controller.start()


@contextmanager
def _agent(lab: Lab, _: Target) -> Iterator[None]:
    process = lab.agent.process
    assert process is not None
    process.kill()
    yield  # the lab starts it again by itself


@contextmanager
def _switch(lab: Lab, target: Target) -> Iterator[None]:
    machine = _machine(lab, target[0])
    machine.switch.kill_switch()
    yield
    machine.switch.start_switch()
    lab.restore(target[0])


@contextmanager
def _database(lab: Lab, target: Target) -> Iterator[None]:
    machine = _machine(lab, target[0])
    machine.switch.kill_database()
    yield
    machine.switch.restart_database()


def _bird_file(lab: Lab, node: str) -> Path:
    return lab.run / node / "bird" / "bird.pid"


@contextmanager
def _bird(lab: Lab, target: Target) -> Iterator[None]:
    number = int(_bird_file(lab, target[0]).read_text())
    with suppress(ProcessLookupError):  # it may be down already, and not yet up again
        os.kill(number, signal.SIGKILL)
        wait_end(number)
    yield  # the agent starts it again by itself


def _pod(lab: Lab, target: Target) -> Object | None:
    """The pod of a workload that has this place among them now; None if they are none."""
    pods = [p for p in lab.store.list("Pod", "default") if p["metadata"].get("labels", {}).get("app") == target[0]]
    pods = [p for p in pods if f"default/{p['metadata']['name']}" in lab.kubelet.sandboxes]
    pods.sort(key=lambda p: str(p["metadata"]["name"]))
    return pods[int(target[1]) % len(pods)] if pods else None


@contextmanager
def _pod_deleted(lab: Lab, target: Target) -> Iterator[None]:
    pod = _pod(lab, target)
    if pod is not None:
        with suppress(NotFound):
            lab.store.mark_deleted("Pod", "default", pod["metadata"]["name"], 0)
    yield


@contextmanager
def _pod_killed(lab: Lab, target: Target) -> Iterator[None]:
    """What holds its namespaces, as a pause container does."""
    pod = _pod(lab, target)
    sandbox = lab.kubelet.sandboxes.get(f"default/{pod['metadata']['name']}") if pod is not None else None
    if sandbox is not None:
        with suppress(ProcessLookupError):
            os.kill(sandbox.pid, signal.SIGKILL)
    yield


@contextmanager
def _node_dead(lab: Lab, target: Target) -> Iterator[None]:
    with failures.node_dead(lab, target[0]):
        yield


@contextmanager
def _node_replaced(lab: Lab, target: Target) -> Iterator[None]:
    """It leaves, and another of its name joins."""
    labels = dict(next(node for node in lab.config.nodes if node.name == target[0]).labels)
    lab.remove_node(target[0])
    yield
    meta = {"name": target[0], "labels": labels}
    verbs.apply_objects(lab, [{"apiVersion": "v1", "kind": "Node", "metadata": meta}])


@contextmanager
def _cut(lab: Lab, target: Target) -> Iterator[None]:
    with failures.link_down(lab, *_ends(lab, target)):
        yield


@contextmanager
def _shaped(link: LinkConfig, lab: Lab, target: Target) -> Iterator[None]:
    """At the switch's end, in place of how the lab file shapes it, which comes back after."""
    switch, peer = _ends(lab, target)
    host, port = lab.switches[switch].host, failures.port_to(lab, switch, peer)
    shaping.reset(host, port)
    shaping.apply(host, port, link)
    try:
        yield
    finally:
        shaping.reset(host, port)
        shaping.apply(host, port, fabric.link(lab.config.fabric, switch, peer))


@contextmanager
def _twice(lab: Lab, target: Target) -> Iterator[None]:
    switch, peer = _ends(lab, target)
    host, port = lab.switches[switch].host, failures.port_to(lab, switch, peer)
    with _shaped(LinkConfig(), lab, target):
        host.run("tc", "qdisc", "add", "dev", port, "root", "netem", "duplicate", f"{TWICE}%")  # tc-netem(8)
        yield


_DEEDS: Mapping[str, Callable[[Lab, Target], AbstractContextManager[None]]] = {
    "controller killed": _controller,
    "agent killed": _agent,
    "switch killed": _switch,
    "database killed": _database,
    "BIRD killed": _bird,
    "pod deleted": _pod_deleted,
    "pod killed": _pod_killed,
    "node dead": _node_dead,
    "node replaced": _node_replaced,
    "link cut": _cut,
    "uplink cut": _cut,
    "link slow": partial(_shaped, LinkConfig(bandwidth=SLOW)),
    "link lossy": partial(_shaped, LinkConfig(loss=LOSSY)),
    "link duplicating": _twice,
}


def suffer(lab: Lab, step: Step) -> None:
    """All of a step: the failure, what is changed meanwhile, its end."""
    with failing(lab, step):
        for one in step.changes:
            change(lab, one)
        time.sleep(step.seconds)

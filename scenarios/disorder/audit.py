"""Whether what is there is what the store asks for, seen from outside: flows, connections, addresses, processes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from controllers import cni as cnis
from controllers import compile as compiler
from controllers import proxy as proxies
from controllers.flow.actions import ZONE
from controllers.flow.fields import ip_number, ip_text
from controllers.flow.program import LEARNED, Program
from controllers.loads import datagrams
from controllers.registry import discover
from controllers.state import ClusterState
from scenarios.disorder.census import ENDED, census
from topo.cluster.store import Object
from topo.control.workloads import is_over
from topo.lab import Lab

_FLOW = re.compile(r"cookie=(0x[0-9a-f]+).*?table=(\d+), ")
_GROUP = re.compile(r"group_id=(\d+)")
_SHOWN = 3


def audit(lab: Lab) -> list[str]:
    """All that is there and should not be, or should and is not, a sentence each."""
    return [*flows(lab), *connections(lab), *addresses(lab), *ports(lab), *processes(lab)]


def flows(lab: Lab) -> Iterator[str]:
    """Every switch against programs compiled from nothing."""
    for (machine, bridge), program in wanted(lab).items():
        switch = (lab.nodes[machine].machine if machine in lab.nodes else lab.switches[machine]).switch
        where = f"{machine}/{bridge}"
        found = held(switch.ofctl("--no-names", "dump-flows", bridge))
        asked = {(x.table.number, x.cookie): x.text() for fragment in program.values() for x in fragment.flows}
        yield from _set_difference(f"{where}: flow", found.keys(), asked.keys(), found | asked)
        there = buckets(switch.ofctl("dump-groups", bridge))
        groups = {g.id: len(g.buckets) for fragment in program.values() for g in fragment.groups}
        texts = {pair: f"group {pair[0]} of {pair[1]} buckets" for pair in (*there.items(), *groups.items())}
        yield from _set_difference(where, there.items(), groups.items(), texts)


def wanted(lab: Lab) -> dict[compiler.Bridge, Program]:
    """What each bridge should hold, from the store as it is now and nothing else."""
    state = ClusterState()
    for thing in lab.store:
        state.apply(thing["kind"], "ADDED", thing)
    assert state.lab is not None
    cni = discover(cnis, "CNI")[state.lab.cni]
    proxy = discover(proxies, "PROXY")[state.lab.proxy_mode]
    return compiler.everything(state, cni, proxy)


def held(text: str) -> dict[tuple[int, int], str]:
    """Table and cookie of every flow that ovs-ofctl dump-flows lists, but those that a switch was told to learn."""
    found = {}
    for line in text.splitlines():
        match = _FLOW.search(line)
        if match and int(match[1], 16) >> 56 != LEARNED:
            found[int(match[2]), int(match[1], 16)] = line.strip()
    return found


def buckets(text: str) -> dict[int, int]:
    """Of every group that ovs-ofctl dump-groups lists, how many buckets it has."""
    return {int(match[1]): line.count("bucket=") for line in text.splitlines() if (match := _GROUP.search(line))}


def connections(lab: Lab) -> Iterator[str]:
    """Datagrams that a switch would send on to where no endpoint is any more: there they would go for ever.

    A TCP connection to an endpoint that is gone ends by itself, its client's next segment is not answered.
    """
    ends = set(_endpoints(lab.store.list("EndpointSlice")))
    for node in lab.nodes.values():
        shown = node.machine.switch.appctl("dpctl/dump-conntrack", f"zone={ZONE}")
        to_pods = [one for one in datagrams(shown) if IPv4Address(one.endpoint) in lab.config.pod_subnet]
        stale = [one for one in to_pods if (one.endpoint, one.endpoint_port) not in ends]
        if stale:
            said = [f"{ip_text(x.address)}:{x.port} to {ip_text(x.endpoint)}:{x.endpoint_port}" for x in stale]
            ways = ", ".join(sorted(said)[:_SHOWN])
            yield f"{node.name}: {len(stale)} connections to no endpoint: {ways}"


def _endpoints(slices: Iterable[Object]) -> Iterator[tuple[int, int]]:
    """Address and port of all that some Service's datagrams may be sent to."""
    for one in slices:
        for port in one.get("ports") or ():
            for endpoint in one["endpoints"]:
                yield from ((ip_number(address), port["port"]) for address in endpoint["addresses"])


def addresses(lab: Lab) -> Iterator[str]:
    """Reservations of the IPAM plugin against the pods of the store."""
    for node in lab.nodes.values():
        reserved = set(reservations(lab.run / node.name / "cni" / "networks"))
        pods = {str((p.get("status") or {}).get("podIP", "")): _key(p) for p in _attached(lab, node.name)}
        texts = {ip: f"address {ip or '(none yet)'} of {pods.get(ip, 'nobody')}" for ip in reserved | pods.keys()}
        yield from _set_difference(node.name, reserved, pods.keys(), texts)


def reservations(folder: Path) -> Iterator[str]:
    """Addresses that are somebody's, as files called so."""
    for path in folder.glob("*/*"):
        if re.fullmatch(r"[0-9.]+", path.name):
            yield path.name


def ports(lab: Lab) -> Iterator[str]:
    """Interfaces of pods, and ports of the switch, against the pods of the store; only where pods are on the switch."""
    if lab.parts.network.bridged:
        return
    for node in lab.nodes.values():
        mine = sorted(s.interface for s in list(lab.kubelet.sandboxes.values()) if s.node is node and s.interface)
        there = sorted(veths(Path(f"/proc/{node.machine.pid}/net/dev").read_text()))
        plugged = sorted(name for name in node.machine.switch.ports("br-int") if name.startswith("veth"))
        count = len(_attached(lab, node.name))
        if not mine == there == plugged or count != len(mine):
            said = f"{count} pods, {len(mine)} sandboxes, {len(there)} interfaces, {len(plugged)} ports of br-int"
            yield f"{node.name}: {said}"


def veths(text: str) -> Iterator[str]:
    """Pods' interfaces in proc(5), net/dev."""
    for line in text.splitlines()[2:]:
        name = line.partition(":")[0].strip()
        if name.startswith("veth"):
            yield name


def processes(lab: Lab) -> Iterator[str]:
    """A namespace of each machine and pod, a switch and a database of each machine, and nothing that has ended."""
    machines = len(lab.nodes) + len(lab.switches)
    holders = machines + len(lab.outside) + sum(s.attachment is not None for s in list(lab.kubelet.sandboxes.values()))
    there = {name: len(pids) for name, pids in census(Path("/proc")).items()}
    for name, count in {"sleep infinity": holders, "ovs-vswitchd": machines, "ovsdb-server": machines}.items():
        if there.get(name, 0) != count:
            yield f"{there.get(name, 0)} processes {name}, not {count}"
    if ENDED in there:
        yield f"{there[ENDED]} processes ended and nobody asked for their end"


def _attached(lab: Lab, node: str) -> list[Object]:
    """The pods of a node that have a network of their own."""
    return [
        p
        for p in lab.store.list("Pod")
        if p["spec"].get("nodeName") == node and not p["spec"].get("hostNetwork") and not is_over(p)
    ]


def _key(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _set_difference(where: str, there: Iterable[Any], asked: Iterable[Any], texts: Mapping[Any, str]) -> Iterator[str]:
    there, asked = set(there), set(asked)
    for what, some in (("is there and should not be", there - asked), ("is missing", asked - there)):
        said = sorted(texts[one] for one in some)
        if said:
            more = f" and {len(said) - _SHOWN} more" if said[_SHOWN:] else ""
            yield f"{where} {what}: {'; '.join(said[:_SHOWN])}{more}"

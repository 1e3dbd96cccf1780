"""The lab that every case asks: three nodes, pods on two, somebody outside; and what its CNI says of itself."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import RunningLab, mininetes
from services import world as services
from services.world import Object

from controllers.cni import Traits
from scenarios.lab import assemble, networks
from scenarios.lab.socket import ask
from scenarios.measure import place, wire
from topo import labfile
from topo.cluster.errors import PlatformError

FABRIC_MTU = 1500
VARIANTS = networks.known()
# What CNI conflist is given: our plugins, as the user's own.
CONFLIST = """
{"cniVersion": "1.1.0", "name": "own", "plugins": [{"type": "mininetes-cni", "mtu": {{.MTU}}, "onLink": true, "ipam":
  {"type": "mininetes-ipam", "ranges": [[{"subnet": "{{.PodCIDR}}"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
"""
NODES = {"control-plane": "172.18.0.2", "worker": "172.18.0.3", "worker2": "172.18.0.4"}
NODE_PORT, POD_PORT, OUTSIDE_PORT = 7777, 8080, 9999
# The router of the node subnet, and a server in the world behind it.
OUTSIDE = ("172.18.0.1", "198.51.100.7")
HEADERS = 28  # IP 20 and ICMP 8 of an echo
PATIENCE = 0.7  # seconds until an echo is lost


def _pod(name: str, node: str, port: int = POD_PORT, **spec: Any) -> Object:
    container = {"name": "c", "image": "x", "ports": [{"containerPort": port}]}
    meta = {"name": name, "labels": {"app": name}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"nodeName": node, "containers": [container], **spec},
    }


def pod(name: str, node: str) -> Object:
    """A pod that answers on POD_PORT."""
    return _pod(name, node)


# The asking pod, one beside it, one on another node; the nodes themselves; a Service of the second pod alone.
PODS = [pod("asking", "worker"), pod("beside", "worker"), pod("across", "worker2")]
OBJECTS = [
    *PODS,
    *(_pod(f"at-{node}", node, NODE_PORT, hostNetwork=True) for node in ("worker", "worker2")),
    services.service("own", 1, "beside", [{"port": 80, "targetPort": POD_PORT}]),
]


@dataclass
class World(services.World):
    """A running lab of one variant. fabric_mtu: of its links."""

    traits: Traits | None = None
    fabric_mtu: int = FABRIC_MTU

    @property
    def says(self) -> Traits:
        """What the CNI says of itself."""
        assert self.traits is not None
        return self.traits

    def ask_from(self, machine: str, address: str, port: int, kind: str = "tcp") -> Object:
        """One connection; what the server says, or {"error": WORD}."""
        return self.at(machine).ask((kind, address, port))[0]

    def ping(self, machine: str, address: str, size: int) -> str:
        """Two echoes of that many bytes that must not be fragmented, whatever is known of the path; the last's fate:
        "answered", or why it was lost.
        """
        # Its warm-up is one echo, and so is what it counts.
        command = place.script("ping.py", address, 1e-6, 1, PATIENCE, size - HEADERS, 1)
        found = json.loads(self.at(machine).do("run", command=command))
        return str(found["error"]) if found["lost"] else "answered"

    def unlike(self, packets: Sequence[wire.Packet]) -> list[str]:
        """What of the packets between the pods of two nodes is not as the traits say."""
        ends = [self.ips[name] for name in ("asking", "across")]
        return wire.unlike(self.says, packets, ends, [NODES["worker"], NODES["worker2"]])

    def own_addresses(self, node: str) -> set[str]:
        """All addresses of a node."""
        shown = json.loads(self.at(node).do("run", command=["ip", "-j", "-4", "address"]))
        return {str(address["local"]) for link in shown for address in link["addr_info"]}

    def widen(self, name: str, mtu: int) -> None:
        """Let a pod's interface take more than its MTU, at both ends."""
        node = next(thing["spec"]["nodeName"] for thing in PODS if thing["metadata"]["name"] == name)
        for machine, interface in ((name, "eth0"), (node, self.port_of(name, node))):
            self.at(machine).do("run", command=["ip", "link", "set", interface, "mtu", str(mtu)])

    def port_of(self, name: str, node: str) -> str:
        """The node's end of a pod's interface: the one whose index the pod's shows as its peer."""
        number = json.loads(self.at(name).do("run", command=["ip", "-j", "link", "show", "eth0"]))[0]["link_index"]
        links = json.loads(self.at(node).do("run", command=["ip", "-j", "link"]))
        return str(next(link["ifname"] for link in links if link["ifindex"] == number))

    @contextmanager
    def captured(self, node: str, least: int, count: int) -> Iterator[list[wire.Packet]]:
        """A list that has, after the block, `count` packets of at least `least` bytes on the node's wire."""
        found: list[wire.Packet] = []
        with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
            # The Ethernet header is 14 bytes; `greater` counts it (pcap-filter(7)).
            request = {
                "verb": "capture",
                "link": f"{node}:eth0",
                "count": count,
                "filter": ["greater", str(least + 14)],
            }
            with open(os.devnull, "w") as silent:  # noqa: PTH123 - only its descriptor is of use
                fds = (0, file.fileno(), silent.fileno())
                thread = threading.Thread(target=ask, args=(self.name, request, fds), daemon=True)
                thread.start()
                # tcpdump writes the file's header once it listens.
                self.eventually(lambda: Path(file.name).stat().st_size > 0)
                yield found
                thread.join(3)
            found += wire.read(Path(file.name), self.says)


@contextmanager
def started(
    variant: str, folder: Path, things: Sequence[Object], fabric: int = FABRIC_MTU, bits: int = 24, **options: Any
) -> Iterator[World]:
    """A lab of this variant, or a skip with the machine's own reason.

    fabric: its MTU; bits: of each node's pod CIDR; options: of the CNI.
    """
    cni, chosen = VARIANTS[variant]
    chosen = {**chosen, **options}
    if "confDir" in cni.options:
        (folder / "own.conflist").write_text(CONFLIST)
        chosen["confDir"] = str(folder)
    file = folder / "lab.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "kind": "Cluster",
                "apiVersion": "kind.x-k8s.io/v1alpha4",
                "nodes": [{"role": "worker" if i else "control-plane"} for i in range(len(NODES))],
                "mininetes": {
                    "dns": False,
                    "nodeCIDRBits": bits,
                    "cni": {"name": cni.name, **chosen},
                    "fabric": {"shape": "star", "link": {"mtu": fabric}},
                },
            }
        )
    )
    try:
        # Only what the machine lacks is a reason to skip; a lab file that is refused is a defect.
        assemble.parts(labfile.load(file).config, assemble.Choices())
    except PlatformError as error:
        pytest.skip(f"{variant}: {error}")
    (folder / "objects.yaml").write_text(yaml.safe_dump_all(things))
    running = RunningLab(f"test-{uuid.uuid4().hex[:8]}")
    up = mininetes("up", "--detach", "--lab", running.name, str(file), str(folder / "objects.yaml"), timeout=120)
    assert up.returncode == 0, f"{variant}: {up.stderr}{up.stdout}"
    made = World(running.name, "ovs", "", traits=cni.traits_of(chosen), fabric_mtu=fabric)
    made.ips = {p["name"]: p["ip"] for p in running.status()["pods"]}
    try:
        yield made
    finally:
        made.close()
        running.ask("down", ok=False)

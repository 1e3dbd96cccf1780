"""The program mininetes-cni, for whoever calls plugins as the specification says, in the namespaces of a lab's node.

`mininetes exec NODE -- ...` enters them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from topo.cluster import client
from topo.cluster.wiring import GROUP
from topo.cni.errors import CniError, Code
from topo.cni.execute import Executor
from topo.cni.interface import VethPlugin, host_name
from topo.cni.ipam import Ipam
from topo.cni.ports import LinuxBridge, Ports, SwitchPorts
from topo.cni.program import run
from topo.cni.protocol import Call
from topo.cni.result import Result


class Announcing(VethPlugin):
    """As VethPlugin; a container on a node's switch is told to the lab, whose controller makes its flows."""

    def __init__(self) -> None:
        folders = os.environ.get("CNI_PATH", "").split(os.pathsep)
        super().__init__(ports_of, lambda: Executor(folders, {"mininetes-ipam": Ipam()}))

    def add(self, call: Call) -> Result:
        """Attach, and return when packets pass."""
        result = super().add(call)
        switch = call.config.get("switch")
        if switch and not call.config.get("bridge"):
            try:
                _announce(_object(call, result, switch))
            except CniError:
                with suppress(CniError):
                    super().delete(call)
                raise
        return result

    def delete(self, call: Call) -> None:
        """The flows go first."""
        switch = call.config.get("switch")
        if switch and not call.config.get("bridge"):
            with suppress(OSError, LookupError):
                client.detach(_name(call, switch))
        super().delete(call)


def ports_of(config: Mapping[str, Any]) -> Ports:
    """The bridge that a configuration names. Raises CniError."""
    bridge, switch = config.get("bridge"), config.get("switch")
    if isinstance(bridge, str) and bridge:
        return LinuxBridge(bridge)
    if not isinstance(switch, dict) or not all(isinstance(switch.get(x), str) for x in ("bridge", "database", "node")):
        said = "expected `bridge`, a Linux bridge, or `switch` with bridge, database and node, all strings"
        raise CniError(Code.INVALID_CONFIG, "bridge, switch: neither is there", said)
    return SwitchPorts(switch["bridge"], switch["database"])


def _announce(thing: dict[str, Any]) -> None:
    try:
        client.attach(thing)
    except (OSError, LookupError) as error:
        raise CniError(Code.UNAVAILABLE, "the lab does not answer", str(error)) from error


def _name(call: Call, switch: Mapping[str, str]) -> str:
    return f"{switch['node']}.{call.container}.{call.ifname}"


def _object(call: Call, result: Result, switch: Mapping[str, str]) -> dict[str, Any]:
    port = SwitchPorts(switch["bridge"], switch["database"]).number(host_name(call))
    (address, *_), (inner, *_) = result.ips, result.inside(call.netns)
    spec: dict[str, Any] = {"node": switch["node"], "ip": str(address.address.ip), "mac": inner.mac, "port": port}
    spec |= {"container": call.container, "ifname": call.ifname}
    return {"apiVersion": GROUP, "kind": "Attachment", "metadata": {"name": _name(call, switch)}, "spec": spec}


def main() -> int:
    """Console script mininetes-cni."""
    return run(Announcing())

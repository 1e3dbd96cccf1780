"""Where the node's end of a pod's veth is plugged in: a Linux bridge, or a bridge of Open vSwitch."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from pyroute2 import IPRoute

from topo.cluster.patience import patience
from topo.cluster.wiring import FIRST_FOREIGN_PORT
from topo.cni.errors import CniError, Code
from topo.cni.lock import exclusive


class Ports(Protocol):
    """The ports of one bridge; all in the namespace of the bridge. Each raises CniError."""

    def require(self) -> None:
        """Raise unless the bridge is there."""

    def add(self, interface: str) -> None:
        """Plug it in."""

    def remove(self, interface: str) -> None:
        """Pull it out; one that is not plugged in is no error."""

    def has(self, interface: str) -> bool:
        """Whether it is plugged in."""


class LinuxBridge:
    """Ports of a Linux bridge; a packet may leave by the port it came from (the plugin `bridge`, hairpinMode)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def require(self) -> None:
        """By its name."""
        with IPRoute() as ip:
            if not ip.link_lookup(ifname=self.name):
                raise CniError(Code.INVALID_CONFIG, f"bridge: there is no Linux bridge {self.name!r}")

    def add(self, interface: str) -> None:
        """With hairpin mode."""
        self.require()
        with IPRoute() as ip:
            bridge = ip.link_lookup(ifname=self.name)
            index = ip.link_lookup(ifname=interface)[0]
            ip.link("set", index=index, master=bridge[0])
            ip.brport("set", index=index, mode=1)  # IFLA_BRPORT_MODE: hairpin

    def remove(self, interface: str) -> None:
        """It goes with the interface."""

    def has(self, interface: str) -> bool:
        """By its master."""
        with IPRoute() as ip:
            bridge, index = ip.link_lookup(ifname=self.name), ip.link_lookup(ifname=interface)
            return bool(bridge and index and ip.get_links(index[0])[0].get_attr("IFLA_MASTER") == bridge[0])


class SwitchPorts:
    """Ports of a bridge of Open vSwitch, by its database: for callers outside the lab's process."""

    def __init__(self, bridge: str, database: str) -> None:
        self.bridge, self._database = bridge, database

    def require(self) -> None:
        """By asking the switch's database."""
        self._vsctl("list-ports", self.bridge)

    def add(self, interface: str) -> None:
        """Plug it in, with a port number that the lab will not give to a pod."""
        with exclusive(Path(self._database).with_name("cni-ports.lock")):
            number = FIRST_FOREIGN_PORT
            while number in self._numbers():
                number += 1
            added = ["add-port", self.bridge, interface, "--", "set", "Interface", interface]
            self._vsctl(*added, f"ofport_request={number}")

    def remove(self, interface: str) -> None:
        """Raises CniError if the switch's database does not answer."""
        self._vsctl("--if-exists", "del-port", self.bridge, interface)

    def has(self, interface: str) -> bool:
        """By the bridge's list of ports."""
        return interface in self._vsctl("list-ports", self.bridge).split()

    def number(self, interface: str) -> int:
        """Its OpenFlow port. Raises CniError if the switch gave it none."""
        number = int(self._vsctl("get", "Interface", interface, "ofport"))
        if number < 1:  # ovs-vswitchd.conf.db(5): -1 if it could not be added
            raise CniError(Code.INTERNAL, f"the switch could not add {interface}")
        return number

    def _numbers(self) -> Collection[int]:
        rows = json.loads(self._vsctl("--format=json", "--columns=ofport_request", "list", "Interface"))["data"]
        return {row[0] for row in rows if isinstance(row[0], int)}

    def _vsctl(self, *arguments: str) -> str:
        command = ["ovs-vsctl", f"--timeout={patience(20):.0f}", f"--db=unix:{self._database}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
        if done.returncode != 0:
            raise CniError(Code.INTERNAL, f"ovs-vsctl {arguments[0]}", done.stderr.strip())
        return done.stdout

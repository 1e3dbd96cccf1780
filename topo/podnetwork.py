"""One node's pod network: its CNI configuration, ours or the user's, and the runtime that executes it there."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path
from typing import Any

from topo import fabric, links
from topo.cluster.errors import InputError
from topo.cluster.network import PodNetwork
from topo.cluster.store import Object
from topo.cni import conf, pod, versions
from topo.cni.cache import Cache
from topo.cni.conf import Network, PluginConf
from topo.cni.errors import CniError, Code
from topo.cni.execute import Executor
from topo.cni.interface import VethPlugin, file_of
from topo.cni.ipam import Ipam
from topo.cni.ports import LinuxBridge, Ports
from topo.cni.protocol import Plugin
from topo.cni.request import Attachment
from topo.cni.runtime import Runtime, agree
from topo.config import LabConfig
from topo.hosts import Host
from topo.nodes import Node
from topo.ovs import Port
from topo.pods import Sandbox

VETH, IPAM = "mininetes-cni", "mininetes-ipam"
# Where our plugins are programs, for plugins of others that delegate to them.
_OURS = str(Path(sys.executable).parent)
# IPAM plugins that keep what they gave in files, in a folder of this machine unless told otherwise.
_FILED = ("host-local", IPAM)
_IFNAME = "eth0"


def check(network: PodNetwork, config: LabConfig) -> PodNetwork:
    """The network as the user's plugins make it: how pods hang on the node, which version is spoken.

    Raises InputError for what can be found wrong before anything is made.
    """
    assert network.plugins is not None
    plugins = network.plugins
    file = conf.find(Path(plugins.conf))
    found: Network | None = None
    for index, node in enumerate(config.nodes):
        cidr = fabric.pod_cidr(config, index)
        found = conf.load(file, _fields(node.name, cidr, network.mtu))
        for plugin in found.plugins:
            _check_subnets(plugin, cidr)
    assert found is not None  # a lab has nodes
    try:
        version = agree(found, Executor((*plugins.bins, _OURS), {VETH: _unplugged(), IPAM: Ipam()}))
    except CniError as error:
        place = next((p.where for p in found.plugins if error.plugin in (p.type, p.ipam)), found.where)
        expected = "executables in mininetes.cni.binDirs (Debian: containernetworking-plugins) that speak its version"
        raise InputError(place, str(error), expected) from error
    on_switch = found.plugins[0].type == VETH and "bridge" not in found.plugins[0].values
    return replace(network, bridged=not on_switch, plugins=replace(plugins, conf=str(file), version=version))


class NodeNetwork:
    """Attaches and detaches one node's pods. folder: its own, for configuration, results and reservations."""

    def __init__(self, node: Node, network: PodNetwork, folder: Path, checksums: bool) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # of a node that had this name before
        self.node, self._ports = node, NodePorts(node)
        version = versions.LATEST
        folders: tuple[str, ...] = (_OURS,)
        if network.plugins is None:
            self.network = _own(node, network, folder, checksums)
        else:
            version, folders = network.plugins.version, (*network.plugins.bins, _OURS)
            found = conf.load(Path(network.plugins.conf), _fields(node.name, node.pod_cidr, network.mtu))
            self.network = replace(found, plugins=tuple(_localised(p, node, folder, checksums) for p in found.plugins))
        ours: dict[str, Plugin] = {IPAM: Ipam()}
        delegates = Executor(folders, ours)
        ours[VETH] = VethPlugin(self._ports_of, lambda: delegates)
        self._foreign = self.network.plugins[0].type != VETH
        _write(self.network, version, folder / "net.d")
        executor = Executor(folders, ours, node.machine.pid)
        self.runtime = Runtime(self.network, version, executor, Cache(folder / "cache"))

    def attach(self, key: str, name: str, thing: Object) -> Sandbox:
        """Make a pod's sandbox, by ADD; `connect` plugs it in. Raises CniError and BadPod, and leaves nothing then."""
        told = pod.capabilities(thing)
        host = Host(name)
        attachment = Attachment(pod.container_id(thing), file_of(host.pid), _IFNAME, pod.args(thing), told)
        try:
            if self._foreign:  # ours sees to it itself
                links.no_ipv6(host.pid)
                links.set_up(host.pid, "lo", True)
            return self._sandbox(key, host, attachment)
        except BaseException:
            host.end()
            raise

    def _sandbox(self, key: str, host: Host, attachment: Attachment) -> Sandbox:
        result = self.runtime.add(attachment)
        inner = next((one for one in result.inside(attachment.netns) if one.name == _IFNAME), None)
        addresses = [one.address.ip for one in result.of(inner)] if inner else []
        ip = next((one for one in addresses if isinstance(one, IPv4Address)), None)
        if inner is None or ip is None:
            self.runtime.delete(attachment)
            raise CniError(Code.INVALID_CONFIG, f"the plugins' result has no IPv4 address of {_IFNAME}")
        ours = result.interfaces[0].name
        outer = links.peer(host.pid, _IFNAME, self.node.machine.pid) if self._foreign else ours
        return Sandbox(key, host, self.node, ip, inner.mac, self.node.pod_ports.get(outer, 0), outer, attachment)

    def connect(self) -> None:
        """Plug in what `attach` made, all in one change of the switch's database."""
        self._ports.connect()

    def detach(self, sandboxes: Sequence[Sandbox]) -> None:
        """Disconnect and end pods, by DEL. Raises CniError, to be tried again."""
        self._ports.disconnect([s.interface for s in sandboxes])
        for sandbox in sandboxes:
            assert sandbox.attachment is not None
            self.runtime.delete(sandbox.attachment)
            sandbox.host.end()

    def place(self, error: CniError) -> str:
        """Where the configuration speaks of the plugin that failed."""
        return next((p.where for p in self.network.plugins if error.plugin in (p.type, p.ipam)), self.network.where)

    def _ports_of(self, config: Mapping[str, Any]) -> Ports:
        bridge = config.get("bridge")
        return LinuxBridge(bridge) if isinstance(bridge, str) and bridge else self._ports


class NodePorts:
    """Pods' ports of a node's br-int, of which many are added and removed in one change."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._waiting: dict[str, int] = {}

    def require(self) -> None:
        """Raise CniError unless the switch lives."""
        if not self._node.machine.switch.is_running():
            raise CniError(Code.LIMITED, f"the switch of {self._node.name} is down")

    def add(self, interface: str) -> None:
        """With the next `connect`."""
        self._waiting[interface] = self._node.take_port(interface)

    def remove(self, interface: str) -> None:
        """At once, unless it was disconnected with others before."""
        if self._waiting.pop(interface, None) is not None:
            self._node.pod_ports.pop(interface, None)
        elif interface in self._node.pod_ports:
            self.disconnect([interface])

    def has(self, interface: str) -> bool:
        """As the lab knows it."""
        return interface in self._node.pod_ports

    def connect(self) -> None:
        """Add what waits, and wait until it forwards."""
        self._node.machine.switch.add_ports("br-int", [Port(name, n) for name, n in self._waiting.items()])
        self._waiting.clear()

    def disconnect(self, interfaces: Sequence[str]) -> None:
        """Remove those that are ports of the switch."""
        mine = [name for name in interfaces if name in self._node.pod_ports]
        self._node.machine.switch.delete_ports("br-int", mine)
        for name in mine:
            self._node.pod_ports.pop(name)


def _fields(name: str, cidr: IPv4Network, mtu: int) -> dict[str, str]:
    """What a configuration may leave to the lab: {{.PodCIDR}}, as in containerd's conf_template, and others."""
    return {"PodCIDR": str(cidr), "MTU": str(mtu), "NodeName": name}


def _check_subnets(plugin: PluginConf, cidr: IPv4Network) -> None:
    """Addresses must be the node's, or two nodes would give the same one, and no route would lead there."""
    ipam = plugin.values.get("ipam") or {}
    if ipam.get("type") not in _FILED:
        return
    listed = [("subnet", ipam["subnet"])] if "subnet" in ipam else []
    for i, each in enumerate(ipam.get("ranges") or ()):
        if not isinstance(each, list) or not all(isinstance(one, dict) for one in each):
            raise InputError(f"{plugin.where}.ipam.ranges[{i}]", "is no list of ranges", '[{"subnet": "{{.PodCIDR}}"}]')
        listed += [(f"ranges[{i}][{j}].subnet", one.get("subnet")) for j, one in enumerate(each)]
    for field, text in listed:
        try:
            subnet = ip_network(str(text), strict=False)
        except ValueError:
            raise InputError(f"{plugin.where}.ipam.{field}", f"{text!r} is no subnet", "{{.PodCIDR}}") from None
        if not isinstance(subnet, IPv4Network) or not subnet.subnet_of(cidr):
            said = f"{text} is no part of the node's pod CIDR {cidr}"
            raise InputError(f"{plugin.where}.ipam.{field}", said, "{{.PodCIDR}}")


def _own(node: Node, network: PodNetwork, folder: Path, checksums: bool) -> Network:
    """The configuration of a CNI of ours."""
    plugin: dict[str, Any] = {
        "type": VETH,
        "mtu": network.mtu,
        "onLink": network.on_link,
        "gateway": str(node.gateway_ip) if network.on_link or not network.gateway else network.gateway,
        "prefixLength": node.link.prefixlen,
        "capabilities": {"ips": True, "mac": True, "bandwidth": True},
        "ipam": {
            "type": IPAM,
            "ranges": [[{"subnet": str(node.pod_cidr)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    if network.bridged:
        plugin["bridge"] = network.bridge
    values = {"cniVersion": versions.LATEST, "name": "mininetes", "plugins": [plugin]}
    made = conf.parse(json.dumps(values), "10-mininetes.conflist")
    return replace(made, plugins=tuple(_localised(one, node, folder, checksums) for one in made.plugins))


def _localised(plugin: PluginConf, node: Node, folder: Path, checksums: bool) -> PluginConf:
    """With what only the lab knows: where reservations are kept, which switch is the node's."""
    values = dict(plugin.values)
    if plugin.ipam in _FILED:
        values["ipam"] = {"dataDir": str(folder / "networks"), **values["ipam"]}
    if plugin.type == VETH:
        values.setdefault("checksumOffload", checksums)
        if "bridge" not in values:
            database = str(node.machine.switch.run / "db.sock")
            values.setdefault("switch", {"bridge": "br-int", "database": database, "node": node.name})
    return replace(plugin, values=values)


def _write(network: Network, version: str, folder: Path) -> None:
    """As it is executed, for people and for cnitool."""
    values = {"cniVersion": version, "name": network.name, "disableCheck": network.disable_check}
    values |= {"disableGC": network.disable_gc, "plugins": [dict(one.values) for one in network.plugins]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / Path(network.where).name).write_text(json.dumps(values, indent=2) + "\n")


def _unplugged() -> VethPlugin:
    """Our plugin where only its version is asked."""
    return VethPlugin(lambda _: LinuxBridge(""), lambda: Executor((), {}))

"""The plugin mininetes-cni: a veth pair from the container to a bridge of the node, Linux' own or Open vSwitch's.

Its fields: `bridge` (a Linux bridge) or `switch` (`bridge` and `database` of an Open vSwitch); `mtu`; `onLink`: whether
pods of a node share a subnet, as large as `prefixLength` says or else their IPAM plugin, or each is a /32 behind
`gateway`; `checksumOffload`: whether the switch can do without finished checksums; `ipam`. It takes the capabilities
ips (for its IPAM plugin), mac and bandwidth.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any
from zlib import crc32

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from topo import links
from topo.cni import bandwidth
from topo.cni.errors import CniError, Code
from topo.cni.execute import Executor
from topo.cni.ports import Ports
from topo.cni.protocol import Call
from topo.cni.result import Address, Interface, Result, read
from topo.fabric import mac_of
from topo.system import inside


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says, checked. gateway: "" for the one that the IPAM plugin names; prefix: 0 for its."""

    mtu: int
    on_link: bool
    gateway: str
    prefix: int
    checksums: bool
    ipam: str


class VethPlugin:
    """The plugin; see topo/cni/protocol.py. ports: where a configuration wants interfaces to be plugged in."""

    def __init__(self, ports: Callable[[Mapping[str, Any]], Ports], delegates: Callable[[], Executor]) -> None:
        self._ports, self._delegates = ports, delegates

    def add(self, call: Call) -> Result:
        """Address, veth pair, port; whatever fails, nothing is left."""
        settings, ports = _settings(call.config), self._ports(call.config)
        limits = bandwidth.read(call.told)
        _require_free(call)
        host = host_name(call)
        try:
            given = read(self._delegate(call, settings.ipam))
            result = _result(call, settings, given, host)
            with _refusals():
                _make(call, settings, result)
                _limit(call, host, limits)
                ports.add(host)
            return result
        except CniError:
            with suppress(CniError, NetlinkError, OSError):
                ports.remove(host)
                links.delete("/proc/thread-self/ns/net", host)
            with suppress(CniError):
                self._delegate(call, settings.ipam, "DEL")
            raise

    def delete(self, call: Call) -> None:
        """Port, interfaces, address. The namespace may be gone, and the interface with it."""
        host = host_name(call)
        with _refusals():
            self._ports(call.config).remove(host)
            links.delete("/proc/thread-self/ns/net", host)
        self._delegate(call, _settings(call.config).ipam)

    def check(self, call: Call) -> None:
        """Interfaces, addresses and routes of prevResult, the port, and the address's reservation."""
        expected = call.previous
        if expected is None:
            raise CniError(Code.INVALID_CONFIG, "prevResult: is missing", "expected the result of ADD")
        self._delegate(call, _settings(call.config).ipam)
        host = host_name(call)
        if not self._ports(call.config).has(host):
            raise CniError(Code.NOT_AS_MADE, f"{host} is no port of the node's bridge")
        with _refusals():
            _check_container(call, expected)
            bandwidth.check(bandwidth.read(call.told), host, call.netns, call.ifname)

    def status(self, call: Call) -> None:
        """Whether the bridge is there and addresses are left."""
        try:
            self._ports(call.config).require()
        except CniError as error:
            raise CniError(Code.LIMITED, "the node's bridge does not answer", str(error)) from error
        self._delegate(call, _settings(call.config).ipam)

    def collect(self, call: Call) -> None:
        """Interfaces go with their namespaces; addresses do not."""
        self._delegate(call, _settings(call.config).ipam)

    def _delegate(self, call: Call, ipam: str, command: str = "") -> dict[str, Any] | None:
        """The same request to the IPAM plugin."""
        environment = {**call.environment, "CNI_COMMAND": command or call.command}
        return self._delegates().run(ipam, environment, call.config)


def host_name(call: Call) -> str:
    """The node's end of the pair: at most 15 characters (IFNAMSIZ), the same for the same attachment."""
    return f"veth{crc32(f'{call.container}/{call.ifname}'.encode()):08x}"


def _settings(config: Mapping[str, Any]) -> Settings:
    def field(name: str, kind: type, default: Any) -> Any:
        value = config.get(name, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise CniError(Code.INVALID_CONFIG, f"{name}: {value!r} is wrong", f"expected {kind.__name__}")
        return value

    ipam = field("ipam", dict, None).get("type")
    if not isinstance(ipam, str) or not ipam:
        raise CniError(Code.INVALID_CONFIG, "ipam.type: is missing", "expected an IPAM plugin, as mininetes-ipam")
    mtu, on_link, gateway = field("mtu", int, 1500), field("onLink", bool, True), field("gateway", str, "")
    prefix = field("prefixLength", int, 0)
    if not 0 <= prefix <= 32:
        raise CniError(Code.INVALID_CONFIG, f"prefixLength: {prefix} is out of range", "expected 1 to 32")
    if not 68 <= mtu <= 65535:  # RFC 791
        raise CniError(Code.INVALID_CONFIG, f"mtu: {mtu} is out of range", "expected 68 to 65535")
    if not on_link and not gateway:
        raise CniError(Code.INVALID_CONFIG, "gateway: is missing", "expected an address, for onLink is false")
    try:
        IPv4Address(gateway or "0.0.0.0")
    except ValueError as error:
        raise CniError(Code.INVALID_CONFIG, f"gateway: {error}") from error
    return Settings(mtu, on_link, gateway, prefix, field("checksumOffload", bool, True), ipam)


def _require_free(call: Call) -> None:
    """The container's namespace is there, is not the node's, and has no interface of that name."""
    try:
        own = Path("/proc/thread-self/ns/net").stat().st_ino == Path(call.netns).stat().st_ino
        with inside(call.netns):
            taken = call.ifname in (name for _, name in socket.if_nameindex())
    except OSError as error:
        said = f"CNI_NETNS {call.netns}: no network namespace"
        raise CniError(Code.UNKNOWN_CONTAINER, said, str(error)) from error
    if own:
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS {call.netns} is the node's own namespace")
    if taken:
        raise CniError(Code.EXISTS, f"CNI_IFNAME {call.ifname} is there already", f"in {call.netns}")


def _result(call: Call, settings: Settings, given: Result, host: str) -> Result:
    """What ADD will have made, from what the IPAM plugin gave."""
    if not given.ips or any(one.address.version != 4 for one in given.ips):
        said = ", ".join(str(one.address) for one in given.ips) or "no address"
        raise CniError(Code.INVALID_CONFIG, f"ipam gave {said}", "expected IPv4 addresses")
    mac = call.told.get("mac") or mac_of(IPv4Address(given.ips[0].address.ip))
    interfaces = (Interface(host, mtu=settings.mtu), Interface(call.ifname, mac, call.netns, settings.mtu))
    ips = tuple(replace(_placed(one, settings), interface=1) for one in given.ips)
    return Result(interfaces, ips, given.routes, given.dns)


def _placed(one: Address, settings: Settings) -> Address:
    gateway = IPv4Address(settings.gateway) if settings.gateway else one.gateway
    prefix = (settings.prefix or one.address.network.prefixlen) if settings.on_link else 32
    return replace(one, address=IPv4Interface(f"{one.address.ip}/{prefix}"), gateway=gateway)


def _make(call: Call, settings: Settings, result: Result) -> None:
    host, inner = result.interfaces
    there = os.open(call.netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        links.no_ipv6(call.netns)
        with IPRoute() as ip:
            peer = {"ifname": inner.name, "net_ns_fd": there, "mtu": settings.mtu, "address": inner.mac}
            ip.link("add", ifname=host.name, kind="veth", mtu=settings.mtu, peer=peer)
            ip.link("set", index=socket.if_nametoindex(host.name), state="up")
    finally:
        os.close(there)
    default = next((str(one.gateway) for one in result.ips if one.gateway), "")
    routes = [(route.dst, str(route.gateway or default), "") for route in result.routes]
    for i, one in enumerate(result.ips):
        links.configure(call.netns, inner.name, str(one.address), routes if i == 0 else (), loopback=True)
    if not settings.checksums:
        links.checksum_offload_off(call.netns, inner.name)


def _limit(call: Call, host: str, limits: bandwidth.Limits) -> None:
    """What enters the container where it leaves the node's end, what leaves it where it does."""
    if limits.ingress:
        bandwidth.limit(host, limits.ingress)
    if limits.egress:
        with inside(call.netns):
            bandwidth.limit(call.ifname, limits.egress)


def _check_container(call: Call, expected: Result) -> None:
    """Raise for the first part of the result that is not there any more; what there is besides is others' business."""
    inner = next((one for one in expected.inside(call.netns) if one.name == call.ifname), None)
    if inner is None:
        raise CniError(Code.INVALID_CONFIG, f"prevResult: has no interface {call.ifname} in {call.netns}")
    with inside(call.netns), IPRoute() as ip:
        index = ip.link_lookup(ifname=call.ifname)
        if not index:
            raise CniError(Code.NOT_AS_MADE, f"{call.ifname} is not there")
        link = ip.get_links(index[0])[0]
        if inner.mac and link.get_attr("IFLA_ADDRESS") != inner.mac.lower():
            raise CniError(Code.NOT_AS_MADE, f"{call.ifname} has the MAC {link.get_attr('IFLA_ADDRESS')}", inner.mac)
        have = {f"{x.get_attr('IFA_ADDRESS')}/{x['prefixlen']}" for x in ip.get_addr(index=index[0])}
        routes = {f"{x.get_attr('RTA_DST') or '0.0.0.0'}/{x['dst_len']}" for x in ip.get_routes(family=2)}
    for one in expected.of(inner):
        if str(one.address) not in have:
            raise CniError(Code.NOT_AS_MADE, f"{call.ifname} lacks the address {one.address}")
    for route in expected.routes:
        if route.dst not in routes:
            raise CniError(Code.NOT_AS_MADE, f"the route to {route.dst} is missing")


@contextmanager
def _refusals() -> Iterator[None]:
    """What the kernel refuses is an error of the plugin's."""
    try:
        yield
    except (NetlinkError, OSError, IndexError) as error:
        raise CniError(Code.INTERNAL, "the kernel refused", f"{type(error).__name__}: {error}") from error


def file_of(pid: int) -> str:
    """CNI_NETNS of a process's network namespace."""
    return str(Path("/proc", str(pid), "ns", "net"))

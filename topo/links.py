"""Interfaces, addresses and routes in any namespace, by netlink (no program is started)."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from topo.system import inside

_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17

# A namespace: a process in it, or its file.
Place = int | str


def veth(name: str, pid: int, peer: str, peer_pid: int, mtu: int, mac: str = "", peer_mac: str = "") -> None:
    """A veth pair with one end in each process's namespace, both down yet. MTU in bytes.

    Raises pyroute2's NetlinkError, of which the caller knows no remedy.
    """
    with inside(pid), IPRoute() as ip:
        ends = {"ifname": peer, "net_ns_pid": peer_pid, "mtu": mtu} | ({"address": peer_mac} if peer_mac else {})
        ip.link("add", ifname=name, kind="veth", mtu=mtu, peer=ends, **({"address": mac} if mac else {}))


def configure(
    pid: Place,
    name: str,
    address: str = "",
    routes: Iterable[tuple[str, str, str]] = (),
    mtu: int | None = None,
    loopback: bool = False,
) -> None:
    """Bring an interface up (again), with an address ("10.0.0.2/24") and routes (prefix, gateway or "", source or "").

    A gateway outside the interface's subnet is taken as on-link.
    """
    with inside(pid), IPRoute() as ip:
        if loopback:
            ip.link("set", index=1, state="up")
        index = socket.if_nametoindex(name)  # a tenth of what netlink takes for it
        if address:
            ip.addr("replace", index=index, address=address.partition("/")[0], prefixlen=int(address.partition("/")[2]))
        ip.link("set", index=index, state="up", **({"mtu": mtu} if mtu else {}))
        for prefix, gateway, source in routes:
            extra: dict[str, object] = {"gateway": gateway, "flags": ["onlink"]} if gateway else {"scope": 253}
            ip.route("replace", dst=prefix, oif=index, **extra, **({"prefsrc": source} if source else {}))


def own(pid: int, network: str) -> None:
    """Make every address of the network the namespace's own (ip-route(8), type local)."""
    with inside(pid), IPRoute() as ip:
        ip.route("replace", dst=network, oif=1, type="local", table=255, scope=254)


def set_up(pid: int, name: str, up: bool) -> None:
    """Bring an interface up or down."""
    with inside(pid), IPRoute() as ip:
        ip.link("set", index=socket.if_nametoindex(name), state="up" if up else "down")


def delete(pid: Place, name: str) -> None:
    """Delete an interface; a veth's other end goes with it. An interface that is gone already is no error."""
    with inside(pid), IPRoute() as ip:
        for index in ip.link_lookup(ifname=name):
            ip.link("del", index=index)


def peer(pid: Place, name: str, other: Place) -> str:
    """The name in `other` of a veth's other end; "" if it is no veth or leads elsewhere."""
    with inside(pid), IPRoute() as ip:
        mine = socket.if_nametoindex(name)
        index = ip.get_links(mine)[0].get_attr("IFLA_LINK")
    if not index:
        return ""
    with inside(other), IPRoute() as ip, suppress(NetlinkError):  # no interface has that number
        (link,) = ip.get_links(index)
        if link.get_attr("IFLA_LINK") == mine:
            return str(link.get_attr("IFLA_IFNAME"))
    return ""


def checksum_offload_off(pid: Place, name: str) -> None:
    """ethtool -K NAME tx off: on the userspace datapath the receiver would get packets without checksums."""
    with inside(pid), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_STXCSUM, 0))
        request = struct.pack("16sP", name.encode(), ctypes.addressof(value)) + bytes(16)
        fcntl.ioctl(sock, _SIOCETHTOOL, request)


def sysctl(pid: int, **values: str) -> None:
    """Write network sysctls of a namespace; names with "__" for "/": net__ipv4__ip_forward="1"."""
    with inside(pid):
        for name, value in values.items():
            Path("/proc/sys", *name.split("__")).write_text(value)


def no_ipv6(pid: Place) -> None:
    """Labs are IPv4; without this every interface would send router solicitations through the switches."""
    with inside(pid):
        for scope in ("all", "default"):
            with suppress(FileNotFoundError):  # a kernel without IPv6
                Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")

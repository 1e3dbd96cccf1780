"""Two network namespaces joined by one kind of virtual device, each kind a function; all of it is gone with its stack.

Whoever lacks something raises PlatformError with what would provide it.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from scenarios.measure import suite
from scenarios.measure.place import Place, ProgramError, run, script, start
from scenarios.measure.place import end as end_program
from topo import capsule
from topo.cluster.errors import PlatformError
from topo.hosts import Host
from topo.ovs import Bridge, OpenVSwitch, Port, empty_database
from topo.platform import choose_datapath

DEVICE = "eth0"
# RFC 5737: for documentation, on no real network. What NAT is asked for; a tunnel's underlay; the second subnet.
VIRTUAL, UNDER, BEHIND = "203.0.113.1", ("203.0.113.5", "203.0.113.6"), ("198.51.100.1", "198.51.100.2")
_MAC = "02:00:00:00:00:01"


@dataclass(frozen=True, slots=True)
class Pair:
    """address: by which the client asks the server. devices: whose offloads count. programs: what carries the packets
    in userspace, pids; offload: whether it can be on, "" or why not.
    """

    client: Place
    server: Place
    address: str
    devices: tuple[tuple[Place, str], ...]
    programs: tuple[int, ...] = ()
    offload: str = ""


Builder = Callable[[ExitStack], Pair]
NO_CHECKSUMS = "a switch in userspace would get packets whose checksum nobody finished"
_AF_XDP = "sudo, a kernel with XDP_SOCKETS, and an Open vSwitch that was built with AF_XDP"
WHOLE_FRAMES = "a TAP without virtio headers takes finished frames only"


def veth(stack: ExitStack) -> Pair:
    """One veth pair."""
    client, server = _ends(stack)
    _ip(client, f"link add name {DEVICE} type veth peer name {DEVICE} netns {server.pid}")
    return _joined(client, server)


def bridge(stack: ExitStack) -> Pair:
    """A Linux bridge with a veth pair to each."""
    client, server = _ends(stack)
    middle = _legs(stack, client, server)
    _device(middle, "bridge", "link add name br0 type bridge")
    _ip(middle, "link set dev br0 up")
    for leg in ("leg1", "leg2"):
        _ip(middle, f"link set dev {leg} master br0")
    return _joined(client, server)


def macvlan(stack: ExitStack) -> Pair:
    """Two macvlans of one parent, mode bridge."""
    client, server = _ends(stack)
    parent = _parent(stack)
    for end in (client, server):
        _device(parent, "macvlan", f"link add link up0 name {DEVICE} netns {end.pid} type macvlan mode bridge")
    return _joined(client, server)


def macvtap(stack: ExitStack) -> Pair:
    """A macvtap on a veth's end, handed by a program to a TAP, as to a virtual machine."""
    client, server = _ends(stack)
    middle = _place(stack, "middle")
    _ip(middle, f"link add name up0 type veth peer name {DEVICE} netns {server.pid}")
    _ip(middle, "link set dev up0 up")
    _device(middle, "macvtap", f"link add link up0 name tap0 address {_MAC} type macvtap mode bridge")
    _ip(middle, "link set dev tap0 up")
    numbers = _in_sysfs(middle, "cat /sys/class/net/tap0/macvtap/tap*/dev")
    major, _, minor = numbers.strip().partition(":")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=capsule.RUN)))
    # Of its own, for a lab's files are where there can be no devices.
    try:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True, capture_output=True)
        stack.callback(subprocess.run, ["umount", str(folder)], check=False)
        os.mknod(folder / "tap", stat.S_IFCHR | 0o600, os.makedev(int(major), int(minor)))
    except (OSError, subprocess.CalledProcessError):
        raise PlatformError("a macvtap's character device can only be made by root", "run with sudo") from None
    return _forwarded(stack, client, server, f"file:{folder / 'tap'}", f":{_MAC}")


def tap(stack: ExitStack) -> Pair:
    """Two TAPs and a program that hands frames from one to the other."""
    client, server = _ends(stack)
    return _forwarded(stack, client, server, f"tap:{server.pid}:{DEVICE}", "")


def vxlan(stack: ExitStack) -> Pair:
    """A VXLAN device at each end of a veth pair; its MTU is 50 bytes less."""
    client, server = _ends(stack)
    _ip(client, f"link add name under0 type veth peer name under0 netns {server.pid}")
    under = list(zip((client, server), UNDER, strict=True))
    for end, address in under:
        _ip(end, f"address add {address}/30 dev under0")
        _ip(end, "link set dev under0 up")
    for (end, address), (_, peer) in (under, under[::-1]):
        tunnel = f"type vxlan id 7 local {address} remote {peer} dstport 4789 dev under0"
        _device(end, "vxlan", f"link add name {DEVICE} {tunnel}")
    pair = _joined(client, server)
    return replace(pair, devices=(*pair.devices, (client, "under0"), (server, "under0")))


def routed(stack: ExitStack) -> Pair:
    """A namespace that forwards between two subnets, without a rule."""
    client, server = _ends(stack)
    return _routed(stack, client, server)[0]


def iptables_nat(stack: ExitStack) -> Pair:
    """The same, and iptables translates the address that the client asks."""
    client, server = _ends(stack)
    pair, middle = _routed(stack, client, server)
    rule = ["-A", "PREROUTING", "-d", VIRTUAL, "-j", "DNAT", "--to-destination", pair.address]
    _needs(middle, ["iptables", "-t", "nat", *rule])
    return replace(pair, address=VIRTUAL)


def nftables_nat(stack: ExitStack) -> Pair:
    """The same, by nftables."""
    client, server = _ends(stack)
    pair, middle = _routed(stack, client, server)
    hook = "{ type nat hook prerouting priority dstnat ; }"
    for rule in (
        ["add", "table", "ip", "nat"],
        ["add", "chain", "ip", "nat", "pre", hook],
        ["add", "rule", "ip", "nat", "pre", "ip", "daddr", VIRTUAL, "dnat", "to", pair.address],
    ):
        _needs(middle, ["nft", *rule])
    return replace(pair, address=VIRTUAL)


def filtered(rules: int) -> Builder:
    """Routed, and every packet passes so many rules of iptables that it does not match."""

    def build(stack: ExitStack) -> Pair:
        client, server = _ends(stack)
        pair, middle = _routed(stack, client, server)
        lines = [f"-A FORWARD -s 203.0.113.{n % 250 + 1}/32 -p tcp --dport {1024 + n} -j DROP\n" for n in range(rules)]
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "rules"
        # In parts: without root what nf_tables is told at once is limited (SO_SNDBUFFORCE, socket(7)).
        for first in range(0, rules, 250):
            file.write_text(f"*filter\n{''.join(lines[first : first + 250])}COMMIT\n")
            _needs(middle, ["iptables-restore", "--noflush", str(file)])
        return pair

    return build


def ovs(datapath: str, port_type: str = "") -> Builder:
    """A bridge of Open vSwitch that learns addresses, with a veth pair to each."""

    def build(stack: ExitStack) -> Pair:
        choose_datapath(datapath)  # raises PlatformError where the kernel has no such
        client, server = _ends(stack)
        host = Host(f"ovs-{datapath}{len(port_type)}")
        stack.callback(host.end)
        middle = Place("middle", host.pid, "")
        _leg(client, middle, "leg1")
        _leg(server, middle, "leg2")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=capsule.RUN)))
        switch = OpenVSwitch(host, folder / "ovs", datapath)
        stack.callback(switch.stop)
        try:
            switch.start_database(empty_database(folder))
            switch.configure([Bridge("br0", tuple(Port(f"leg{n}", n, port_type) for n in (1, 2)))])
            switch.start_switch()
            switch.ofctl("add-flow", "br0", "actions=NORMAL")
        except (RuntimeError, PlatformError) as problem:
            said = problem.missing if isinstance(problem, PlatformError) else str(problem)
            raise PlatformError(said, _AF_XDP if port_type else "see `mininetes doctor`") from None
        pair = _joined(client, server)
        programs = (switch.processes["ovs-vswitchd"].pid,) if datapath == "netdev" else ()
        return replace(pair, programs=programs, offload=NO_CHECKSUMS if datapath == "netdev" else "")

    return build


KINDS: Mapping[str, Builder] = {
    "veth": veth,
    "bridge": bridge,
    "macvlan": macvlan,
    "TAP": tap,
    "macvtap": macvtap,
    "OVS kernel": ovs("system"),
    "OVS userspace": ovs("netdev"),
    "OVS AF_XDP": ovs("netdev", "afxdp-nonpmd"),
    "VXLAN": vxlan,
    "routed": routed,
    "iptables NAT": iptables_nat,
    "nftables NAT": nftables_nat,
    **{f"iptables filter {n}": filtered(n) for n in (1, 10, 100, 1000, 10000)},
}


def set_offload(pair: Pair, on: bool) -> bool:
    """Checksums, and with them segmentation and its opposite, at all of a pair's devices.

    Gives whether each did as it was told: a macvlan keeps them whatever it is told, for its parent.
    """
    if shutil.which("ethtool") is None:
        raise PlatformError("ethtool is not installed", "apt-get install ethtool")
    state, obeyed = "on" if on else "off", True
    for place, device in pair.devices:
        # A device without one of them refuses to change that, and has it off.
        wanted = [word for feature in ("tx", "tso", "gso", "gro") for word in (feature, state)]
        run(place, ["ethtool", "-K", device, *wanted], 10, check=False)
        obeyed &= f"tcp-segmentation-offload: {state}" in run(place, ["ethtool", "-k", device], 10)
    return obeyed


def _place(stack: ExitStack, name: str, address: str = "") -> Place:
    place = Place(name, stack.enter_context(suite.namespace()), address)
    run(place, ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"], 10, check=False)
    _ip(place, "link set dev lo up")
    return place


def _ends(stack: ExitStack) -> tuple[Place, Place]:
    client, server = (
        _place(stack, name, address) for name, address in zip(("client", "server"), suite.ADDRESSES, strict=True)
    )
    return client, server


def _leg(end: Place, middle: Place, name: str) -> None:
    _ip(end, f"link add name {DEVICE} type veth peer name {name} netns {middle.pid}")
    _ip(middle, f"link set dev {name} up")


def _legs(stack: ExitStack, client: Place, server: Place) -> Place:
    """A third namespace with a veth pair to each."""
    middle = _place(stack, "middle")
    _leg(client, middle, "leg1")
    _leg(server, middle, "leg2")
    return middle


def _parent(stack: ExitStack) -> Place:
    """A namespace with a device that others can be on top of."""
    place = _place(stack, "parent")
    _ip(place, "link add name up0 type veth peer name up1")
    for name in ("up0", "up1"):
        _ip(place, f"link set dev {name} up")
    return place


def _joined(client: Place, server: Place) -> Pair:
    """Both ends' devices get an address of one subnet, and come up."""
    for end in (client, server):
        _ip(end, f"address add {end.address}/30 dev {DEVICE}")
        _ip(end, f"link set dev {DEVICE} up")
    return Pair(client, server, server.address, ((client, DEVICE), (server, DEVICE)))


def _routed(stack: ExitStack, client: Place, server: Place) -> tuple[Pair, Place]:
    middle, (gateway, address) = _legs(stack, client, server), BEHIND
    _ip(middle, f"address add {suite.ADDRESSES[1]}/30 dev leg1")
    _ip(middle, f"address add {gateway}/30 dev leg2")
    run(middle, ["sysctl", "-qw", "net.ipv4.ip_forward=1"], 10)
    pair = _joined(client, replace(server, address=address))
    _ip(client, f"route add default via {suite.ADDRESSES[1]}")
    _ip(server, f"route add default via {gateway}")
    return pair, middle


def _forwarded(stack: ExitStack, client: Place, server: Place, end: str, mac: str) -> Pair:
    """A TAP of the client's, and a program between it and the other end."""
    command = script("tap_forwarder.py", f"tap:{client.pid}:{DEVICE}{mac}", end)
    program = start(client, command, stdin=subprocess.PIPE)
    stack.callback(end_program, program)
    assert program.stdout is not None
    if (said := program.stdout.readline()) != b"ready\n":
        words = (said + program.stdout.read()).decode(errors="replace").strip().splitlines()[-1]
        raise PlatformError(f"no TAP device can be made ({words})", "modprobe tun; chmod 0666 /dev/net/tun")
    return replace(_joined(client, server), programs=(program.pid,), offload=WHOLE_FRAMES)


def _ip(place: Place, command: str) -> None:
    run(place, ["ip", *command.split()], 10)


def _device(place: Place, kind: str, command: str) -> None:
    """Make one that a kernel may lack."""
    try:
        _ip(place, command)
    except ProgramError as problem:
        if "Unknown device type" in str(problem) or "not supported" in str(problem):
            raise PlatformError(f"this kernel has no {kind} devices", f"modprobe {kind}, or a VM") from None
        raise


def _needs(place: Place, argv: Sequence[str]) -> None:
    """Add rules where both the program and the kernel's part may lack."""
    if shutil.which(argv[0]) is None:
        raise PlatformError(f"{argv[0]} is not installed", "sudo make install")
    try:
        run(place, argv, 120)
    except ProgramError as problem:
        raise PlatformError(str(problem), "a kernel with nf_tables, nf_nat and x_tables") from None


def _in_sysfs(place: Place, command: str) -> str:
    """What a shell's line says where /sys shows the place's own devices (a mount of sysfs shows those of its maker)."""
    return run(place, ["unshare", "--mount", "sh", "-c", f"mount -t sysfs none /sys && {command}"], 10)

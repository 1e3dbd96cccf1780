"""What this machine has and lacks for a lab, found by trying, with what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyroute2.netlink import genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from topo import capsule
from topo.cluster.errors import PlatformError
from topo.system import has_device, in_own_network

# Programs of the host that every lab needs, with the Debian package that brings them.
PROGRAMS = {
    "ovs-vswitchd": "openvswitch-switch",
    "ovsdb-server": "openvswitch-switch",
    "ovs-vsctl": "openvswitch-switch",
    "mnexec": "mininet",
    "ifconfig": "net-tools",
    "nft": "nftables",
    "tc": "iproute2",
}
# Programs that some verbs and scenarios need.
EXTRAS = {"iperf3": "iperf3", "tcpdump": "tcpdump", "tshark": "tshark", "curl": "curl"}
# Programs of the Ingress controller.
INGRESS = {"nginx": "nginx", "openssl": "openssl", "setpriv": "util-linux"}
# Servers of files and their clients, and what asks a web server as fast as it can.
DOWNLOADS = {
    "nginx": "nginx",
    "vsftpd": "vsftpd",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "scp": "openssh-client",
    "curl": "curl",
    "wrk": "wrk",
}

# Programs that encrypt between nodes; wireguard-go only where the kernel has no such device.
WIREGUARD = {"wg": "wireguard-tools", "wireguard-go": "wireguard-go"}

# What the kernel's proxy modes need of it, by the modules' names: the program that tries each, its package, and how.
# kube-proxy too tries ipvs by making a virtual server, in the same network for documentation (RFC 5737).
_RULE = "XTABLES_LOCKFILE=/dev/null iptables-legacy -A OUTPUT -m"
_BRIDGED = "/proc/sys/net/bridge/bridge-nf-call-iptables"
_PARTS = {
    "br_netfilter": ("sh", "dash", f"test -e {_BRIDGED} || modprobe -q br_netfilter; test -e {_BRIDGED}"),
    "dummy": ("ip", "iproute2", "ip link add probe type dummy"),
    "ip_set": ("ipset", "ipset", f"ipset create probe hash:ip,port && {_RULE} set --match-set probe dst,dst"),
    "xt_ipvs": ("iptables-legacy", "iptables", f"{_RULE} ipvs --ipvs"),
    **{
        f"ip_vs_{scheduler}": ("ipvsadm", "ipvsadm", f"ipvsadm -A -t 198.51.100.0:20000 -s {scheduler}")
        for scheduler in ("rr", "wrr", "lc", "wlc", "sh", "dh", "sed", "nq", "mh")
    },
}

# Where Debian has the reference CNI plugins.
CNI_PLUGINS = Path("/usr/lib/cni")
# Where Debian's package frr has its daemons, which are in no PATH.
FRR = Path("/usr/lib/frr")


@dataclass(frozen=True, slots=True)
class Finding:
    """One part: whether it is there, what that means, and what would provide it if it is not.

    needed: "always", or what it is for.
    """

    part: str
    there: bool
    detail: str
    remedy: str
    needed: str


def findings() -> list[Finding]:
    """Everything a lab may need, probed now. Takes about a tenth of a second and leaves nothing behind."""
    found = [_program(name, package, "always") for name, package in PROGRAMS.items()]
    found += [_program(name, package, "measuring and capturing") for name, package in EXTRAS.items()]
    found += [_program(name, package, "Ingress") for name, package in INGRESS.items()]
    downloads = {name: package for name, package in DOWNLOADS.items() if name not in {**EXTRAS, **INGRESS}}
    found += [_program(name, package, "scenario cni-benchmark") for name, package in downloads.items()]
    found += [_cni_plugins()]
    found += [_program("bird", "bird2", "BGP between nodes"), _frr()]
    found += [namespaces(), tun(), _kernel_datapath(), sctp()]
    kinds = {"netem": "link delay and loss", "htb": "link bandwidth"}
    found += [_discipline(kind, use) for kind, use in kinds.items()]
    devices = {"vxlan": "kernel VXLAN on the kernel datapath", "bridge": "Linux bridges"}
    devices |= {"wireguard": "encryption (else wireguard-go)", "ipip": "calico's mode ipip (else a TUN program)"}
    found += [_device(kind, use) for kind, use in devices.items()]
    found += [_part(name) for name in ("br_netfilter", "ip_vs_rr", "dummy", "ip_set", "xt_ipvs")]
    found.append(_program("etcd", "etcd-server", "flannel's leases in a store of their own"))
    return found + [_program(name, package, "encryption") for name, package in WIREGUARD.items()]


def require() -> None:
    """Raise PlatformError, in one line with the remedy, unless every lab's needs are met."""
    missing = sorted({PROGRAMS[name] for name in PROGRAMS if shutil.which(name) is None})
    if missing:
        raise PlatformError(f"not installed: {', '.join(missing)}", f"sudo apt-get install {' '.join(missing)}")
    if not tun().there and choose_datapath("auto") == "netdev":
        raise PlatformError("the userspace datapath cannot open /dev/net/tun", tun().remedy)


def require_nginx() -> None:
    """Raise PlatformError, in one line with the remedy, unless the Ingress controller can run."""
    missing = sorted({package for name, package in INGRESS.items() if shutil.which(name) is None})
    if missing:
        raise PlatformError(f"Ingress needs {', '.join(missing)}", f"sudo apt-get install {' '.join(missing)}")


def require_downloads() -> None:
    """Raise PlatformError, in one line with the remedy, unless servers of files can run and be asked."""
    missing = sorted({package for name, package in DOWNLOADS.items() if shutil.which(name) is None})
    if missing:
        raise PlatformError(f"downloads need {', '.join(missing)}", f"sudo apt-get install {' '.join(missing)}")


def require_routers(bird: bool, frr: bool) -> None:
    """Raise PlatformError unless the routing daemons that are asked for are there."""
    if bird and shutil.which("bird") is None:
        raise PlatformError("BGP by BIRD needs bird2", "sudo apt-get install bird2")
    if frr and not _frr().there:
        raise PlatformError("a router of FRR needs frr", _frr().remedy)


def require_etcd() -> None:
    """Raise PlatformError unless a lab can have an etcd."""
    if shutil.which("etcd") is None:
        raise PlatformError("a store in etcd needs etcd-server", "sudo apt-get install etcd-server etcd-client")


def require_wireguard() -> None:
    """Raise PlatformError unless nodes can encrypt with WireGuard."""
    names = ["wg"] if has_device("wireguard") else list(WIREGUARD)
    missing = [WIREGUARD[name] for name in names if shutil.which(name) is None]
    if missing:
        raise PlatformError(f"WireGuard needs {', '.join(missing)}", f"sudo apt-get install {' '.join(missing)}")


# What stands in for devices that the kernel lacks, by kind.
_STAND_INS = {
    "ipip": "a program of each node wraps the packets, behind a TUN device of the same name",
    "wireguard": "wireguard-go runs on each node",
}


def substitutes(devices: Iterable[str]) -> tuple[str, ...]:
    """A sentence on what stands in for each of these kinds of devices that the kernel has not.

    Raises PlatformError if nothing can.
    """
    kinds = tuple(devices)
    if "wireguard" in kinds:
        require_wireguard()
    lacking = [kind for kind in kinds if not has_device(kind)]
    if lacking and not tun().there:
        raise PlatformError(f"this kernel has no {lacking[0]}, and /dev/net/tun cannot be opened", tun().remedy)
    return tuple(f"this kernel has no {kind} devices: {_STAND_INS[kind]}; same packets, more CPU" for kind in lacking)


def require_parts(who: str, names: Sequence[str]) -> None:
    """Raise PlatformError, in one line with the remedies, unless the kernel has all of these parts (`_PARTS`)."""
    missing = [found for found in map(_part, names) if not found.there]
    if missing:
        lacks = ", ".join(f"{found.part} ({found.detail})" for found in missing)
        remedies = dict.fromkeys(found.remedy for found in missing)
        raise PlatformError(f"{who} needs {lacks}", "; ".join([*remedies, "or a VM with a distribution's kernel"]))


def choose_datapath(wanted: str) -> str:
    """ "system" or "netdev" for "auto", by what the kernel has and who asks.

    Raises PlatformError if the kernel lacks what was asked for by name.
    """
    has_kernel = _kernel_datapath().there
    if wanted == "system" and not has_kernel:
        raise PlatformError("the kernel datapath needs the openvswitch module", _kernel_datapath().remedy)
    if wanted == "auto":
        return "system" if has_kernel and os.getuid() == 0 else "netdev"
    return wanted


def _program(name: str, package: str, needed: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, path is not None, path or "not found", f"sudo apt-get install {package}", needed)


def _frr() -> Finding:
    there = (FRR / "bgpd").exists()
    return Finding("frr", there, str(FRR) if there else "not found", "sudo apt-get install frr", "a router of FRR")


def _cni_plugins() -> Finding:
    there = (CNI_PLUGINS / "bridge").exists()
    said = str(CNI_PLUGINS) if there else "not found"
    remedy = "sudo apt-get install containernetworking-plugins"
    return Finding("CNI plugins", there, said, remedy, "CNI conflist with the reference plugins")


def namespaces() -> Finding:
    """Whether this user can make a lab's namespaces."""
    there = in_own_network(["true"]).returncode == 0
    detail = "as root" if os.getuid() == 0 else "in a user namespace" if there else "this user may not make them"
    return Finding("namespaces", there, detail, capsule.remedy(), "always")


def tun() -> Finding:
    """Whether this user can open the device that the userspace datapath, and what stands in for tunnels, need."""
    remedy = "sudo modprobe tun; sudo chmod 0666 /dev/net/tun"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return Finding("/dev/net/tun", False, str(error.strerror), remedy, "the userspace datapath")
    return Finding("/dev/net/tun", True, "can be opened", remedy, "the userspace datapath")


def _kernel_datapath() -> Finding:
    """The module registers the generic-netlink family ovs_datapath; loading it is tried where we may."""
    if os.getuid() == 0 and not Path("/sys/module/openvswitch").exists() and shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", "openvswitch"], check=False)
    remedy = "sudo modprobe openvswitch, or a kernel that has it (any Debian or Ubuntu kernel)"
    try:
        with GenericNetlinkSocket() as sock:
            sock.bind("ovs_datapath", genlmsg)
    except NetlinkError:
        return Finding("openvswitch", False, "kernel module missing", remedy, "the kernel datapath")
    return Finding("openvswitch", True, "kernel module loaded", remedy, "the kernel datapath")


def sctp() -> Finding:
    """Whether programs can open SCTP sockets."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError as error:
        return Finding("sctp", False, str(error.strerror), "sudo modprobe sctp", "SCTP ports")
    return Finding("sctp", True, "sockets can be made", "", "SCTP ports")


def _discipline(kind: str, use: str) -> Finding:
    done = in_own_network(["tc", "qdisc", "add", "dev", "lo", "root", kind])
    detail = "works" if done.returncode == 0 else "kernel lacks it"
    return Finding(f"sch_{kind}", done.returncode == 0, detail, f"sudo modprobe sch_{kind}", use)


def _device(kind: str, use: str) -> Finding:
    detail = "works" if has_device(kind) else "kernel lacks it"
    return Finding(kind, has_device(kind), detail, f"sudo modprobe {kind}", use)


def _part(name: str) -> Finding:
    program, package, command = _PARTS[name]
    use = "proxy modes of the kernel" if name == "br_netfilter" else "proxy mode kernel-ipvs"
    if shutil.which(program) is None:
        return Finding(name, False, f"{program} not found", f"sudo apt-get install {package}", use)
    if in_own_network(["sh", "-c", command]).returncode == 0:
        return Finding(name, True, "works", "", use)
    # Not even in a network namespace of its own may another user change ipvs.
    if program == "ipvsadm" and os.getuid() != 0 and Path("/proc/net/ip_vs").exists():
        return Finding(name, False, "only for root", "sudo", use)
    return Finding(name, False, "kernel lacks it", f"sudo modprobe {name}", use)

"""The machine outside the cluster: router of the node subnet, from which clients come and where the world begins."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from topo import fabric, links
from topo.cluster.network import Daemon
from topo.config import LabConfig
from topo.hosts import Host


def configure(host: Host, config: LabConfig, mtu: int, checksums: bool) -> None:
    """Give it its address, and every address of the networks behind it. checksums: whether the datapath offloads them.

    A program there may bind whichever of them it likes, so one machine is any number of clients.
    """
    links.no_ipv6(host.pid)
    subnet = fabric.rack_subnets(config)[0]
    address = f"{fabric.client_address(config)}/{subnet.prefixlen}"
    # The other racks are behind the router of the one that it is in.
    racks = [(str(config.node_subnet), str(subnet.network_address + 1), "")] if config.fabric.routed else []
    links.configure(host.pid, "eth0", address, racks, mtu=mtu, loopback=True)
    for network in (fabric.CLIENT_NETWORK, fabric.WORLD_NETWORK):
        links.own(host.pid, str(network))
    # Of several equally good next hops each connection takes one (kernel, ip-sysctl): ports count, not addresses alone.
    links.sysctl(host.pid, net__ipv4__fib_multipath_hash_policy="1")
    if not checksums:
        links.checksum_offload_off(host.pid, "eth0")


def start(host: Host, run: Path, daemons: Iterable[Daemon]) -> None:
    """Start further programs there, each with its files and its log in `run`. They end with the lab."""
    for daemon in daemons:
        run.mkdir(parents=True, exist_ok=True)
        for name, text in daemon.files.items():
            (run / name).write_text(text)
        for folder in daemon.private:
            host.run("mount", "-t", "tmpfs", "tmpfs", folder)
        for file, name in daemon.covered.items():
            host.run("mount", "--bind", str(run / name), file)
        command = [word.replace("{run}", str(run)) for word in daemon.command]
        with (run / f"{daemon.name}.log").open("ab") as log:
            host.start_daemon(*command, stdout=log, stderr=log)


# Names that the world's resolver knows; the addresses are the machine's own, so whoever asks them reaches it.
NAMES = {"example.com": "198.51.100.1", "www.example.com": "198.51.100.1", "example.org": "198.51.100.2"}


def start_resolver(host: Host, config: LabConfig) -> None:
    """Answer for NAMES at the machine's own address: what the cluster's DNS asks for names that are not its own."""
    names = [word for name, address in NAMES.items() for word in ("--static", f"{name}={address}")]
    listen = ("--listen", str(fabric.client_address(config)))
    host.start_daemon(sys.executable, "-m", "topo.addons.dns", *names, *listen)

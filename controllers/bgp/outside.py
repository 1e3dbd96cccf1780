"""The router outside the cluster, as programs with their files: BIRD or FRR; pure."""

from __future__ import annotations

from controllers.bgp import bird, frr
from controllers.bgp.options import Bgp
from topo.cluster.network import Daemon

INTERFACE = "eth0"
# Where Debian's package has FRR's daemons, which are in no PATH.
FRR = "/usr/lib/frr"


def daemons(address: str, nodes: str, networks: tuple[str, ...], bgp: Bgp) -> tuple[Daemon, ...]:
    """What runs in the machine outside the cluster. address: its own; nodes: their subnet; networks: behind it."""
    if bgp.outside == "bird":
        return (bird_daemon(bird.outside_config(address, INTERFACE, nodes, networks, bgp)),)
    if bgp.outside == "frr":
        found = [
            _frr("zebra", frr.zebra_config()),
            _frr("bgpd", frr.bgpd_config(address, nodes, networks, bgp)),
        ]
        return (*found, _frr("bfdd", frr.bfdd_config(), "--bfdctl", "{run}/bfdd.sock")) if bgp.bfd else tuple(found)
    return ()


def bird_daemon(text: str) -> Daemon:
    """BIRD with that configuration."""
    command = ("bird", "-f", "-c", "{run}/bird.conf", "-s", "{run}/bird.ctl", "-P", "{run}/bird.pid")
    return Daemon("bird", {"bird.conf": text}, command)


def _frr(name: str, config: str, *more: str) -> Daemon:
    """It runs as root of the lab, the only user that one without root has. -P 0: no TCP port for its command line."""
    files = ("-f", f"{{run}}/{name}.conf", "-i", f"{{run}}/{name}.pid", "-z", "{run}/zserv.api")
    who = ("-u", "root", "-g", "root")
    command = (f"{FRR}/{name}", *who, "-P", "0", "--log", "stdout", "--vty_socket", "{run}", *files, *more)
    if name != "zebra":
        return Daemon(name, {f"{name}.conf": config}, command)
    # What all have in that machine, set up with the first. Their crash log goes where it is told by nothing.
    return Daemon(name, {f"{name}.conf": config, **frr.GROUPS}, command, ("/var/tmp",), {"/etc/group": "group"})

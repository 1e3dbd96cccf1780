"""FRR's configuration as text, for a router outside the cluster; pure.

Source: FRR documentation, "BGP" (peer groups, listen ranges, BFD), "BFD", "Basic setup" (defaults); lib/privs.c.
"""

from __future__ import annotations

from controllers.bgp.bird import BFD_INTERVAL, BFD_MULTIPLIER
from controllers.bgp.options import Bgp

# For FRR as root: the group that its command line must belong to is root's own then, so that it needs to become nobody
# else, which nothing can in a lab without root.
GROUPS = {"group": "root:x:0:\nfrrvty:x:0:root\n"}


def zebra_config() -> str:
    """Of the daemon that gives routes to the kernel."""
    return "hostname client\n"


def bgpd_config(address: str, nodes: str, networks: tuple[str, ...], bgp: Bgp) -> str:
    """Takes what nodes announce, with all equally good next hops.

    nodes: the subnet of the nodes, any of which may come. networks: its own, which it announces.
    """
    lines = [
        "hostname client",
        f"router bgp {bgp.outside_asn}",
        f" bgp router-id {address}",
        # RFC 8212 would have it say nothing without filters; its networks are local, and so in no table it looks at.
        " no bgp ebgp-requires-policy",
        " no bgp network import-check",
        *([" bgp graceful-restart"] if bgp.graceful_restart else []),
        " bgp listen limit 5000",
        " neighbor nodes peer-group",
        " neighbor nodes remote-as external",
        f" neighbor nodes timers {max(1, bgp.hold_time // 3)} {bgp.hold_time}",
        *([" neighbor nodes bfd profile nodes"] if bgp.bfd else []),
        f" bgp listen range {nodes} peer-group nodes",
        " address-family ipv4 unicast",
        *(f"  network {network}" for network in networks),
        "  maximum-paths 64",
        " exit-address-family",
        "",
    ]
    return "\n".join(lines)


def bfdd_config() -> str:
    """The timers of BIRD's side."""
    lines = ["hostname client", "bfd", " profile nodes", f"  detect-multiplier {BFD_MULTIPLIER}"]
    return "\n".join([*lines, f"  receive-interval {BFD_INTERVAL}", f"  transmit-interval {BFD_INTERVAL}", ""])

"""The iptables rules of dockerd for its bridge network docker0, as iptables-restore(8) reads them; pure.

Source: Docker, "Packet filtering and firewalls" and "Port publishing and mapping"; moby, libnetwork's bridge driver
with userland-proxy off: published ports are DNAT alone, for the host's own programs and for a container that asks
itself too.
"""

from __future__ import annotations

from collections.abc import Mapping

from controllers.flow.fields import ip_text
from controllers.kernel.iptables import Rules
from controllers.state import NodeView, Published

BRIDGE = "docker0"
# What depends on the node stands in a chain of ours; dockerd writes it into POSTROUTING itself.
_MASQUERADING = "DOCKER-MASQUERADING"
# dockerd sets the policy of FORWARD to DROP beside these: nobody reaches a container but by a published port.
HOOKS: Mapping[str, tuple[str, ...]] = {
    "filter": (
        f"FORWARD -o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"FORWARD -o {BRIDGE} -j DOCKER",
        f"FORWARD -i {BRIDGE} ! -o {BRIDGE} -j ACCEPT",
        f"FORWARD -i {BRIDGE} -o {BRIDGE} -j ACCEPT",
    ),
    "nat": (
        "PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "OUTPUT -m addrtype --dst-type LOCAL -j DOCKER",
        f"POSTROUTING -o {BRIDGE} -m addrtype --src-type LOCAL -j MASQUERADE",
        f"POSTROUTING -j {_MASQUERADING}",
    ),
}


def rules(view: NodeView) -> Rules:
    """Masquerading of what leaves, and the published ports of the node's pods."""
    published = sorted(view.published, key=lambda one: (one.pod, one.host_port))
    return {
        "nat": {
            "DOCKER": [_translate(one) for one in published],
            _MASQUERADING: [
                f"-s {view.node.pod_cidr} ! -o {BRIDGE} -j MASQUERADE",
                *(_to_itself(one) for one in published),
            ],
        },
        "filter": {"DOCKER": [_let_in(one) for one in published]},
    }


def _translate(one: Published) -> str:
    where = f"-d {one.host_ip} " if one.host_ip else ""
    port = f"-p {one.protocol} -m {one.protocol} --dport {one.host_port}"
    return f"{where}{port} -j DNAT --to-destination {ip_text(one.ip)}:{one.port}"


def _to_itself(one: Published) -> str:
    """A container that asks for its own published port must not see its own address as the client."""
    ip = ip_text(one.ip)
    return f"-s {ip} -d {ip} -p {one.protocol} -m {one.protocol} --dport {one.port} -j MASQUERADE"


def _let_in(one: Published) -> str:
    port = f"-p {one.protocol} -m {one.protocol} --dport {one.port}"
    return f"-d {ip_text(one.ip)} ! -i {BRIDGE} -o {BRIDGE} {port} -j ACCEPT"

"""Links of a lab's fabric: made and shaped between machines, and noted in the store's FabricSwitch objects."""

from __future__ import annotations

from collections.abc import Callable

from mininet.net import Mininet

from topo import fabric, hosts, links, shaping
from topo.cluster.store import Object, Store
from topo.config import FabricConfig
from topo.nodes import Node


class Wires:
    """host: gives the machine of that name."""

    def __init__(self, config: FabricConfig, store: Store, mininet: Mininet, host: Callable[[str], hosts.Host]) -> None:
        self._config, self._store, self._mininet, self._host = config, store, mininet, host

    def note(self, switch: str, port: int, peer: str | None) -> None:
        """The switch's port leads to that machine, or to none any more; the controller learns it from the store."""

        def change(thing: Object) -> None:
            ports = thing["spec"]["ports"]
            if peer is None:
                ports.pop(str(port), None)
            else:
                ports[str(port)] = peer

        self._store.update("FabricSwitch", "", switch, change)

    def ports(self, switch: str) -> dict[int, str]:
        """What each of the switch's ports leads to, by number."""
        thing = self._store.get("FabricSwitch", "", switch)
        assert thing is not None
        return {int(number): peer for number, peer in sorted(thing["spec"]["ports"].items(), key=lambda p: int(p[0]))}

    def attach(self, node: Node) -> str:
        """A node's uplink to its switch; the name of the switch's port."""
        name = port_name(node.attachment.port)
        self.connect(node.name, "eth0", node.attachment.switch, name, str(node.ip))
        return name

    def connect(self, one: str, one_port: str, two: str, two_port: str, ip: str = "", mac: str = "") -> None:
        """A link, shaped at both ends as the lab file says. ip, mac: of the first end's machine."""
        link = fabric.link(self._config, one, two)
        ends = [(self._host(one), one_port), (self._host(two), two_port)]
        links.veth(one_port, ends[0][0].pid, two_port, ends[1][0].pid, link.mtu, mac)
        hosts.add_link(self._mininet, ends[0][0], one_port, ends[1][0], two_port, ip)
        for host, port in ends:
            shaping.apply(host, port, link)


def port_name(number: int) -> str:
    """A switch's interface of that OpenFlow number."""
    return f"eth{number}"

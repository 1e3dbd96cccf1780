"""Runs a packet through the ipvs mode's chains, sets and virtual servers; fails on any match that it does not know.

The hooks as the kernel has them: nat and filter before ipvs for what comes in, ipvs between nat and filter for what the
node itself sends, source translation last (ip_vs_core.c, ip_vs_ops4; README of kube-proxy's ipvs mode).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from kernel_tables import Kernel

OPTIONS = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}


@dataclass(frozen=True)
class Packet:
    """The first of a connection. own: the node sends it; virtual: of which virtual server it is, once it is."""

    protocol: str
    src: str
    dst: str
    port: int
    own: bool = False
    marked: bool = False
    virtual: str = ""


@dataclass(frozen=True)
class Node:
    """The kernel of the node with these addresses, beside those of kube-ipvs0."""

    kernel: Kernel
    addresses: frozenset[str]

    def verdict(self, packet: Packet) -> tuple[str, set[str], set[bool]]:
        """What becomes of it, which endpoints it may reach, and whether masqueraded."""
        if packet.own and self._is_local(packet.dst) and packet.dst not in self.addresses:
            packet = replace(packet, src=packet.dst)  # the address by which the kernel reaches its own
        _, packet = self._chain("nat", "KUBE-SERVICES", packet)
        if not self._is_local(packet.dst):
            end, _ = self._chains(packet, "KUBE-PROXY-FIREWALL", "KUBE-FORWARD")
            return "DROP" if end == "DROP" else "NOT_A_SERVICE", set(), set()
        name = f"{OPTIONS[packet.protocol]} {packet.dst}:{packet.port}"
        is_served = name in self.kernel.servers
        if not packet.own or not is_served:
            end, _ = self._chains(packet, "KUBE-IPVS-FILTER", "KUBE-PROXY-FIREWALL", "KUBE-NODE-PORT")
            if end in ("DROP", "REJECT"):
                return end, set(), set()
        if not is_served:
            return "NOT_A_SERVICE", set(), set()
        packet = replace(packet, virtual=name)
        if packet.own and self._chain("filter", "KUBE-IPVS-OUT-FILTER", packet)[0] == "DROP":
            return "DROP", set(), set()
        reached = {real for real, weight in self.kernel.servers[name][1].items() if weight}
        if not reached:
            return "REJECT", set(), set()  # ip_vs_leave(): port unreachable
        hidden = set()
        for real in reached:
            address, _, port = real.partition(":")
            end, _ = self._chain("nat", "KUBE-POSTROUTING", replace(packet, dst=address, port=int(port)))
            hidden.add(end == "MASQUERADE")
        return "DNAT", reached, hidden

    def _is_local(self, address: str) -> bool:
        return address in self.addresses or f"{address}/32" in self.kernel.addresses

    def _chains(self, packet: Packet, *names: str) -> tuple[str, Packet]:
        end = ""
        for name in names:
            end, packet = self._chain("filter", name, packet)
            if end:
                break
        return end, packet

    def _chain(self, table: str, name: str, packet: Packet) -> tuple[str, Packet]:
        """Verdict, "" for none, and the packet as it is then."""
        for rule in self.kernel.chains[table, name]:
            words = iter(rule.split())
            target = self._target(words, packet)
            if target is None:
                continue
            if target in ("ACCEPT", "DROP", "REJECT", "MASQUERADE"):
                return target, packet
            if target == "RETURN":
                break
            if target == "MARK":
                packet = replace(packet, marked=next(words) == "--or-mark")
                continue
            end, packet = self._chain(table, target, packet)
            if end:
                return end, packet
        return "", packet

    def _target(self, words: Iterator[str], packet: Packet) -> str | None:
        """Where the rule sends the packet, None if it does not match."""
        matches, wanted = True, True
        for word in words:
            if word == "-j":
                return next(words) if matches else None
            if word == "!":
                wanted = False
                continue
            if word == "-m":
                next(words)
                continue
            matches &= self._matches(word, words, packet) == wanted
            wanted = True
        raise AssertionError("a rule without a target")

    def _matches(self, option: str, words: Iterator[str], packet: Packet) -> bool:
        if option == "--physdev-is-in":
            return packet.src.startswith("10.")  # pods are ports of a bridge
        value = next(words)
        if option == "-s":
            return IPv4Address(packet.src) in IPv4Network(value)
        if option == "-p":
            return packet.protocol == value
        if option in ("--src-type", "--dst-type"):
            assert value == "LOCAL"
            return self._is_local(packet.src if option == "--src-type" else packet.dst)
        if option == "--mark":
            return packet.marked
        if option == "--ctstate":
            return "NEW" in value
        if option in ("--vaddr", "--vproto", "--vport"):
            address, _, port = packet.virtual.partition(" ")[2].partition(":")
            return {"--vaddr": address, "--vproto": packet.protocol, "--vport": port}[option] == value
        assert option == "--match-set", option
        return self._is_in(value, next(words).split(","), packet)

    def _is_in(self, name: str, directions: list[str], packet: Packet) -> bool:
        sides = {"dst": packet.dst, "src": packet.src}
        for entry in self.kernel.sets[name]:
            parts = entry.split(",")
            if parts == [str(packet.port)]:  # bitmap:port, asked of packets of one protocol
                return True
            if len(parts) == 1:
                if parts[0] == packet.dst:
                    return True
                continue
            if parts[1] != f"{packet.protocol}:{packet.port}" or parts[0] != sides[directions[0]]:
                continue
            if len(parts) == 2 or IPv4Address(sides[directions[2]]) in IPv4Network(parts[2]):
                return True
        return False

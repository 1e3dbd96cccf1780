"""A node's kernel as far as kube-proxy's ipvs mode writes to it: it takes the programs' input, and fails as they do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from controllers.flow.fields import ip_number
from controllers.kernel.ipvs import Virtual

PROTOCOLS = {"-t": "tcp", "-u": "udp", "--sctp-service": "sctp"}


def pair(text: str) -> tuple[int, int]:
    """Address and port."""
    address, port = text.split(":")
    return ip_number(address), int(port)


@dataclass
class Kernel:
    """What it holds. busy: connections of real servers; ran: how often each program was started."""

    servers: dict[str, tuple[str, dict[str, int]]] = field(default_factory=dict)
    sets: dict[str, set[str]] = field(default_factory=dict)
    chains: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    busy: dict[tuple[Virtual, tuple[int, int]], int] = field(default_factory=dict)
    ran: Counter[str] = field(default_factory=Counter)
    device: bool = False
    broken: str = ""

    def run(self, pid: int, *argv: str, text: str = "") -> str:
        """Stands for controllers.agent.commands.run. broken: a program that fails."""
        self.ran[argv[0]] += 1
        if argv[0] == self.broken:
            raise RuntimeError(f"{argv[0]}: broken")
        if argv[:2] == ("ipvsadm", "-R"):
            for line in text.splitlines():
                self._ipvsadm(line.split())
        elif argv == ("ipvsadm", "-S", "-n"):
            return self.saved()
        elif argv == ("ipset", "restore"):
            for line in text.splitlines():
                self._ipset(*line.split(" ", 2))
        elif argv == ("ipset", "save"):
            entries = (f"add {name} {entry}\n" for name, held in self.sets.items() for entry in held)
            return "".join(f"create {name} some type\n" for name in self.sets) + "".join(entries)
        elif argv[0] == "iptables-legacy-restore":
            self._iptables(text)
        elif argv[:2] == ("ip", "-batch"):
            for line in text.splitlines():
                self._address(*line.split())
        elif argv[:3] == ("ip", "link", "add"):
            assert not self.device
            self.device = True
        elif argv == ("ip", "-brief", "link"):
            return "lo UNKNOWN 00:00\n" + "kube-ipvs0 DOWN 0a:58\n" * self.device
        elif argv[:3] == ("ip", "-4", "-brief"):
            assert self.device
            return f"kube-ipvs0 DOWN {' '.join(sorted(self.addresses))}\n"
        else:
            assert argv[0] in ("sysctl", "iptables-legacy"), argv
        return ""

    def saved(self) -> str:
        """As ipvsadm -S -n."""
        lines = []
        for virtual, (how, reals) in self.servers.items():
            lines += [f"-A {virtual} {how}", *(f"-a {virtual} -r {real} -m -w {n}" for real, n in reals.items())]
        return "".join(f"{line}\n" for line in lines)

    def proc(self) -> str:
        """As /proc/net/ip_vs."""
        lines = ["IP Virtual Server version 1.2.1 (size=4096)", "Prot LocalAddress:Port Scheduler Flags"]
        lines.append("  -> RemoteAddress:Port Forward Weight ActiveConn InActConn")
        for virtual, (how, reals) in self.servers.items():
            option, where = virtual.split()
            one = Virtual(PROTOCOLS[option], *pair(where))
            lines.append(f"{one.protocol.upper()}  {one.address:08X}:{one.port:04X} {how.split()[1]}  ")
            for real, weight in reals.items():
                address, port = pair(real)
                busy = self.busy.get((one, (address, port)), 0)
                lines.append(f"  -> {address:08X}:{port:04X}      Masq    {weight}      {busy}          0         ")
        return "".join(f"{line}\n" for line in lines)

    def _ipvsadm(self, words: list[str]) -> None:
        verb, virtual = words[0], " ".join(words[1:3])
        if verb in ("-A", "-E"):
            assert (virtual in self.servers) == (verb == "-E"), words
            self.servers[virtual] = " ".join(words[3:]), self.servers.get(virtual, ("", {}))[1]
        elif verb == "-D":
            del self.servers[virtual]
        else:
            reals, real = self.servers[virtual][1], words[4]
            assert (real in reals) == (verb in ("-e", "-d")), words
            if verb == "-d":
                del reals[real]
            else:
                assert words[5:7] == ["-m", "-w"]
                reals[real] = int(words[7])

    def _ipset(self, verb: str, name: str, entry: str) -> None:
        if verb == "create":
            assert name not in self.sets
            self.sets[name] = set()
        elif verb == "add":
            assert entry not in self.sets[name]
            self.sets[name].add(entry)
        else:
            self.sets[name].remove(entry)

    def _iptables(self, text: str) -> None:
        table = ""
        for line in text.splitlines():
            verb, *rest = line.split(" ", 2)
            if verb.startswith("*"):
                table = verb[1:]
            elif verb.startswith(":"):
                self.chains[table, verb[1:]] = []
            elif verb == "-A":
                words = rest[1].split()
                asked = words[words.index("--match-set") + 1] if "--match-set" in words else None
                assert asked is None or asked in self.sets, line
                self.chains[table, rest[0]].append(rest[1])
            else:
                assert verb == "COMMIT", line

    def _address(self, what: str, verb: str, address: str, *device: str) -> None:
        assert (what, device) == ("address", ("dev", "kube-ipvs0")) and self.device
        assert (address in self.addresses) == (verb == "del"), address
        (self.addresses.add if verb == "add" else self.addresses.remove)(address)

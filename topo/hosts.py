"""Mininet's nodes for our namespaces: a holder process each, a shell only when somebody types into it."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from mininet.cli import CLI
from mininet.link import Intf, Link
from mininet.net import Mininet
from mininet.node import Node

# Mininet would raise limits of the whole machine when the first network is made; a lab changes nothing outside.
Mininet.inited = True


class Host(Node):
    """A network and mount namespace, held open by a sleeping process (as a pod's pause container does).

    Mininet starts a bash per node at once; here it starts on the first cmd(), so that a pod costs 0.3 MB and 2 ms.
    """

    def startShell(self, mnopts: str | None = None) -> None:
        """Make the namespaces; -p prints the pid once they exist (mnexec.c)."""
        command = ["mnexec", "-d", "-n", "-p", "sleep", "infinity"]
        self.holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        self.holder.stdout.readline()
        self.holder.stdout.close()
        self.pid = self.holder.pid

    def cmd(self, *args: Any, **kwargs: Any) -> Any:
        """As Mininet's, after starting the shell if there is none."""
        self._need_shell()
        return super().cmd(*args, **kwargs)

    def sendCmd(self, *args: Any, **kwargs: Any) -> Any:
        """As Mininet's, after starting the shell if there is none."""
        self._need_shell()
        return super().sendCmd(*args, **kwargs)

    def _need_shell(self) -> None:
        if self.shell is None:
            self.inNamespace = False  # the shell enters the namespace that is there
            super().startShell(mnopts=f"-cda{self.pid}")
            self.inNamespace = True
            self.pid = self.holder.pid

    def run(self, *argv: str, text: str = "") -> str:
        """Run a program in the namespaces, in /, and give its output. Raises CalledProcessError."""
        command = ["mnexec", "-a", str(self.pid), *argv]
        options: dict[str, Any] = {"capture_output": True, "text": True, "start_new_session": True, "cwd": "/"}
        return str(subprocess.run(command, input=text, check=True, **options).stdout)

    def start_daemon(self, *argv: str, **options: Any) -> subprocess.Popen[Any]:
        """Start a program in the namespaces, out of reach of the terminal's signals; in /, as daemon(3) has it.

        The caller's folder may be covered there, and mnexec fails where it cannot go back to it.
        """
        silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        options = {**silent, "cwd": "/", **options}
        return subprocess.Popen(["mnexec", "-a", str(self.pid), *argv], start_new_session=True, **options)

    def end_programs(self) -> None:
        """Kill all that was started in the namespaces, whoever started it, but for the holder: as a power cut does.

        By the mount namespace: some of ours enter a network for a moment to open a socket there.
        """
        own = f"/proc/{self.pid}/ns/mnt"
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != self.pid:
                with suppress(OSError):  # it has ended, or is none of ours
                    if (folder / "ns/mnt").samefile(own):
                        os.kill(int(folder.name), signal.SIGKILL)

    def end(self) -> None:
        """End the holder and the shell. What else runs in the namespaces keeps them."""
        for process in (self.holder, self.shell):
            if process is not None:
                process.kill()
                process.wait()


class CommandLine(CLI):
    """Mininet's command line, which takes our names: Kubernetes' have hyphens and dots."""

    identchars = CLI.identchars + "-."


def empty_network() -> Mininet:
    """A Mininet network to which the lab adds what it builds; its command line sees everything in it."""
    return Mininet(topo=None, build=False, controller=None, autoSetMacs=False)


def add(network: Mininet, host: Host, switch: bool = False) -> None:
    """Make a host known to the network."""
    (network.switches if switch else network.hosts).append(host)
    network.nameToNode[host.name] = host


def remove(network: Mininet, host: Host) -> None:
    """Forget a host and its links, at both ends: a node would keep every pod that it ever had."""
    for hosts in (network.hosts, network.switches):
        if host in hosts:
            hosts.remove(host)
    network.nameToNode.pop(host.name, None)
    gone = [link for link in network.links if host in (link.intf1.node, link.intf2.node)]
    for end in (end for link in gone for end in (link.intf1, link.intf2)):
        end.node.delIntf(end)
    network.links[:] = [link for link in network.links if link not in gone]


def add_link(network: Mininet, one: Host, one_name: str, two: Host, two_name: str, ip: str = "") -> None:
    """Tell Mininet of a link that exists already. ip: the first end's address, by which its host's name is replaced."""
    link = Link.__new__(Link)
    link.intf1 = BuiltIntf(one_name, node=one, link=link, moveIntfFn=_stay)
    link.intf2 = BuiltIntf(two_name, node=two, link=link, moveIntfFn=_stay)
    link.intf1.ip = ip or None
    network.links.append(link)


class BuiltIntf(Intf):
    """An interface that is configured already; it shows with its node, for every pod has an eth0."""

    def __str__(self) -> str:
        return f"{self.node.name}:{self.name}"

    def config(self, **_: Any) -> dict[str, Any]:
        """Mininet would start a shell and ifconfig here."""
        return {}

    def updateIP(self) -> str | None:
        """The address that stands; a node's is on br-ex, where Mininet would not look."""
        return self.ip  # type: ignore[no-any-return]


def _stay(*_: Any) -> None:
    """The interface is where it belongs."""

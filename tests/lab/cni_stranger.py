"""Run in a node of a lab, as somebody who knows only the CNI specification: calls plugins, prints what came.

python cni_stranger.py CONFLIST CNI_PATH [ADDRESS-TO-PING]   -> {"step": [status, answer], ...}
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FILE, PATH, *PING = sys.argv[1:]
LIST = json.loads(Path(FILE).read_text())
PLUGIN = {key: value for key, value in LIST["plugins"][0].items() if key != "capabilities"}
CONFIG = {**PLUGIN, "cniVersion": LIST["cniVersion"], "name": LIST["name"]}
DATA = Path(PLUGIN["ipam"]["dataDir"], LIST["name"])


def call(command: str, container: str, netns: str, config: Any = CONFIG, kind: str = "", **env: str) -> list[Any]:
    """Exit status and what was printed."""
    given = {"CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": "eth0"}
    given = {key: value for key, value in {**given, "CNI_PATH": PATH, **env}.items() if value}
    text = config if isinstance(config, str) else json.dumps(config)
    program = shutil.which(kind or PLUGIN["type"], path=PATH)
    assert program is not None
    done = subprocess.run([program], input=text, env=os.environ | given, capture_output=True, text=True)
    return [done.returncode, json.loads(done.stdout) if done.stdout.strip() else None]


class Container:
    """A network namespace with nothing in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        # It ends with this program, however that ends.
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "300"])
        self.netns = f"/proc/{self.process.pid}/ns/net"
        while Path(self.netns).stat().st_ino == Path("/proc/self/ns/net").stat().st_ino:
            time.sleep(0.005)

    def run(self, *command: str) -> str:
        """A program in it."""
        done = subprocess.run(["nsenter", f"--net={self.netns}", *command], capture_output=True, text=True)
        return done.stdout + done.stderr

    def ask(self, command: str, **options: Any) -> list[Any]:
        """A plugin about it."""
        return call(command, self.name, options.pop("netns", self.netns), **options)

    def end(self) -> None:
        """With its namespace."""
        self.process.kill()
        self.process.wait()


def reservations() -> list[str]:
    """Addresses that somebody has."""
    return sorted(file.name for file in DATA.iterdir() if file.name[0].isdigit())


def veths() -> list[str]:
    """The node's ends of pairs."""
    return [file.name for file in Path("/sys/class/net").glob("veth*")]


def interfaces(container: Container) -> str:
    """MACs and addresses of a container."""
    return container.run("ip", "-brief", "link") + container.run("ip", "-brief", "-4", "address")


def main() -> None:
    """One container's life, and what may go wrong in it."""
    said: dict[str, Any] = {"before": reservations(), "netns": ""}
    one = Container("stranger-1")
    said["netns"] = one.netns
    said["version"] = call("VERSION", "", "", CNI_IFNAME="", CNI_PATH="")
    said["add"] = one.ask("ADD")
    said["inside"] = interfaces(one)
    said["again"] = one.ask("ADD", CNI_CONTAINERID="stranger-2")
    said["inside after again"] = interfaces(one)
    checked = {**CONFIG, "prevResult": said["add"][1]}
    said["check"] = one.ask("CHECK", config=checked)
    if PING:
        said["ping"] = one.run("ping", "-c", "2", "-W", "2", PING[0])
    one.run("ip", "route", "add", "198.18.0.0/15", "dev", "eth0")
    said["check with a foreign route"] = one.ask("CHECK", config=checked)
    one.run("ip", "route", "delete", "default")
    said["check without the route"] = one.ask("CHECK", config=checked)
    one.run("ip", "route", "add", "default", "via", said["add"][1]["ips"][0]["gateway"], "onlink", "dev", "eth0")
    said["check with the route again"] = one.ask("CHECK", config=checked)
    address = said["add"][1]["ips"][0]["address"]
    one.run("ip", "address", "delete", address, "dev", "eth0")
    said["check without the address"] = one.ask("CHECK", config=checked)
    one.run("ip", "link", "delete", "eth0")
    said["check without the interface"] = one.ask("CHECK", config=checked)
    said["del"] = one.ask("DEL", config=checked)
    said["inside after del"] = interfaces(one)
    said["reserved after del"] = reservations()
    said["del twice"] = one.ask("DEL")
    two = Container("stranger-2")
    said["add two"] = two.ask("ADD")
    two.end()
    said["del of a namespace that went"] = two.ask("DEL")
    said["del without a namespace"] = two.ask("DEL", netns="")
    said["add to no namespace"] = two.ask("ADD", netns="/proc/1/ns/nothing")
    said["no json"] = one.ask("ADD", config="{")
    said["no version"] = one.ask("ADD", config={**CONFIG, "cniVersion": "9.0.0"})
    said["no name"] = one.ask("ADD", CNI_IFNAME="")
    said["too small"] = one.ask(
        "ADD", config={**CONFIG, "ipam": {**PLUGIN["ipam"], "ranges": [[{"subnet": "10.9.0.0/31"}]]}}
    )
    if LIST["cniVersion"] == "1.1.0":
        said["status"] = call("STATUS", "", "", CNI_IFNAME="")
        three = Container("stranger-3")
        said["add three"] = three.ask("ADD")
        three.end()
        # GC must spare whom it is told of; the lab's own pods are among them.
        valid = [_owner(name) for name in said["before"]]
        said["gc"] = call("GC", "", "", {**CONFIG, "cni.dev/valid-attachments": valid}, CNI_IFNAME="")
        said["reserved after gc"] = reservations()
        three.ask("DEL")
    else:
        said |= {"many": at_once("ADD", one.netns), "many gone": at_once("DEL", "")}
    one.end()
    said["after"] = reservations()
    said["left"] = veths()
    for _ in range(50):  # the kernel takes a namespace away some time after its last process
        if len(said["left"]) <= len(said["before"]):
            break
        time.sleep(0.1)
        said["left"] = veths()
    print(json.dumps(said))


def at_once(command: str, netns: str) -> list[list[Any]]:
    """50 containers and the IPAM plugin alone."""
    kind = PLUGIN["ipam"]["type"]
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda i: call(command, f"many-{i}", netns, CONFIG, kind), range(50)))


def _owner(address: str) -> dict[str, str]:
    container, ifname = (DATA / address).read_text().split()
    return {"containerID": container, "ifname": ifname}


main()

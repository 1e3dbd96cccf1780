"""userspace: a proxy process on every node takes each connection and opens its own to an endpoint, in turn.

The flows only divert: every set of endpoints has an address and port of its own in a range that is the node's, where
the process listens (controllers/programs/service_proxy.py). What a pod sees as its client is the node.
Source: Kubernetes, "Virtual IPs and Service Proxies" as of 1.25, userspace proxy mode.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from controllers import programs
from controllers.agent.commands import run
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import ZONE, Action, Ct, Nat
from controllers.flow.program import Writer
from controllers.proxy import NodePart
from controllers.proxy.frontends import LOCAL_SET, EndpointSet, FlowProxy, frontends, options
from controllers.state import Node, NodeView

# The proxy's own addresses (RFC 2544's, which no network has), with a routing table by which its answers go back to the
# switch and not by the way the client's address would suggest.
NETWORK, _TABLE = "198.18.0.0/15", "198"
_FIRST, _FIRST_PORT = f.ip_number("198.18.0.0"), 1024
_PROGRAM = Path(programs.__file__).with_name("service_proxy.py")


def listener(number: int) -> tuple[int, int]:
    """Address and port of a set of endpoints: a number of 31 bits is 16 of address and 15 of port."""
    return _FIRST + (number >> 15), _FIRST_PORT + (number & 0x7FFF)


class Userspace(FlowProxy):
    """The proxy mode object."""

    name = "userspace"
    description = "a real proxy process on every node, round robin; pods see the node as their client"

    def choose(self, w: Writer, chosen: EndpointSet, node: Node) -> tuple[Action, ...]:
        """To the node's process."""
        return (Ct(ZONE, t.after(t.ENDPOINT_DNAT), commit=True, nat=Nat("dst", *listener(chosen.number))),)

    def node_part(self, pid: int) -> NodePart | None:
        """The process."""
        return ProxyProcess(pid)


PROXY = Userspace()


class ProxyProcess:
    """One node's process, started with the first Service."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._process: subprocess.Popen[str] | None = None
        self._told = ""

    def sync(self, view: NodeView) -> None:
        """Tell the process of every set of endpoints. Raises RuntimeError for those it cannot listen for."""
        line = json.dumps({"sets": endpoint_sets(view)}) + "\n"
        if self._process is not None and self._process.poll() is not None:
            self._process, self._told = None, ""  # it died; a new one listens again
        if line == self._told:
            return
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        failed = json.loads(process.stdout.readline() or '{"failed": [["", 0, "the process ended"]]}')["failed"]
        self._told = line
        if failed:
            raise RuntimeError(f"the userspace proxy cannot listen: {failed[:3]}")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[str]:
        run(self._pid, "ip", "route", "replace", "local", NETWORK, "dev", "lo")
        run(self._pid, "ip", "route", "replace", "default", "dev", "gw0", "table", _TABLE)
        if NETWORK not in run(self._pid, "ip", "rule"):
            run(self._pid, "ip", "rule", "add", "from", NETWORK, "lookup", _TABLE)
        command = ["mnexec", "-a", str(self._pid), sys.executable, "-I", "-S", str(_PROGRAM)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        return self._process


def endpoint_sets(view: NodeView) -> list[dict[str, object]]:
    """What the process of a node is told: each set once, with the address that `choose` sends its clients to."""
    rules = options(view.lab.options.get("proxy", {}))
    found: dict[int, dict[str, object]] = {}
    for port in view.services.values():
        for one in frontends(port, view.node, rules) if port.protocol != "sctp" else ():
            number = port.group | (LOCAL_SET if one.local else 0)
            if one.endpoints and number not in found:
                address, where = listener(number)
                found[number] = {
                    "listen": [f.ip_text(address), where],
                    "protocol": port.protocol,
                    "endpoints": [[f.ip_text(e.ip), e.port] for e in one.endpoints],
                    "affinity": port.affinity,
                }
    return [found[number] for number in sorted(found)]

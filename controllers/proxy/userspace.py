"""userspace: a proxy process on every node takes each connection and opens its own to an endpoint, in turn.

The flows only divert: every set of endpoints has an address and port of its own in a range that is the node's, where
the process listens (controllers/programs/service_proxy.py). What a pod sees as its client is the node.
Source: Kubernetes, "Virtual IPs and Service Proxies" as of 1.25, userspace proxy mode.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
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
from topo.cluster.patience import patience
from topo.system import inside

LOG = logging.getLogger("mininetes")
# The proxy's own addresses (RFC 2544's, which no network has), with a routing table by which its answers go back to the
# switch and not by the way the client's address would suggest.
NETWORK, _TABLE = "198.18.0.0/15", "198"
_FIRST, _FIRST_PORT = f.ip_number("198.18.0.0"), 1024
_PROGRAM = Path(programs.__file__).with_name("service_proxy.py")
# Seconds that it may take over an answer, and that one life of it lasts at least, in effect.
_PATIENCE, _SHORTEST = patience(10.0), 1.0


def listener(number: int) -> tuple[int, int]:
    """Address and port of a set of endpoints: a number of 31 bits is 16 of address and 15 of port."""
    return _FIRST + (number >> 15), _FIRST_PORT + (number & 0x7FFF)


class Userspace(FlowProxy):
    """The proxy mode object."""

    name = "userspace"
    description = "a real proxy process on every node, round robin; pods see the node as their client"
    hides_clients = True

    def choose(self, w: Writer, chosen: EndpointSet, node: Node) -> tuple[Action, ...]:
        """To the node's process."""
        return (Ct(ZONE, t.after(t.ENDPOINT_DNAT), commit=True, nat=Nat("dst", *listener(chosen.number))),)

    def node_part(self, pid: int) -> NodePart | None:
        """The process."""
        return ProxyProcess(pid)


PROXY = Userspace()


class ProxyProcess:
    """One node's process, started with the first view; one that dies is started again and told the same.

    command: its argument vector, which runs in the node's namespaces. It ends with its standard input, so with us too.
    """

    def __init__(self, pid: int, command: Sequence[str] = (sys.executable, "-I", "-S", str(_PROGRAM))) -> None:
        self._pid, self._command = pid, command
        self._process: subprocess.Popen[str] | None = None
        self._told = ""
        self._gateway = 0
        self._lock = threading.Lock()

    def sync(self, view: NodeView) -> None:
        """Tell the process of every set of endpoints. Raises RuntimeError for those it cannot listen for, OSError."""
        with self._lock:
            self._route()
            self._tell(json.dumps({"sets": endpoint_sets(view)}) + "\n")

    def close(self) -> None:
        """End the process."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _route(self) -> None:
        """Its network and the way of its answers, again whenever gw0 is another one (its switch was restarted)."""
        with inside(self._pid):
            gateway = socket.if_nametoindex("gw0")
        if gateway == self._gateway:
            return
        run(self._pid, "ip", "route", "replace", "local", NETWORK, "dev", "lo")
        run(self._pid, "ip", "route", "replace", "default", "dev", "gw0", "table", _TABLE)
        if NETWORK not in run(self._pid, "ip", "rule"):
            run(self._pid, "ip", "rule", "add", "from", NETWORK, "lookup", _TABLE)
        self._gateway = gateway

    def _tell(self, line: str) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            process, self._told = self._start(), ""
        if line == self._told:
            return
        assert process.stdin is not None and process.stdout is not None
        self._told = ""  # until it has answered that all is well
        process.stdin.write(line)
        process.stdin.flush()
        if not select.select([process.stdout], [], [], _PATIENCE)[0]:
            process.kill()  # and it is started again
            raise RuntimeError(f"the userspace proxy does not answer in {_PATIENCE:.0f} s")
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError("the userspace proxy ended")
        failed = json.loads(answer)["failed"]
        if failed:
            said = "; ".join(f"{protocol} {address}:{port}: {why}" for protocol, address, port, why in failed[:3])
            raise RuntimeError(f"the userspace proxy cannot listen for {len(failed)} of its ports: {said}")
        self._told = line

    def _start(self) -> subprocess.Popen[str]:
        command = ["mnexec", "-a", str(self._pid), *self._command]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._process = process
        threading.Thread(target=self._watch, args=(process,), name=f"proxy {process.pid}", daemon=True).start()
        return process

    def _watch(self, process: subprocess.Popen[str]) -> None:
        """Start it again when it ends, not too often."""
        began = time.monotonic()
        process.wait()
        time.sleep(max(0.0, began + _SHORTEST - time.monotonic()))
        with self._lock:
            if self._process is process and self._told:
                LOG.warning("the userspace proxy ended with status %d and is started again", process.returncode)
                try:
                    self._tell(self._told)
                except (OSError, RuntimeError) as error:
                    LOG.warning("%s", error)


def endpoint_sets(view: NodeView) -> list[dict[str, object]]:
    """What the process of a node is told: each set once, with the address that `choose` sends its clients to."""
    rules = options(view.lab.options.get("proxy", {}))
    found: dict[int, dict[str, object]] = {}
    for port in view.services.values():
        for one in frontends(port, view.node, rules):
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

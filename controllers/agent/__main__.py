"""The agent's process: keeps every node as its view of the cluster wants it, and says so. The lab starts it.

    python -m controllers.agent --run DIR --lab SOCKET [--plugins DIR]

It speaks as a controller does (controllers/lablink.py), of "bridges" called (node, "agent").
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any

from controllers import cni as cnis
from controllers import proxy as proxies
from controllers.agent.health import HealthChecks
from controllers.agent.neighbours import Announcements
from controllers.agent.node import NodeAgent, Report
from controllers.agent.nodeports import NodePorts
from controllers.cni import Cni
from controllers.proxy import Annotating, NodePart, Proxy
from controllers.registry import discover, look_in
from controllers.state import ClusterState, NodeView
from topo.cluster.lines import batches
from topo.cluster.wiring import PID

LOG = logging.getLogger("mininetes")


class Agent:
    """Follows the lab's objects."""

    def __init__(self, path: str, run: Path) -> None:
        self.state, self.run_folder = ClusterState(), run
        self.pids: dict[str, int] = {}
        self.nodes: dict[str, NodeAgent] = {}
        # The last of each name that left, which may still be closing what it had.
        self._left: dict[str, NodeAgent] = {}
        self.proxies: dict[str, Proxy] = discover(proxies, "PROXY")
        self.cnis: dict[str, Cni] = discover(cnis, "CNI")
        self._lock = threading.Lock()
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(path)

    def report(self, kind: str, **values: Any) -> None:
        """Tell the lab something."""
        with self._lock:
            self._sock.sendall(json.dumps({"report": kind, **values}).encode() + b"\n")

    def run(self) -> None:
        """Until the lab closes the line."""
        self.report("hello")
        for lines in batches(self._sock):
            revision = -1
            for message in map(json.loads, lines):
                if "event" in message:
                    self._event(message["event"], message["object"])
                else:
                    revision = message.get("bookmark", revision)
            # Once for all that changed meanwhile: it is a look at every node.
            if revision >= 0:
                self._changed(revision)

    def _event(self, event: str, thing: dict[str, Any]) -> None:
        self.state.apply(thing["kind"], event, thing)
        if thing["kind"] == "Node":
            pid = (thing["metadata"].get("annotations") or {}).get(PID)
            if event == "DELETED" or pid is None:
                self.pids.pop(thing["metadata"]["name"], None)
            else:
                self.pids[thing["metadata"]["name"]] = int(pid)

    def _changed(self, revision: int) -> None:
        # A node that left and came back under its name is another one.
        for name in [name for name, node in self.nodes.items() if self.pids.get(name) != node.pid]:
            self._left[name] = left = self.nodes.pop(name)
            left.end()
        for name, pid in self.pids.items():
            view = self.state.node_view(name)
            if view is None:
                continue
            if name not in self.nodes:
                after = self._left.pop(name, None)
                self.nodes[name] = NodeAgent(name, pid, self._parts(view, pid), self._reporter(name), after=after)
            self.nodes[name].want(view, revision)

    def _reporter(self, name: str) -> Report:
        return lambda revision, errors: self.report("synced", bridge=[name, "agent"], revision=revision, errors=errors)

    def _parts(self, view: NodeView, pid: int) -> list[NodePart]:
        proxy = self.proxies[view.lab.proxy_mode]
        parts: list[NodePart] = [HealthChecks(pid), Announcements(pid)]
        if proxy.attachment == "switch":
            parts.append(NodePorts(pid))
        own = self.cnis[view.lab.cni].node_part(view.lab, pid, self.run_folder / view.node.name), proxy.node_part(pid)
        parts += [part for part in own if part is not None]
        for part in parts:
            if isinstance(part, Annotating):
                part.annotate = partial(self._annotate, view.node.name)
        return parts

    def _annotate(self, node: str, key: str, value: str) -> None:
        self.report("annotate", node=node, notes={key: value})


def main() -> None:
    """Run until the lab ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--lab")
    parser.add_argument("--plugins", type=Path, action="append", default=[])
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(threadName)s: %(message)s")
    look_in(arguments.plugins)
    agent = Agent(arguments.lab, arguments.run)
    agent.run()
    LOG.info("the lab closed its line; the agent ends")
    os._exit(0)  # its threads serve for ever


if __name__ == "__main__":
    main()

"""The lab's side of the line to the controller process: starts it, feeds it the store, hears its reports.

The protocol is described in controllers/lablink.py.
"""

from __future__ import annotations

import itertools
import json
import logging
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from topo.cluster.lines import batches
from topo.cluster.patience import patience
from topo.cluster.store import NotFound, Object, Store, Watch
from topo.control.feed import feed

LOG = logging.getLogger("mininetes")
_KINDS = frozenset(
    {
        "Lab",
        "FabricSwitch",
        "Outside",
        "Node",
        "Pod",
        "Attachment",
        "Service",
        "EndpointSlice",
        "Namespace",
        "NetworkPolicy",
    }
    | {"AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "GlobalNetworkPolicy", "NetworkSet", "GlobalNetworkSet"}
)
_START_TIMEOUT = 30.0


class ControllerGone(Exception):
    """The controller process ended; the message says where its log is."""


class Controller:
    """The controller process, or the agent's, and what it last said.

    command: its argument vector without --run and --lab. name: what people call it, as do its socket and its log.
    """

    def __init__(self, store: Store, run: Path, command: Sequence[str], name: str = "controller") -> None:
        self.store, self.run, self.name = store, run, name
        self.command = [*command, "--run", str(run), "--lab", str(run / f"{name}.sock")]
        self.log = run / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.failure = ""
        self.synced: dict[tuple[str, str], dict[str, Any]] = {}
        self._listening = 0
        self._changed = threading.Condition()
        self._answers: dict[int, queue.SimpleQueue[Any]] = {}
        self._ids = itertools.count(1)
        self._sock: socket.socket | None = None
        self._send_lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(run / f"{name}.sock"))
        self._listener.listen(1)
        threading.Thread(target=self._accept, name="controller", daemon=True).start()

    def start(self) -> None:
        """Start the process; `wait_listening` says when switches can connect."""
        with self._changed:
            self.synced.clear()
            self.failure, self._listening = "", 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self) -> None:
        """Kill the process. Switches keep what they hold."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def wait_listening(self, bridges: int) -> None:
        """Until the controller listens for so many bridges. Raises ControllerGone."""
        self._wait(lambda: self._listening >= bridges, _START_TIMEOUT, f"did not listen for {bridges} bridges")

    def wait_synced(self, bridges: Sequence[tuple[str, str]], revision: int, timeout: float) -> None:
        """Until each bridge holds the flows of this store revision, confirmed by a barrier. Raises ControllerGone."""

        def done() -> bool:
            return all(self.synced.get(b, {}).get("revision", -1) >= revision for b in bridges)

        self._wait(done, timeout, f"did not confirm revision {revision} on every bridge")

    def errors(self) -> list[str]:
        """What switches refused and what could not be compiled, as last reported."""
        with self._changed:
            found = [f"{'/'.join(b)}: {e}" for b, report in self.synced.items() for e in report["errors"]]
            return found + ([self.failure] if self.failure else [])

    def ask(self, verb: str, timeout: float = 10.0, **values: Any) -> Any:
        """Put a question to the controller. Raises ControllerGone if it does not answer."""
        number = next(self._ids)
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers[number] = answer
        try:
            self._send({"ask": verb, "id": number, **values})
            return answer.get(timeout=patience(timeout))
        except (OSError, queue.Empty) as error:
            raise ControllerGone(f"the {self.name} does not answer; see {self.log}") from error
        finally:
            del self._answers[number]

    def _wait(self, done: Any, timeout: float, what: str) -> None:
        timeout = patience(timeout)
        deadline = time.monotonic() + timeout
        with self._changed:
            while not done():
                if self.failure:
                    raise ControllerGone(f"the {self.name} reports: {self.failure}")
                if self.process is None or self.process.poll() is not None:
                    raise ControllerGone(f"the {self.name} ended: {self.last_words()}")
                if time.monotonic() > deadline:
                    raise ControllerGone(f"the {self.name} {what} in {timeout:.0f} s: {self.last_words()}")
                self._changed.wait(0.1)

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it wrote nothing to its log"

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            self._sock = sock
            threading.Thread(target=self._feed, args=(sock,), name="controller-out", daemon=True).start()

    def _feed(self, sock: socket.socket) -> None:
        def send(lines: bytes) -> None:
            with self._send_lock:
                sock.sendall(lines)

        def opened(watch: Watch) -> None:
            threading.Thread(target=self._read, args=(sock, watch), name="controller-in", daemon=True).start()

        feed(self.store, _KINDS, send, opened)

    def _send(self, message: dict[str, Any]) -> None:
        if self._sock is None:
            raise OSError(f"no {self.name} is connected")
        with self._send_lock:
            self._sock.sendall(json.dumps(message).encode() + b"\n")

    def _read(self, sock: socket.socket, watch: Watch) -> None:
        # A process that is killed may be in the middle of a line, or leave some unread, and then the kernel says so.
        with suppress(ConnectionResetError, ValueError), sock:
            for lines in batches(sock):
                self._hear([json.loads(line) for line in lines])
        watch.close()

    def _hear(self, messages: Iterable[dict[str, Any]]) -> None:
        """Who waits is woken once for all of them: each look of his is one at every bridge."""
        reports = []
        for message in messages:
            if "answer" in message:
                waiting = self._answers.get(message["id"])
                if waiting is not None:
                    waiting.put(message["answer"])
            elif message["report"] == "annotate":
                with suppress(NotFound):  # the node may be leaving
                    self.store.update("Node", "", message["node"], partial(_annotate, message["notes"]))
            else:
                reports.append(message)
        with self._changed:
            for report in reports:
                self._note(report)
            self._changed.notify_all()

    def _note(self, report: dict[str, Any]) -> None:
        match report["report"]:
            case "listening":
                self._listening = report["bridges"]
            case "synced":
                self.synced[tuple(report["bridge"])] = report
                self.failure = ""
            case "lost":
                self.synced.pop(tuple(report["bridge"]), None)
            case "failure":
                self.failure = report["text"]


def _annotate(notes: Mapping[str, str], thing: Object) -> None:
    thing["metadata"].setdefault("annotations", {}).update(notes)

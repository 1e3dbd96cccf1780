"""The controller's line to the lab: watch events in, reports out, and questions answered, one JSON text a line.

Lab to controller:  {"event": ADDED|MODIFIED|DELETED, "object": {...}}, {"bookmark": REVISION} after each batch,
                    {"ask": VERB, "id": N, ...}
Controller to lab:  {"report": KIND, ...}, {"id": N, "answer": ...}
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from typing import Any

from controllers.ryu_compat import eventlet, hub
from controllers.state import ClusterState

LOG = logging.getLogger("mininetes")


class LabLink:
    """Keeps `state` equal to the lab's store. A Ryu application of yours gets it by _CONTEXTS = {"lab": LabLink}."""

    # Where the lab listens; set once by controllers.__main__ before Ryu makes the contexts.
    path = ""

    def __init__(self) -> None:
        self.state = ClusterState()
        self.revision = -1
        self.on_event: list[Callable[[str, str, Any], None]] = []
        self.on_bookmark: list[Callable[[], None]] = []
        self.answers: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self._sock: Any = None
        self._unsent: list[bytes] = []

    def start(self) -> None:
        """Begin to read; call when all listeners are in place."""
        hub.spawn(self._run)

    def report(self, kind: str, **values: Any) -> None:
        """Tell the lab something."""
        self._send({"report": kind, **values})

    def _send(self, message: dict[str, Any]) -> None:
        """Soon, with all that others have to say meanwhile: after a change every bridge reports."""
        if not self._unsent:
            hub.spawn(self._flush)
        self._unsent.append(json.dumps(message).encode() + b"\n")

    def _flush(self) -> None:
        while self._unsent:
            lines, number = b"".join(self._unsent), len(self._unsent)
            self._sock.sendall(lines)
            del self._unsent[:number]

    def _run(self) -> None:
        self._sock = eventlet.green.socket.socket(eventlet.green.socket.AF_UNIX)
        self._sock.connect(self.path)
        self.report("hello")
        for line in self._sock.makefile("rb"):
            message = json.loads(line)
            if "event" in message:
                thing = message["object"]
                self.state.apply(thing["kind"], message["event"], thing)
                for listen in self.on_event:
                    listen(message["event"], thing["kind"], thing)
            elif "bookmark" in message:
                self.revision = message["bookmark"]
                for notify in self.on_bookmark:
                    notify()
            else:
                hub.spawn(self._answer, message)
        LOG.info("the lab closed its line; the controller ends")
        os._exit(0)  # SystemExit would end this greenlet only

    def _answer(self, message: dict[str, Any]) -> None:
        verb = self.answers.get(message["ask"])
        try:
            answer = verb(message) if verb else {"error": f"this controller does not answer {message['ask']!r}"}
        except Exception as error:  # the asker must get an answer whatever a researcher's edit does
            LOG.exception("cannot answer %s", message)
            answer = {"error": f"{type(error).__name__}: {error}"}
        self._send({"id": message["id"], "answer": answer})

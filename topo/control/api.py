"""The lab's API towards programs in its nodes and pods: watching the store, writing a status, attaching containers.

One request a connection, as a JSON line on a unix socket, which every namespace of the capsule reaches:
{"watch": [KIND, ...]}                               -> the lines of topo/control/feed.py, until either side ends
{"status": [KIND, NAMESPACE, NAME], "value": {...}}  -> {"ok": true} or {"error": TEXT}
{"attach": {...}}, {"detach": NAME}                  -> the same, of an Attachment: a container that is no pod
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from topo.cluster.store import NotFound, Store
from topo.control.feed import feed


class ApiServer:
    """Serves one store until the process ends."""

    def __init__(self, store: Store, path: Path, connected: Callable[[set[str], int], None]) -> None:
        """connected(nodes, revision): waits until those nodes' switches hold the flows of that store revision."""
        self._store, self._connected = store, connected
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, name="api", daemon=True).start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(sock,), name="api-client", daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as lines:
            try:
                request: dict[str, Any] = json.loads(lines.readline())
                if "watch" in request:
                    feed(self._store, frozenset(request["watch"]), sock.sendall, lambda watch: None)
                else:
                    sock.sendall(json.dumps(self._answer(request)).encode() + b"\n")
            except (OSError, ValueError, LookupError):
                return  # the client went, or is none of ours

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "attach" in request:
            return self._attach(request["attach"])
        if "detach" in request:
            with suppress(NotFound):
                self._store.delete("Attachment", "", request["detach"])
            return {"ok": True}
        return self._status(request)

    def _attach(self, thing: dict[str, Any]) -> dict[str, Any]:
        node = str(thing["spec"]["node"])
        if thing["kind"] != "Attachment" or self._store.get("Node", "", node) is None:
            return {"error": f"no Attachment, or there is no node {node}"}
        self._store.apply(thing)
        self._connected({node}, self._store.revision)
        return {"ok": True}

    def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        kind, namespace, name = request["status"]
        try:
            self._store.update(kind, namespace, name, lambda thing: thing.update(status=request["value"]))
        except NotFound as error:
            return {"error": str(error)}
        return {"ok": True}

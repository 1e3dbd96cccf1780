"""The lab's API towards programs that run in its nodes and pods: watching the store, and writing an object's status.

One request a connection, as a JSON line on a unix socket, which every namespace of the capsule reaches:
{"watch": [KIND, ...]}                               -> the lines of topo/control/feed.py, until either side ends
{"status": [KIND, NAMESPACE, NAME], "value": {...}}  -> {"ok": true} or {"error": TEXT}
"""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

from topo.cluster.store import NotFound, Store
from topo.control.feed import feed


class ApiServer:
    """Serves one store until the process ends."""

    def __init__(self, store: Store, path: Path) -> None:
        self._store = store
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
                    sock.sendall(json.dumps(self._status(request)).encode() + b"\n")
            except (OSError, ValueError):
                return  # the client went, or is none of ours

    def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        kind, namespace, name = request["status"]
        try:
            self._store.update(kind, namespace, name, lambda thing: thing.update(status=request["value"]))
        except NotFound as error:
            return {"error": str(error)}
        return {"ok": True}

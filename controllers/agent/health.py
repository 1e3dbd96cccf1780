"""Health checks of Services with externalTrafficPolicy Local: whether this node has an endpoint to send clients to.

Source: Kubernetes, "Service: external traffic policy", healthCheckNodePort; kube-proxy's service health server.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress

from controllers.services import ServicePort, external
from controllers.state import NodeView
from topo.system import inside


class HealthChecks:
    """One listener a Service on its health check port, on every address of the node."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._listeners: dict[int, socket.socket] = {}
        # Port -> Service and how many ready endpoints of it are here.
        self._answers: dict[int, tuple[str, int]] = {}

    def sync(self, view: NodeView) -> None:
        """Listen for the Services that there are, and answer as of now. Raises OSError for a port that is taken."""
        wanted: dict[int, tuple[str, int]] = {}
        for port in external(view.services):
            if port.health_port:
                name, here = wanted.get(port.health_port, (port.key.partition(":")[0], 0))
                wanted[port.health_port] = name, max(here, _ready_here(port, view.node.name))
        self._answers = wanted
        for number in set(self._listeners) - set(wanted):
            _shut(self._listeners.pop(number))
        for number in set(wanted) - set(self._listeners):
            self._listeners[number] = self._listen(number)

    def close(self) -> None:
        """Stop listening."""
        for listener in self._listeners.values():
            _shut(listener)
        self._listeners.clear()

    def _listen(self, number: int) -> socket.socket:
        with inside(self._pid):
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", number))
        listener.listen(64)
        threading.Thread(target=self._serve, args=(listener, number), daemon=True).start()
        return listener

    def _serve(self, listener: socket.socket, number: int) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed
                return
            with client, suppress(OSError):
                client.settimeout(2)
                client.recv(4096)
                client.sendall(reply(*self._answers.get(number, ("", 0))))


def _ready_here(port: ServicePort, node: str) -> int:
    return sum(e.ready and e.node == node for e in port.endpoints)


def _shut(listener: socket.socket) -> None:
    with suppress(OSError):  # ends the accept that waits on it
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def reply(service: str, here: int) -> bytes:
    """The whole HTTP answer. service: namespace/name; here: ready endpoints on this node."""
    namespace, _, name = service.partition("/")
    body = json.dumps({"service": {"namespace": namespace, "name": name}, "localEndpoints": here}).encode()
    status = "200 OK" if here else "503 Service Unavailable"
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
    head += f"X-Load-Balancing-Endpoint-Weight: {here}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body

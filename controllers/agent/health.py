"""Health checks of Services with externalTrafficPolicy Local: whether this node has an endpoint to send clients to.

Source: Kubernetes, "Service: external traffic policy", healthCheckNodePort; kube-proxy's service health server.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress

from controllers.services import ServicePort, external
from controllers.state import NodeView
from topo.system import inside

# Seconds that a client may take over its request, and the most of it that is read, in bytes.
_PATIENCE, _MOST = 2.0, 1 << 16


class HealthChecks:
    """One listener a Service on its health check port, on every address of the node."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._listeners: dict[int, socket.socket] = {}
        # Port -> Service and how many ready endpoints of it are here.
        self._answers: dict[int, tuple[str, int]] = {}

    def sync(self, view: NodeView) -> None:
        """Listen for the Services that there are, and answer as of now. Raises OSError for ports that are taken."""
        self._answers = wanted = checks(external(view.services), view.node.name)
        for number in set(self._listeners) - set(wanted):
            _shut(self._listeners.pop(number))
        failed = []
        for number in sorted(set(wanted) - set(self._listeners)):
            try:
                self._listeners[number] = self._listen(number)
            except OSError as error:
                failed.append(f"health check port {number} of {wanted[number][0]}: {error.strerror}")
        if failed:
            raise OSError("; ".join(failed))

    def close(self) -> None:
        """Stop listening."""
        for listener in self._listeners.values():
            _shut(listener)
        self._listeners.clear()

    def _listen(self, number: int) -> socket.socket:
        with inside(self._pid):
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", number))
            listener.listen(64)
        except OSError:
            listener.close()
            raise
        threading.Thread(target=self._serve, args=(listener, number), daemon=True).start()
        return listener

    def _serve(self, listener: socket.socket, number: int) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed
                return
            # A thread each, so that a client that says nothing keeps no other waiting.
            threading.Thread(target=self._answer, args=(client, number), daemon=True).start()

    def _answer(self, client: socket.socket, number: int) -> None:
        with client, suppress(OSError):
            client.settimeout(_PATIENCE)
            request = b""
            # To its end: closing a socket with unread data resets it, and the answer may be lost with it.
            while b"\r\n\r\n" not in request and len(request) < _MOST and (data := client.recv(4096)):
                request += data
            answer = reply(*self._answers.get(number, ("", 0)))
            client.sendall(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.startswith(b"HEAD ") else answer)


def checks(ports: Iterable[ServicePort], node: str) -> dict[int, tuple[str, int]]:
    """Health check port -> namespace/name of its Service, and how many of its ready endpoints are on the node.

    An endpoint is an address, however many of the Service's ports it serves. One that terminates is not ready.
    """
    found: dict[int, tuple[str, set[int]]] = {}
    for port in ports:
        if port.health_port and port.external_local:
            _, here = found.setdefault(port.health_port, (port.key.partition(":")[0], set()))
            here |= {e.ip for e in port.endpoints if e.node == node and e.ready and not e.terminating}
    return {number: (service, len(here)) for number, (service, here) in found.items()}


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

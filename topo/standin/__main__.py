"""Serves every stand-in port of a lab from one process: sockets are opened in the pods' namespaces.

Commands come as JSON lines on standard input and each is answered by one line on standard output:
{"open": POD, "pid": PID, "who": {...}, "ports": [["TCP", 80], ...]} -> {"open": POD, "failed": [["TCP", 80, why]]}
{"close": POD}                                                      -> {"close": POD}

TCP: an HTTP request is answered as HTTP; anything else gets one JSON line back for each piece received.
UDP: each datagram is answered by one. GET / (any path) tells pod, node, client and path; GET on any path answers 503
while the pod is unhealthy, which POST /unhealthy and POST /healthy switch. A request that came through a proxy
(X-Forwarded-For) is answered with its method, protocol and headers, too. SCTP (one-to-one) behaves as TCP.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

from topo.system import inside

_TYPES = {"TCP": (socket.SOCK_STREAM, 0), "UDP": (socket.SOCK_DGRAM, 0), "SCTP": (socket.SOCK_STREAM, 132)}
_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ")


@dataclass(slots=True)
class Pod:
    """One pod's sockets and what it says of itself."""

    who: dict[str, Any]
    healthy: bool = True
    sockets: list[socket.socket] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


def say(pod: Pod, client: str, port: int, **more: Any) -> bytes:
    """Who answers whom, as one JSON line."""
    return json.dumps({**pod.who, "client": client, "port": port, **more}).encode() + b"\n"


def http_reply(pod: Pod, request: bytes, client: str, port: int) -> tuple[bytes, bool]:
    """The answer to one HTTP request head, and whether the connection stays open (RFC 9112, section 9.3)."""
    line, _, headers = request.partition(b"\r\n")
    method, path, version = (line.decode("latin-1").split(" ") + ["", ""])[:3]
    keep = version != "HTTP/1.0" and b"connection: close" not in headers.lower()
    status = "200 OK"
    if method == "POST" and path in ("/healthy", "/unhealthy"):
        pod.healthy = path == "/healthy"
    elif not pod.healthy:
        status = "503 Service Unavailable"
    # What a proxy in between (an Ingress controller) made of the request is shown where there was one.
    proxied = b"x-forwarded-for:" in headers.lower()
    seen = {"method": method, "proto": version, "headers": _headers(headers)} if proxied else {}
    body = say(pod, client, port, path=path, healthy=pod.healthy, **seen)
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    head += f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    return head.encode() + (b"" if method == "HEAD" else body), keep


def _headers(lines: bytes) -> dict[str, str]:
    """Headers by their names in small letters."""
    pairs = (line.partition(":") for line in lines.decode("latin-1").split("\r\n") if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def serve_connection(pod: Pod, sock: socket.socket, client: str, port: int) -> None:
    """One TCP or SCTP connection to its end."""
    loop = asyncio.get_running_loop()
    pending = b""
    try:
        while data := await loop.sock_recv(sock, 65536):
            pending += data
            if not pending.startswith(_METHODS):
                await loop.sock_sendall(sock, say(pod, client, port))
                pending = b""
                continue
            while b"\r\n\r\n" in pending:
                request, _, rest = pending.partition(b"\r\n\r\n")
                length = _content_length(request)
                if len(rest) < length:
                    break
                pending = rest[length:]
                reply, keep = http_reply(pod, request, client, port)
                await loop.sock_sendall(sock, reply)
                if not keep:
                    return
    except OSError:
        pass  # the client or the pod went
    finally:
        sock.close()


def _content_length(request: bytes) -> int:
    for line in request.lower().split(b"\r\n")[1:]:
        if line.startswith(b"content-length:") and line[15:].strip().isdigit():
            return int(line[15:])
    return 0


async def accept(pod: Pod, listener: socket.socket, port: int) -> None:
    """Accept connections until the listener is closed."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock, address = await loop.sock_accept(listener)
        except OSError:
            return
        task = loop.create_task(serve_connection(pod, sock, address[0], port))
        pod.tasks.add(task)
        task.add_done_callback(pod.tasks.discard)


async def datagrams(pod: Pod, sock: socket.socket, port: int) -> None:
    """Answer datagrams until the socket is closed."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            _, address = await loop.sock_recvfrom(sock, 65536)
            await loop.sock_sendto(sock, say(pod, address[0], port), address)
        except OSError:
            if sock.fileno() < 0:
                return  # closed; any other error belongs to one client, which is gone


def open_socket(pid: int, protocol: str, port: int) -> socket.socket:
    """A bound socket in the namespace of `pid`. Raises OSError."""
    kind, number = _TYPES[protocol]
    with inside(pid):
        sock = socket.socket(socket.AF_INET, kind, number)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


def open_pod(command: dict[str, Any]) -> tuple[Pod, list[list[Any]]]:
    """Open all ports of a pod; those that cannot be opened come back with the reason."""
    loop = asyncio.get_running_loop()
    pod, failed = Pod(command["who"]), []
    for protocol, port in command["ports"]:
        try:
            sock = open_socket(command["pid"], protocol, port)
        except OSError as error:
            failed.append([protocol, port, error.strerror])
            continue
        pod.sockets.append(sock)
        serve = datagrams if protocol == "UDP" else accept
        pod.tasks.add(loop.create_task(serve(pod, sock, port)))
    return pod, failed


def close_pod(pod: Pod) -> None:
    """Close its sockets and end its connections."""
    for task in list(pod.tasks):
        task.cancel()
    for sock in pod.sockets:
        sock.close()


async def main() -> None:
    """Take commands until standard input closes."""
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    pods: dict[str, Pod] = {}
    while line := await reader.readline():
        command = json.loads(line)
        if "open" in command:
            pods[command["open"]], failed = open_pod(command)
            answer: dict[str, Any] = {"open": command["open"], "failed": failed}
        else:
            pod = pods.pop(command["close"], None)
            if pod:
                close_pod(pod)
            answer = {"close": command["close"]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())

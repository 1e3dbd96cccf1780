"""Serves every stand-in port of a lab from one process: sockets are opened in the pods' namespaces.

Commands come as JSON lines on standard input and each is answered by one line on standard output:
{"open": POD, "pid": PID, "who": {...}, "ports": [["TCP", 80], ...]} -> {"open": POD, "failed": [["TCP", 80, why]]}
{"restart": POD, "pid": PID, "who": {...}, "ports": [...]}          -> {"restart": POD, "failed": [...]}
{"drain": [POD, ...]}                                               -> {"drain": {POD: open connections}}
{"close": POD}                                                      -> {"close": POD}

A pod that drains takes no more connections; those it has end with the answer to what they ask now, or at once if they
ask nothing. Asking again tells how many are left.

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
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from topo.system import inside

_TYPES = {"TCP": (socket.SOCK_STREAM, 0), "UDP": (socket.SOCK_DGRAM, 0), "SCTP": (socket.SOCK_STREAM, 132)}
_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ")
# Seconds until a listener that could not accept (the process has no more descriptors) tries again.
_RETRY = 0.1
# Seconds that a draining pod waits for the first request of a connection.
_PATIENCE = 1.0

Port = tuple[str, int]


@dataclass(slots=True, eq=False)
class Connection:
    """One TCP or SCTP connection. asked: whether anything has come yet; busy: whether an answer is due."""

    sock: socket.socket
    port: Port
    asked: bool = False
    busy: bool = False


@dataclass(slots=True)
class Pod:
    """One pod's sockets and what it says of itself. draining: since when (the loop's time), or None."""

    who: dict[str, Any]
    healthy: bool = True
    draining: float | None = None
    sockets: dict[Port, socket.socket] = field(default_factory=dict)
    connections: dict[Connection, asyncio.Task[None]] = field(default_factory=dict)
    datagrams: dict[Port, asyncio.Task[None]] = field(default_factory=dict)


def say(pod: Pod, client: str, port: int, **more: Any) -> bytes:
    """Who answers whom, as one JSON line."""
    return json.dumps({**pod.who, "client": client, "port": port, **more}).encode() + b"\n"


def http_reply(pod: Pod, request: bytes, client: str, port: int) -> tuple[bytes, bool]:
    """The answer to one HTTP request head, and whether the connection stays open (RFC 9112, section 9.3)."""
    line, _, headers = request.partition(b"\r\n")
    method, path, version = (line.decode("latin-1").split(" ") + ["", ""])[:3]
    seen = _headers(headers)
    options = {option.strip().lower() for option in seen.get("connection", "").split(",")}
    keep = "close" not in options and (version != "HTTP/1.0" or "keep-alive" in options) and pod.draining is None
    status = "200 OK"
    if method == "POST" and path in ("/healthy", "/unhealthy"):
        pod.healthy = path == "/healthy"
    elif not pod.healthy:
        status = "503 Service Unavailable"
    # What a proxy in between (an Ingress controller) made of the request is shown where there was one.
    more = {"method": method, "proto": version, "headers": seen} if "x-forwarded-for" in seen else {}
    body = say(pod, client, port, path=path, healthy=pod.healthy, **more)
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    head += f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    return head.encode() + (b"" if method == "HEAD" else body), keep


def _headers(lines: bytes) -> dict[str, str]:
    """Headers by their names in small letters."""
    pairs = (line.partition(":") for line in lines.decode("latin-1").split("\r\n") if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def serve_connection(pod: Pod, connection: Connection, client: str) -> None:
    """One TCP or SCTP connection to its end."""
    try:
        await _converse(pod, connection, client)
        if pod.draining is not None:
            await _say_goodbye(connection.sock)
    except OSError:
        pass  # the client or the pod went
    finally:
        connection.sock.close()
        pod.connections.pop(connection, None)


async def _converse(pod: Pod, connection: Connection, client: str) -> None:
    """Answer until either side has had enough."""
    loop = asyncio.get_running_loop()
    sock, port, pending = connection.sock, connection.port[1], b""
    while data := await loop.sock_recv(sock, 65536):
        connection.asked = connection.busy = True
        pending += data
        if not pending.startswith(_METHODS):
            await loop.sock_sendall(sock, say(pod, client, port))
            pending = b""
        while b"\r\n\r\n" in pending:
            request, _, rest = pending.partition(b"\r\n\r\n")
            length = _content_length(request)
            if len(rest) < length:
                break
            pending = rest[length:]
            reply, keep = http_reply(pod, request, client, port)
            await loop.sock_sendall(sock, reply)
            if not keep and not (pod.draining is not None and pending):
                return
        connection.busy = bool(pending)
        if pod.draining is not None and not pending:
            return


async def _say_goodbye(sock: socket.socket) -> None:
    """Wait until the client has all of the answer: its pod's network is about to go, and the kernel's queue with it."""
    with suppress(TimeoutError):
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_PATIENCE):
            while await asyncio.get_running_loop().sock_recv(sock, 65536):
                pass


def _content_length(request: bytes) -> int:
    for line in request.lower().split(b"\r\n")[1:]:
        if line.startswith(b"content-length:") and line[15:].strip().isdigit():
            return int(line[15:])
    return 0


def accept(pod: Pod, listener: socket.socket, port: Port) -> None:
    """Take every connection that waits. Called when one does, so that none is half taken when the listener closes."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock, address = listener.accept()
        except BlockingIOError:
            return
        except OSError:  # one that went again, or no more descriptors: the others are not to wait for ever
            loop.remove_reader(listener)
            loop.call_later(_RETRY, _listen, pod, listener, port)
            return
        sock.setblocking(False)
        connection = Connection(sock, port)
        pod.connections[connection] = loop.create_task(serve_connection(pod, connection, address[0]))


def _listen(pod: Pod, listener: socket.socket, port: Port) -> None:
    if listener.fileno() >= 0:  # it may have been closed meanwhile
        asyncio.get_running_loop().add_reader(listener, accept, pod, listener, port)


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


def open_ports(pod: Pod, pid: int, ports: Iterable[Port]) -> list[list[Any]]:
    """Open ports of a pod; those that cannot be opened come back with the reason."""
    loop, failed = asyncio.get_running_loop(), []
    for protocol, number in ports:
        port = protocol, number
        try:
            sock = open_socket(pid, protocol, number)
        except OSError as error:
            failed.append([protocol, number, error.strerror])
            continue
        pod.sockets[port] = sock
        if protocol == "UDP":
            pod.datagrams[port] = loop.create_task(datagrams(pod, sock, number))
        else:
            _listen(pod, sock, port)
    return failed


def close_ports(pod: Pod, ports: Iterable[Port]) -> None:
    """Close these ports and end their connections."""
    loop, gone = asyncio.get_running_loop(), set(ports)
    for connection, task in list(pod.connections.items()):
        if connection.port in gone:
            task.cancel()  # which closes it
    for port in gone & set(pod.sockets):
        sock = pod.sockets.pop(port)
        # Before closing: asyncio would remove the reader later, by a number that another socket may have by then.
        loop.remove_reader(sock)
        if port in pod.datagrams:
            pod.datagrams.pop(port).cancel()
        sock.close()


def drain(pod: Pod) -> int:
    """Take no more connections and let those there are end; how many there are."""
    loop = asyncio.get_running_loop()
    if pod.draining is None:
        pod.draining = loop.time()
        for port in [port for port in pod.sockets if port not in pod.datagrams]:
            listener = pod.sockets.pop(port)
            accept(pod, listener, port)  # else closing it would reset those that wait
            loop.remove_reader(listener)
            listener.close()
    waited = loop.time() - pod.draining > _PATIENCE
    for connection in pod.connections:
        if not connection.busy and (connection.asked or waited):
            with suppress(OSError):  # the client has gone
                connection.sock.shutdown(socket.SHUT_RD)  # what has come already is still read and answered
    return len(pod.connections)


def carry_out(command: dict[str, Any], pods: dict[str, Pod]) -> dict[str, Any]:
    """One command; its answer."""
    ports = [(protocol, number) for protocol, number in command.get("ports", ())]
    if "open" in command:
        pod = pods[command["open"]] = Pod(command["who"])
        return {"open": command["open"], "failed": open_ports(pod, command["pid"], ports)}
    if "restart" in command:
        pod = pods.setdefault(command["restart"], Pod(command["who"]))  # of a server before this one
        close_ports(pod, ports)
        pod.healthy = True
        return {"restart": command["restart"], "failed": open_ports(pod, command["pid"], ports)}
    if "drain" in command:
        return {"drain": {key: drain(pods[key]) if key in pods else 0 for key in command["drain"]}}
    closed = pods.pop(command["close"], None)
    if closed:
        close_ports(closed, [*closed.sockets, *(c.port for c in closed.connections)])
    return {"close": command["close"]}


async def main() -> None:
    """Take commands until standard input closes."""
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    pods: dict[str, Pod] = {}
    while line := await reader.readline():
        answer = carry_out(json.loads(line), pods)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())

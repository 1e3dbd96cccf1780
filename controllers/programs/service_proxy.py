"""A node's proxy of mode userspace: takes connections and opens its own to an endpoint each, in turn.

Standard input brings JSON lines {"sets": [{"listen": ["198.18.0.1", 1024], "protocol": "tcp", "endpoints":
[["10.244.1.2", 8080]], "affinity": 0}, ...]}, each of which replaces what was before it; each is answered by a line on
standard output, {"failed": [[PROTOCOL, ADDRESS, PORT, REASON], ...]}; what failed is tried again with the next line.
The program ends with its standard input. Protocols: tcp, udp, and sctp (one-to-one, in bytes) where the kernel has it.

Round robin; an endpoint that cannot be reached is passed over; affinity: seconds that a client's address stays with its
endpoint. Source: Kubernetes, "Virtual IPs and Service Proxies" as of 1.25, userspace proxy mode; kube-proxy of then.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any

Address = tuple[str, int]
# Seconds to wait for an endpoint, one attempt each (kube-proxy's dial time-outs); all failed: the client is refused.
DIAL = (0.25, 0.5, 1.0, 2.0)
# Seconds without a datagram after which a client is forgotten (KubeProxyConfiguration, udpIdleTimeout).
UDP_IDLE = 0.25
_STREAMS = {"tcp": socket.IPPROTO_TCP, "sctp": 132}
# Of how many clients with affinity the forgotten ones are looked for.
_MANY = 1024


class EndpointSet:
    """Endpoints with one listener, and whose turn is next."""

    def __init__(self) -> None:
        self.endpoints: list[Address] = []
        self.affinity = 0
        self.close: Any = None
        self._turn = 0
        self._clients: dict[str, tuple[Address, float]] = {}
        self._sweep_at = _MANY

    def update(self, endpoints: list[Address], affinity: int) -> None:
        """Other endpoints from now on; connections that stand go on."""
        self.endpoints, self.affinity = endpoints, affinity
        self._clients = {client: known for client, known in self._clients.items() if known[0] in endpoints}

    def choose(self, client: str, attempt: int = 0) -> Address | None:
        """The endpoint for a client's next connection; a further attempt takes the next in turn."""
        if not self.endpoints:
            return None
        known, seen = self._clients.get(client, (None, 0.0))
        if self.affinity and known and not attempt and time.monotonic() - seen < self.affinity:
            chosen = known
        else:
            chosen = self.endpoints[self._turn % len(self.endpoints)]
            self._turn = (self._turn + 1) % len(self.endpoints)
        if self.affinity:
            self._clients[client] = chosen, time.monotonic()
            self._sweep()
        return chosen

    def _sweep(self) -> None:
        """Forget clients whose time is over, once there are twice as many as the last time."""
        if len(self._clients) >= self._sweep_at:
            since = time.monotonic() - self.affinity
            self._clients = {client: known for client, known in self._clients.items() if known[1] > since}
            self._sweep_at = max(_MANY, 2 * len(self._clients))


async def connect(protocol: str, endpoint: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to an endpoint. Raises OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, _STREAMS[protocol])
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, endpoint)
        return await asyncio.open_connection(sock=sock)
    except BaseException:  # given up too
        sock.close()
        raise


async def serve_stream(
    chosen: EndpointSet, protocol: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One connection to its end, each direction for itself."""
    client = (writer.get_extra_info("peername") or ("", 0))[0]  # none if it has gone already
    for attempt, patience in enumerate(DIAL):
        endpoint = chosen.choose(client, attempt)
        if endpoint is None:
            break
        try:
            there = await asyncio.wait_for(connect(protocol, endpoint), patience)
        except (OSError, TimeoutError):
            continue
        await asyncio.gather(_pipe(reader, there[1]), _pipe(there[0], writer))
        for one in (writer, there[1]):
            one.close()
        return
    # A reset, not an orderly end.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, and pass the end on: the other direction may have more to say."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


class Datagrams(asyncio.DatagramProtocol):
    """A set's UDP listener: a socket of its own towards the endpoint for each client."""

    def __init__(self, chosen: EndpointSet) -> None:
        self._chosen = chosen
        self._clients: dict[Address, Backend] = {}

    def connection_made(self, transport: Any) -> None:
        """Keep the listener's transport for the answers."""
        self.transport = transport

    def datagram_received(self, data: bytes, client: Address) -> None:
        """To the client's endpoint, which is chosen with its first datagram."""
        known = self._clients.get(client)
        if known is None or known.ended or known.endpoint not in self._chosen.endpoints:
            if known is not None:
                known.end()
            known = self._backend(client)
            if known is None:
                return
            self._clients[client] = known
        known.send(data)

    def _backend(self, client: Address) -> Backend | None:
        for attempt in range(len(DIAL)):
            endpoint = self._chosen.choose(client[0], attempt)
            if endpoint is None:
                return None
            with suppress(OSError):  # no way to it
                return Backend(self, client, endpoint)
        return None

    def forget(self, client: Address) -> None:
        """The client was silent, or its endpoint is gone."""
        self._clients.pop(client, None)


class Backend:
    """One client's socket towards its endpoint. Raises OSError if there is no way to it."""

    def __init__(self, front: Datagrams, client: Address, endpoint: Address) -> None:
        self.ended = False
        self._front, self._client, self.endpoint = front, client, endpoint
        self._loop = asyncio.get_running_loop()
        self._used = self._loop.time()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.connect(endpoint)
        except OSError:
            sock.close()
            raise
        self._sock = sock
        self._loop.add_reader(sock, self._answers)
        self._loop.call_later(UDP_IDLE, self._look)

    def send(self, data: bytes) -> None:
        """Pass a datagram on."""
        self._used = self._loop.time()
        with suppress(OSError):
            self._sock.send(data)

    def _answers(self) -> None:
        try:
            data = self._sock.recv(65535)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there
            self.end()
            return
        self._used = self._loop.time()
        self._front.transport.sendto(data, self._client)

    def _look(self) -> None:
        left = self._used + UDP_IDLE - self._loop.time()
        if left > 0:
            self._loop.call_later(left, self._look)
        else:
            self.end()

    def end(self) -> None:
        """Forget the client."""
        if not self.ended:
            self.ended = True
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._front.forget(self._client)


class Proxy:
    """All listeners of a node."""

    def __init__(self) -> None:
        self._sets: dict[tuple[str, Address], EndpointSet] = {}

    async def update(self, wanted: list[dict[str, Any]]) -> list[list[Any]]:
        """Make the listeners so; what cannot be listened on, with the reason."""
        failed = []
        found = {(one["protocol"], (one["listen"][0], one["listen"][1])): one for one in wanted}
        for key in [key for key in self._sets if key not in found]:
            self._sets.pop(key).close()
        for key, one in found.items():
            if key not in self._sets:
                try:
                    self._sets[key] = await self._open(*key)
                except OSError as error:
                    failed.append([key[0], *key[1], error.strerror])
                    continue
            self._sets[key].update([(ip, port) for ip, port in one["endpoints"]], one["affinity"])
        return failed

    @staticmethod
    async def _open(protocol: str, where: Address) -> EndpointSet:
        made, loop = EndpointSet(), asyncio.get_running_loop()
        if protocol == "udp":
            transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(made), local_addr=where)
            made.close = transport.close
        else:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, _STREAMS[protocol])
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(where)
                server = await asyncio.start_server(
                    lambda r, w: serve_stream(made, protocol, r, w), sock=sock, backlog=1024
                )
            except OSError:
                sock.close()
                raise
            made.close = server.close
        return made


async def main() -> None:
    """Follow standard input to its end."""
    # Two descriptors a connection.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    reader = asyncio.StreamReader(limit=1 << 27)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    proxy = Proxy()
    while line := await reader.readline():
        failed = await proxy.update(json.loads(line)["sets"])
        print(json.dumps({"failed": failed}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

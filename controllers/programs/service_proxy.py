"""A node's proxy of mode userspace: takes connections and opens its own to an endpoint each, in turn.

Standard input brings JSON lines {"sets": [{"listen": ["198.18.0.1", 1024], "protocol": "tcp", "endpoints":
[["10.244.1.2", 8080]], "affinity": 0}, ...]}, each of which replaces what was before it; each is answered by a line on
standard output, {"failed": [[ADDRESS, PORT, REASON], ...]}. The program ends with its standard input.

Round robin; an endpoint that cannot be reached is passed over; affinity: seconds that a client's address stays with its
endpoint. Source: Kubernetes, "Virtual IPs and Service Proxies" as of 1.25, userspace proxy mode; kube-proxy of then.
"""

from __future__ import annotations

import asyncio
import json
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


class EndpointSet:
    """Endpoints with one listener, and whose turn is next."""

    def __init__(self) -> None:
        self.endpoints: list[Address] = []
        self.affinity = 0
        self.close: Any = None
        self._turn = 0
        self._clients: dict[str, tuple[Address, float]] = {}

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
        return chosen


async def serve_stream(chosen: EndpointSet, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One TCP connection to its end, each direction for itself."""
    client = writer.get_extra_info("peername")[0]
    for attempt, patience in enumerate(DIAL):
        endpoint = chosen.choose(client, attempt)
        if endpoint is None:
            break
        try:
            there = await asyncio.wait_for(asyncio.open_connection(*endpoint), patience)
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
        if known is None or known.ended:
            endpoint = self._chosen.choose(client[0])
            if endpoint is None:
                return
            known = self._clients[client] = Backend(self, client, endpoint)
        known.send(data)

    def forget(self, client: Address) -> None:
        """The client was silent, or its endpoint is gone."""
        self._clients.pop(client, None)


class Backend(asyncio.DatagramProtocol):
    """One client's socket towards its endpoint."""

    def __init__(self, front: Datagrams, client: Address, endpoint: Address) -> None:
        self.ended = False
        self._front, self._client, self._endpoint = front, client, endpoint
        self._loop = asyncio.get_running_loop()
        self._used = self._loop.time()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect(endpoint)
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
            self._end()
            return
        self._used = self._loop.time()
        self._front.transport.sendto(data, self._client)

    def _look(self) -> None:
        left = self._used + UDP_IDLE - self._loop.time()
        if left > 0:
            self._loop.call_later(left, self._look)
        else:
            self._end()

    def _end(self) -> None:
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
                    failed.append([*key[1], error.strerror])
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
            server = await asyncio.start_server(lambda r, w: serve_stream(made, r, w), *where, backlog=1024)
            made.close = server.close
        return made


async def main() -> None:
    """Follow standard input to its end."""
    reader = asyncio.StreamReader(limit=1 << 27)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    proxy = Proxy()
    while line := await reader.readline():
        failed = await proxy.update(json.loads(line)["sets"])
        print(json.dumps({"failed": failed}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

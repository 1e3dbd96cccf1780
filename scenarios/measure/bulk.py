"""Sends as much as a TCP connection takes, for a while, and tells what arrived; runs as a script inside a lab's place.

    bulk.py server ADDRESS PORT
    bulk.py client ADDRESS PORT SECONDS

The server prints "ready" and ends with its input. The client first asks with a few bytes and waits for the answer, then
sends; it prints {"small_ms": MS or null, "sent": BYTES, "arrived": BYTES, "stalled": SECONDS}. sent: with what was sent
again. stalled: until the server had the first STARTED bytes, all of SECONDS if that never was. Unlike iperf3 it ends in
time also where no large packet gets through: what arrived is told on a second connection, in a few bytes.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time

STARTED = 1 << 16
CHUNK = bytes(1 << 16)
BYTES_SENT = 200  # offset of tcpi_bytes_sent in struct tcp_info (linux/tcp.h, since 4.19)
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: what was not sent is forgotten


class Server:
    """Counts what arrives on the connection that sends, and tells it on those that ask."""

    def __init__(self, address: str, port: int) -> None:
        self.listener = socket.create_server((address, port))
        self.arrived, self.started = 0, 0.0

    def run(self) -> None:
        """Serve each connection in a thread."""
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        """Its first byte says what it wants: ? to be told, or > to send."""
        with client:
            if client.recv(1) == b"?":
                client.sendall(json.dumps([self.arrived, self.started]).encode())
                return
            self.arrived, self.started = 0, 0.0
            while data := client.recv(1 << 20):
                self.arrived += len(data)
                if self.arrived >= STARTED and not self.started:
                    self.started = time.monotonic()


def told(address: str, port: int) -> list[float]:
    """What the server has."""
    with socket.create_connection((address, port), 2) as sock:
        sock.sendall(b"?")
        found: list[float] = json.loads(sock.recv(1000))
        return found


def send(address: str, port: int, seconds: float) -> dict[str, float | None]:
    """The client's part."""
    began = time.monotonic()
    try:
        told(address, port)
    except OSError:
        return {"small_ms": None, "sent": 0, "arrived": 0, "stalled": seconds}
    small = (time.monotonic() - began) * 1e3
    began = time.monotonic()
    with socket.create_connection((address, port), 2) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        sock.sendall(b">")
        while (left := began + seconds - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                sock.send(CHUNK)
            except OSError:
                break
        arrived, started = told(address, port)
        # Last, for what is queued is still being sent.
        (sent,) = struct.unpack_from("Q", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), BYTES_SENT)
    # Both clocks are this machine's own.
    stalled = max(0.0, started - began) if started else seconds
    return {"small_ms": small, "sent": sent, "arrived": arrived, "stalled": stalled}


def main(what: str, address: str, port: str, *more: str) -> None:
    if what == "client":
        print(json.dumps(send(address, int(port), float(*more))))
        return
    server = Server(address, int(port))
    threading.Thread(target=server.run, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])

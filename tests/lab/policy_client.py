"""Runs in a pod: asks a stand-in over one connection every 5 ms, prints when each answer came (Unix time, seconds)."""

from __future__ import annotations

import socket
import sys
import time

address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
end = time.time() + seconds
with socket.create_connection((address, port), timeout=3) as sock:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(0.2)
    while time.time() < end:
        try:
            sock.send(b"?")
            sock.recv(4096)
            print(f"{time.time():.4f}", flush=True)
        except TimeoutError:
            pass
        time.sleep(0.005)

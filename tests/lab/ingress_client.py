"""A client for tests, run in a lab; what it learns it prints as JSON.

ask: sends the requests that standard input has as JSON. load: sends one again and again. websocket: upgrades one.
"""

from __future__ import annotations

import base64
import collections
import http.client
import json
import os
import socket
import ssl
import sys
import threading
import time
from typing import Any


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """One request on a connection of its own."""
    out: dict[str, Any] = {}
    connection = http.client.HTTPConnection(request["address"], 80, timeout=10)
    if request["scheme"] == "https":
        raw = socket.create_connection((request["address"], 443), 10)
        tls = ssl._create_unverified_context().wrap_socket(raw, server_hostname=request["host"] or None)
        out["certificate"] = ssl.DER_cert_to_PEM_cert(tls.getpeercert(True) or b"")
        connection.sock = tls
    headers = {**({"Host": request["host"]} if request["host"] else {}), **request.get("headers", {})}
    body = "x" if request["method"] in ("POST", "PUT", "PATCH") else None
    connection.request(request["method"], request["path"], body=body, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    found = json.loads(text) if text.startswith("{") else text
    return out | {"status": answer.status, "headers": dict(answer.getheaders()), "body": found}


def load(address: str, host: str, seconds: float) -> dict[str, Any]:
    """Four clients, a connection for each request: how often each status or error came, and from how many pods."""
    counts: collections.Counter[str] = collections.Counter()
    pods: set[str] = set()
    slowest = 0.0
    end = time.monotonic() + seconds

    def run() -> None:
        nonlocal slowest
        while (began := time.monotonic()) < end:
            try:
                answer = ask({"address": address, "host": host, "scheme": "http", "method": "GET", "path": "/"})
                counts[str(answer["status"])] += 1
                pods.add(answer["body"]["pod"])
            except Exception as error:
                counts[repr(error)] += 1
            slowest = max(slowest, time.monotonic() - began)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"counts": counts, "pods": len(pods), "slowest": slowest}


def websocket(address: str, host: str) -> dict[str, str]:
    """What a server answers to the handshake of RFC 6455, and what comes back through the connection."""
    key = base64.b64encode(os.urandom(16)).decode()
    with socket.create_connection((address, 80), 10) as sock:
        lines = ["GET /chat HTTP/1.1", f"Host: {host}", "Connection: Upgrade", "Upgrade: websocket"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        echoes = []
        for text in (b"one", b"two"):
            sock.sendall(text)
            echoes.append(sock.recv(4096).decode())
    return {"key": key, "head": head.decode(), "echo": " ".join(echoes)}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ask"]:
            print(json.dumps([ask(r) for r in json.load(sys.stdin) for _ in range(r["repeat"])]))
        case ["load", address, host, seconds]:
            print(json.dumps(load(address, host, float(seconds))))
        case ["websocket", address, host]:
            print(json.dumps(websocket(address, host)))

"""A server for tests, run in a pod: answers the handshake of RFC 6455 on port 8080, then echoes what comes."""

from __future__ import annotations

import base64
import hashlib
import re
import socketserver


class Handler(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Section 1.3 of the RFC; frames are passed as they are."""
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.request.recv(4096)
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", head)
        if key is None or b"upgrade: websocket" not in head.lower():
            self.request.sendall(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
            return
        accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
        self.request.sendall(b"\r\n".join([*lines, b"Sec-WebSocket-Accept: " + accept, b"", b""]))
        while data := self.request.recv(4096):
            self.request.sendall(data)


if __name__ == "__main__":
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer(("0.0.0.0", 8080), Handler).serve_forever()

"""Tells every TCP client as whom it is seen; runs as a script inside a lab's place.

    whoami.py ADDRESS PORT NAME

It answers as the stand-in server does, {"pod": NAME, "client": ADDRESS}, prints "ready", and ends with its input.
"""

from __future__ import annotations

import json
import socket
import sys
import threading


def serve(listener: socket.socket, name: str) -> None:
    """One client after the other."""
    while True:
        client, address = listener.accept()
        with client:
            client.recv(100)
            client.sendall(json.dumps({"pod": name, "client": address[0]}).encode())


def main(address: str, port: str, name: str) -> None:
    listener = socket.create_server((address, int(port)))
    threading.Thread(target=serve, args=(listener, name), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Asking a lab's API from a program in one of its nodes or pods; the protocol is described in topo/control/api.py."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

# In every namespace of the capsule (its tmpfs on /run).
SOCKET = "/run/mininetes/api.sock"


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that belong together: (ADDED, MODIFIED or DELETED; object). The first has every object there is."""

    events: tuple[tuple[str, dict[str, Any]], ...]
    revision: int


def watch(kinds: Sequence[str], path: str = SOCKET) -> Iterator[Batch]:
    """Every object of these kinds, then each change, until the lab ends. Raises OSError if there is no lab."""
    with _ask({"watch": list(kinds)}, path) as sock, sock.makefile("rb") as lines:
        events: list[tuple[str, dict[str, Any]]] = []
        for line in lines:
            message = json.loads(line)
            if "event" in message:
                events.append((message["event"], message["object"]))
            else:
                yield Batch(tuple(events), message["bookmark"])
                events = []


def set_status(kind: str, namespace: str, name: str, status: dict[str, Any], path: str = SOCKET) -> None:
    """Replace an object's status. Raises LookupError if there is no such object, OSError if there is no lab."""
    _command({"status": [kind, namespace, name], "value": status}, path)


def attach(thing: dict[str, Any], path: str = SOCKET) -> None:
    """Tell the lab of a container that is no pod, and wait for its flows. Raises as set_status does."""
    _command({"attach": thing}, path)


def detach(name: str, path: str = SOCKET) -> None:
    """Tell the lab that such a container went; one it does not know is no error. Raises OSError if there is no lab."""
    _command({"detach": name}, path)


def _command(request: dict[str, Any], path: str) -> None:
    with closing(_ask(request, path)) as sock:
        answer = json.loads(sock.makefile("rb").readline() or b'{"error": "the lab ended"}')
    if "error" in answer:
        raise LookupError(answer["error"])


def _ask(request: dict[str, Any], path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(path)
        sock.sendall(json.dumps(request).encode() + b"\n")
    except OSError:
        sock.close()
        raise
    return sock

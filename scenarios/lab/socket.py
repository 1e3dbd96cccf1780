"""The lab's socket: an abstract unix socket that leaves no file, one JSON request a connection, answered in lines.

It is made outside the capsule, so it stays reachable from there, and only the user who started the lab is heard.
Request: {"verb": NAME, ...}, possibly with file descriptors. Answer: any number of {"line": TEXT}, then
{"result": ANYTHING} or {"error": TEXT, "status": EXIT STATUS}.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from topo.cluster.errors import InputError, UserError

_MOST = 1 << 26


class LabError(UserError):
    """The lab could not do it; status is the exit status for the caller."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def listen(name: str) -> socket.socket:
    """Listen as lab `name` of this user. Raises InputError if such a lab runs."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(_address(name))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        message = f"a lab named {name!r} is running already"
        raise InputError(f"--lab {name}", message, f"another name, or `mininetes down --lab {name}` first") from error
    sock.listen(64)
    return sock


def running() -> list[str]:
    """Names of this user's labs that run now."""
    prefix = _address("").decode().replace("\0", "@")
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sorted({path[len(prefix) :] for line in lines if (path := line.split(" ")[-1]).startswith(prefix)})


def is_owner(connection: socket.socket) -> bool:
    """Whether who is at the other end is the user who runs this (in a user namespace, that user is root here)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return bool(struct.unpack("3i", credentials)[1] == os.getuid())


def ask(
    name: str, request: dict[str, Any], fds: Sequence[int] = (), line: Callable[[str], None] = lambda _: None
) -> Any:
    """Put a request to lab `name` and give its result. Raises InputError if there is no such lab, LabError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(_address(name))
        except ConnectionRefusedError as error:
            there = ", ".join(running()) or "none runs; `mininetes up` starts one"
            raise InputError(f"--lab {name}", "no such lab is running", f"one of: {there}") from error
        if not is_owner(sock):  # anybody may listen at an abstract address, and would get what is sent to the lab
            raise InputError(f"--lab {name}", "another user listens at its address", "another name")
        data = json.dumps(request).encode() + b"\n"
        with suppress(BrokenPipeError):  # refused already; the answer says why
            if fds:
                data = data[socket.send_fds(sock, [data], list(fds)) :]
            sock.sendall(data)
        for raw in sock.makefile("rb"):
            message = json.loads(raw)
            if "line" in message:
                line(message["line"])
            elif "error" in message:
                raise LabError(message["error"], message["status"])
            else:
                return message["result"]
    raise LabError(f"lab {name!r} ended before it answered")


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One request with its file descriptors. Raises ValueError for anything else."""
    data, fds, _, _ = socket.recv_fds(connection, 65536, 8)
    for fd in fds:  # a pod that starts now must not hold the caller's output open
        os.set_inheritable(fd, False)
    while not data.endswith(b"\n"):
        more = connection.recv(1 << 20)
        if not more or len(data) > _MOST:
            raise ValueError("the request is not one line of JSON")
        data += more
    request = json.loads(data)
    if not isinstance(request, dict) or not isinstance(request.get("verb"), str):
        raise ValueError("the request names no verb")
    return request, list(fds)


def send(connection: socket.socket, **message: Any) -> None:
    """One line of an answer."""
    connection.sendall(json.dumps(message).encode() + b"\n")


def _address(name: str) -> bytes:
    return f"\0mininetes/{os.getuid()}/{name}".encode()

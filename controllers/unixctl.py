"""Asking an ovs-vswitchd over its control socket (ovs-appctl(8)): JSON-RPC, RFC 7047 section 4."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from controllers.ryu_compat import eventlet
from topo.cluster.patience import patience

_TIMEOUT = patience(5.0)


def connections(folder: Path, zone: int) -> str:
    """What the switch's connection tracking follows (dpctl/dump-conntrack, ovs-vswitchd(8)). Raises as `ask`."""
    return ask(folder, "dpctl/dump-conntrack", f"zone={zone}")


def ask(folder: Path, method: str, *arguments: str) -> str:
    """What the switch of this run folder says. Raises OSError if it does not answer, ValueError for a refusal."""
    sock: Any = eventlet.green.socket.socket(eventlet.green.socket.AF_UNIX)
    raw = b""
    try:
        sock.settimeout(_TIMEOUT)
        sock.connect(str(folder / "ovs-vswitchd.ctl"))
        sock.sendall(json.dumps({"id": 0, "method": method, "params": list(arguments)}).encode())
        while True:
            piece = sock.recv(1 << 20)
            if not piece:
                raise OSError(f"{folder.name}: the switch ended before it answered")
            raw += piece
            try:
                answer = json.loads(raw)
            except ValueError:
                continue
            if answer.get("error"):
                raise ValueError(str(answer["error"]))
            return str(answer["result"])
    finally:
        sock.close()

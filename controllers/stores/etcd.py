"""Talks to an etcd from a node, by its JSON gateway.

Source: etcd documentation, "gRPC gateway" (POST /v3/kv/put and so on, keys and values in base64), "API reference".
"""

from __future__ import annotations

import http.client
import json
import socket
from base64 import b64decode, b64encode
from typing import Any

from topo.cluster.network import Daemon
from topo.cluster.patience import patience
from topo.system import inside

PORT = 2379
_TIMEOUT = patience(3.0)


def daemon(address: str) -> Daemon:
    """An etcd of one member that listens everywhere on its machine, whose address that is."""
    clients = ("--listen-client-urls", f"http://0.0.0.0:{PORT}", "--advertise-client-urls", f"http://{address}:{PORT}")
    peers = "http://127.0.0.1:2380"
    own = ("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"lab={peers}")
    quiet = ("--logger", "zap", "--log-level", "warn")
    return Daemon("etcd", {}, ("etcd", "--name", "lab", "--data-dir", "{run}/etcd", *clients, *own, *quiet))


class Etcd:
    """The etcd at an address, as a process in the namespaces of `pid` reaches it. Every call raises OSError."""

    def __init__(self, pid: int, address: str, port: int = PORT) -> None:
        self._pid, self._address, self._port = pid, address, port

    def put(self, key: str, value: str, lease: str = "0") -> None:
        """Set the key's value. lease: the key goes when it ends; "0" for none."""
        self._ask("kv/put", {"key": _coded(key), "value": _coded(value), "lease": lease})

    def keys(self, prefix: str) -> list[str]:
        """All that begin so, in order."""
        values = {"key": _coded(prefix), "range_end": _coded(_after(prefix)), "keys_only": True}
        return [b64decode(one["key"]).decode() for one in self._ask("kv/range", values).get("kvs", ())]

    def delete(self, key: str) -> None:
        """One key, whether it is there or not."""
        self._ask("kv/deleterange", {"key": _coded(key)})

    def grant(self, seconds: int) -> str:
        """A new lease's number."""
        return str(self._ask("lease/grant", {"TTL": seconds})["ID"])

    def keep_alive(self, lease: str) -> bool:
        """Begin the lease's time anew; false if it is over."""
        return "TTL" in self._ask("lease/keepalive", {"ID": lease}).get("result", {})

    def _ask(self, what: str, values: dict[str, Any]) -> dict[str, Any]:
        try:
            connection = http.client.HTTPConnection(self._address, self._port, timeout=_TIMEOUT)
            with inside(self._pid):
                connection.sock = socket.create_connection((self._address, self._port), _TIMEOUT)
            try:
                connection.request("POST", f"/v3/{what}", json.dumps(values))
                response = connection.getresponse()
                found: dict[str, Any] = json.loads(response.read())
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise OSError(f"etcd at {self._address}:{self._port} does not answer: {error}") from error
        if response.status != 200:
            raise OSError(f"etcd at {self._address}:{self._port} refuses {what}: {found.get('error', response.reason)}")
        return found


def _coded(text: str) -> str:
    return b64encode(text.encode()).decode()


def _after(prefix: str) -> str:
    """The first key after all with this prefix (API reference, "Key ranges")."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)

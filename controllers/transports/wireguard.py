"""WireGuard between nodes: the kernel's device, or wireguard-go where the kernel has none; either is set up by wg(8).

Every node's key is made of one secret of the lab and the node's name, so that no key has to be exchanged and an agent
that starts again finds the same. In a cluster each node makes its own and publishes the public half in its object.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from nacl.bindings import crypto_scalarmult_base

from controllers.agent.commands import run
from controllers.flow.fields import ip_text
from controllers.state import Node, NodeView
from controllers.transports.routes import DeviceRoutes
from topo.system import has_device

LOG = logging.getLogger("mininetes")
# IP 20 + UDP 8 + type, receiver and counter 16 + tag 16 (WireGuard, "Protocol": transport data messages).
OVERHEAD = 60
# Seconds that wireguard-go may take to make its device, between two looks at it, and the least between two starts.
_PATIENCE, _STEP, _PAUSE = 10.0, 0.02, 0.5


class WireGuard:
    """One node's device, its peers, and the routes through it. folder: has or gets the lab's secret."""

    def __init__(self, pid: int, device: str, port: int, mtu: int, folder: Path) -> None:
        self._pid, self._device, self._port, self._mtu = pid, device, port, mtu
        self._secret = lab_secret(folder / "wireguard.secret")
        self._routes = DeviceRoutes(pid, device)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_there = self._closed = False
        self._view: NodeView | None = None
        self._told = ""
        self._lock = threading.Lock()

    def sync(self, view: NodeView) -> None:
        """Every peer with its pods; sessions that stand go on. Raises OSError or RuntimeError."""
        with self._lock:
            self._view = view
            self._sync(view)

    def close(self) -> None:
        """End wireguard-go; a kernel's device goes with the node."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def _sync(self, view: NodeView) -> None:
        if not self._is_there:
            self._make()
            run(self._pid, "ip", "link", "set", self._device, "mtu", str(self._mtu), "up")
            self._is_there, self._told = True, ""
        text = configuration(self._secret, view.node, view.peers, self._port)
        if text != self._told:
            self._wg("syncconf", self._device, "/dev/stdin", text=text)
            self._told = text
        self._routes.sync(view)

    def _make(self) -> None:
        if has_device("wireguard"):
            # An agent before this one may have made it.
            if self._device not in run(self._pid, "ip", "-o", "link", "show", "type", "wireguard"):
                run(self._pid, "ip", "link", "add", self._device, "type", "wireguard")
            return
        # wg(8) finds it by a socket in /run/wireguard, which each node must have for itself.
        script = 'mount -t tmpfs none /run && mkdir /run/wireguard && exec wireguard-go -f "$0"'
        command = ["mnexec", "-a", str(self._pid), "unshare", "--mount", "sh", "-c", script, self._device]
        self._process = process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"wireguard-go does not make {self._device}")
            time.sleep(_STEP)
        threading.Thread(target=self._watch, args=(process,), name=f"{self._device} {process.pid}", daemon=True).start()

    def _answers(self) -> bool:
        with suppress(RuntimeError):
            self._wg("show", self._device, "listen-port")
            return True
        return False

    def _wg(self, *argv: str, text: str = "") -> None:
        command = ["nsenter", "--mount", f"--target={self._process.pid}"] if self._process is not None else []
        run(self._pid, *command, "wg", *argv, text=text)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Start it again when it ends."""
        process.wait()
        time.sleep(_PAUSE)
        with self._lock:
            if self._process is process and not self._closed and self._view is not None:
                LOG.warning("wireguard-go of %s ended with status %d", self._device, process.returncode)
                self._is_there = False
                try:
                    self._sync(self._view)
                except (OSError, RuntimeError) as error:
                    LOG.warning("%s", error)


def lab_secret(file: Path) -> bytes:
    """32 bytes that only the lab's user can read; made by whoever asks first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        own = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        own.touch(0o600)
        own.write_bytes(secrets.token_bytes(32))
        os.link(own, file)  # all of it or nothing, and the first one stays
    for left in file.parent.glob(f"{file.name}.*"):
        left.unlink(missing_ok=True)
    return file.read_bytes()


def private_key(secret: bytes, node: str) -> bytes:
    """A node's key, of the form that Curve25519 wants (RFC 7748, section 5)."""
    raw = bytearray(hmac.digest(secret, node.encode(), sha256))
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return bytes(raw)


def public_key(secret: bytes, node: str) -> bytes:
    """Its public half."""
    return crypto_scalarmult_base(private_key(secret, node))


def configuration(secret: bytes, node: Node, peers: Sequence[Node], port: int) -> str:
    """What wg(8) reads: who is where, and whose packets may come from whom (cryptokey routing)."""
    lines = ["[Interface]", f"PrivateKey = {_text(private_key(secret, node.name))}", f"ListenPort = {port}"]
    for peer in peers:
        lines += ["[Peer]", f"PublicKey = {_text(public_key(secret, peer.name))}"]
        lines += [f"Endpoint = {ip_text(peer.ip)}:{port}", f"AllowedIPs = {peer.pod_cidr}"]
    return "\n".join(lines) + "\n"


def _text(key: bytes) -> str:
    return b64encode(key).decode()

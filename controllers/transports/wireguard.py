"""WireGuard between nodes: the kernel's device, or wireguard-go where the kernel has none; either is set up by wg(8).

Every node's key is made of one secret of the lab and the node's name, so that no key has to be exchanged and an agent
that starts again finds the same. In a cluster each node makes its own and publishes the public half in its object.
"""

from __future__ import annotations

import hmac
import os
import secrets
import time
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from nacl.bindings import crypto_scalarmult_base

from controllers.agent.commands import run as run_in
from controllers.flow.fields import ip_text
from controllers.state import Node, NodeView
from controllers.transports.part import ProgramPart
from controllers.transports.routes import Behind, DeviceRoutes, everyone
from topo.cluster.patience import patience
from topo.system import has_device

# IP 20 + UDP 8 + type, receiver and counter 16 + tag 16 (WireGuard, "Protocol": transport data messages).
OVERHEAD = 60
# Calico's and flannel's default.
PORT = 51820
# Seconds that wireguard-go may take to make its device, and between two looks at it.
_PATIENCE, _STEP = patience(10.0), 0.02
# Where wg(8) looks for the sockets of userspace devices; each node must have a folder of its own there.
_SOCKETS = "/run/wireguard"
_OWN_SOCKETS = f"mkdir -p {_SOCKETS} && mountpoint -q {_SOCKETS} || mount -t tmpfs none {_SOCKETS}"


class Routes(Protocol):
    """What leads to and from the device."""

    def sync(self, node: Node, peers: Sequence[Node]) -> None:
        """Make it so. Raises OSError or RuntimeError."""


class WireGuard(ProgramPart):
    """One node's device, its peers, and the routes through it. run: the node's folder, whose parent is the lab's.

    routes: if not those to the peers' pods; then the peers' own addresses are behind the device too.
    """

    def __init__(
        self,
        pid: int,
        run: Path,
        device: str,
        mtu: int,
        port: int = PORT,
        behind: Behind = everyone,
        routes: Routes | None = None,
    ) -> None:
        super().__init__(pid, run, device)
        self._pid, self._device, self._port, self._behind = pid, device, port, behind
        self._secret = lab_secret(run.parent / "wireguard.secret")
        self._has_nodes = routes is not None
        self._routes = routes or DeviceRoutes(pid, device, mtu)
        self._in_kernel = has_device("wireguard")
        self._is_there = False
        self._told = ""

    def _sync(self, view: NodeView) -> None:
        if not self._in_kernel:
            self._run_program()
        elif not self._is_there:
            # An agent before this one may have made it.
            if self._device not in run_in(self._pid, "ip", "-o", "link", "show", "type", "wireguard"):
                run_in(self._pid, "ip", "link", "add", self._device, "type", "wireguard")
            self._is_there = True
        peers = self._behind(view)
        text = configuration(self._secret, view.node, peers, self._port, self._has_nodes)
        if text != self._told:
            run_in(self._pid, "wg", "syncconf", self._device, "/dev/stdin", text=text)
            self._told = text
        self._routes.sync(view.node, peers)

    def _run_program(self) -> None:
        if not self._is_there:
            run_in(self._pid, "sh", "-c", _OWN_SOCKETS)
            self._is_there = True
        if self._program.ensure(["wireguard-go", "--foreground", self._device]):
            self._told = ""
        deadline = time.monotonic() + _PATIENCE
        while not self._told and not self._answers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"wireguard-go does not make {self._device}")
            time.sleep(_STEP)

    def _answers(self) -> bool:
        with suppress(RuntimeError):
            run_in(self._pid, "wg", "show", self._device, "listen-port")
            return True
        return False


def lab_secret(file: Path) -> bytes:
    """32 bytes that only the lab's user can read; made by whoever asks first."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        own = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
        own.touch(0o600)
        own.write_bytes(secrets.token_bytes(32))
        with suppress(FileExistsError):
            os.link(own, file)  # all of it or nothing, and the first one stays
        own.unlink()
    return file.read_bytes()


def private_key(secret: bytes, node: str) -> bytes:
    """A node's key, of the form that Curve25519 wants (RFC 7748, section 5)."""
    raw = bytearray(hmac.digest(secret, node.encode(), sha256))
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return bytes(raw)


def public_key(secret: bytes, node: str) -> str:
    """Its public half, as wg(8) writes it."""
    return _text(crypto_scalarmult_base(private_key(secret, node)))


def configuration(secret: bytes, node: Node, peers: Sequence[Node], port: int, has_nodes: bool = False) -> str:
    """What wg(8) reads: who is where, and whose packets may come from whom (cryptokey routing).

    has_nodes: packets of the nodes themselves, beside those of their pods.
    """
    lines = ["[Interface]", f"PrivateKey = {_text(private_key(secret, node.name))}", f"ListenPort = {port}"]
    for peer in peers:
        lines += ["[Peer]", f"PublicKey = {public_key(secret, peer.name)}"]
        behind = f"{peer.pod_cidr}, {ip_text(peer.ip)}/32" if has_nodes else peer.pod_cidr
        lines += [f"Endpoint = {ip_text(peer.ip)}:{port}", f"AllowedIPs = {behind}"]
    return "\n".join(lines) + "\n"


def _text(key: bytes) -> str:
    return b64encode(key).decode()

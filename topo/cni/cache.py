"""Results kept for CHECK and DEL, a file an attachment, as libcni keeps them (libcni/api.go, kind cniCacheV1)."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from topo.cni.conf import Network
from topo.cni.request import Attachment

_KIND = "cniCacheV1"


class Cache:
    """A folder of results. One is written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "results"

    def put(self, network: Network, config: bytes, attachment: Attachment, result: Mapping[str, Any]) -> None:
        """Remember ADD's last result."""
        kept: dict[str, Any] = {
            "kind": _KIND,
            "containerId": attachment.container,
            "config": b64encode(config).decode(),
            "ifName": attachment.ifname,
            "networkName": network.name,
            "netns": attachment.netns,
            "cniArgs": [list(pair) for pair in attachment.args.items()],
            "capabilityArgs": dict(attachment.capabilities),
            "result": dict(result),
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._file(network.name, attachment.container, attachment.ifname)
        new = file.with_name(f".{file.name}")
        new.write_text(json.dumps(kept))
        new.rename(file)

    def get(self, network: Network, container: str, ifname: str) -> tuple[Attachment, dict[str, Any]] | None:
        """What ADD was told and what it gave; None if there was no ADD, or what is there cannot be read."""
        return _read(self._file(network.name, container, ifname))

    def remove(self, network: Network, container: str, ifname: str) -> None:
        """Forget it."""
        self._file(network.name, container, ifname).unlink(missing_ok=True)

    def attachments(self, network: Network) -> Iterator[Attachment]:
        """Everything that is attached to the network."""
        for file in sorted(self._folder.glob(f"{network.name}-*")):
            found = _read(file)
            if found and file == self._file(network.name, found[0].container, found[0].ifname):
                yield found[0]

    def _file(self, network: str, container: str, ifname: str) -> Path:
        return self._folder / f"{network}-{container}-{ifname}"


def _read(file: Path) -> tuple[Attachment, dict[str, Any]] | None:
    try:
        kept = json.loads(file.read_text())
        if kept["kind"] != _KIND:
            return None
        told = kept.get("capabilityArgs") or {}
        made = Attachment(
            kept["containerId"], kept.get("netns", ""), kept["ifName"], dict(kept.get("cniArgs") or ()), told
        )
        return made, dict(kept["result"])
    except (OSError, ValueError, LookupError, TypeError):
        return None

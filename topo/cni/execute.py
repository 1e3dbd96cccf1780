"""Runs plugins: those of other people as programs, ours without leaving this process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from topo.cluster.patience import patience
from topo.cni.errors import CniError, Code
from topo.cni.protocol import Plugin, serve
from topo.system import inside

# Seconds after which a plugin that does not end is ended.
_PATIENCE = patience(60.0)


class Executor:
    """Plugins of some folders, and ours by type. pid: of the machine whose namespaces they run in; None: here."""

    def __init__(self, folders: Sequence[str], ours: Mapping[str, Plugin], pid: int | None = None) -> None:
        self._folders, self._ours, self._pid = tuple(folders), ours, pid

    @property
    def path(self) -> str:
        """CNI_PATH."""
        return os.pathsep.join(self._folders)

    def find(self, kind: str) -> Path | None:
        """The executable of that name, the first in the order of the folders."""
        files = (Path(folder) / kind for folder in self._folders)
        return next((file for file in files if file.is_file() and os.access(file, os.X_OK)), None)

    def is_there(self, kind: str) -> bool:
        """Whether it can be run."""
        return kind in self._ours or self.find(kind) is not None

    def run(self, kind: str, environment: Mapping[str, str], request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Have a plugin do what the environment says; what it printed. Raises CniError, with the plugin's name."""
        text = json.dumps(request)
        environment = {**environment, "CNI_PATH": environment.get("CNI_PATH") or self.path}
        if kind in self._ours:
            with nullcontext() if self._pid is None else inside(self._pid):
                status, said = serve(self._ours[kind], environment, text)
            return _answer(kind, status, said, "")
        file = self.find(kind)
        if file is None:
            raise CniError(Code.INVALID_CONFIG, f"no executable {kind!r}", f"looked in {self.path}", kind)
        entering = [] if self._pid is None else ["mnexec", "-a", str(self._pid)]
        rest = {key: value for key, value in os.environ.items() if not key.startswith("CNI_")}
        try:
            done = subprocess.run(
                [*entering, str(file)],
                input=text,
                capture_output=True,
                text=True,
                errors="replace",
                env=rest | environment,
                timeout=_PATIENCE,
                check=False,
                start_new_session=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CniError(Code.INTERNAL, "cannot be run", str(error), kind) from error
        return _answer(kind, done.returncode, done.stdout, done.stderr)


def _answer(kind: str, status: int, said: str, log: str) -> dict[str, Any] | None:
    """An object, None for nothing. Raises CniError for an error, and for what is neither."""
    try:
        value = json.loads(said) if said.strip() else None
    except ValueError:
        value = said
    if status == 0 and (value is None or isinstance(value, dict)):
        return value
    if status != 0 and isinstance(value, dict) and isinstance(value.get("code"), int):
        raise CniError(value["code"], str(value.get("msg", "")), str(value.get("details") or ""), kind)
    lines = (log.strip() or said.strip() or "it printed nothing").splitlines()
    words = next((line for line in lines if line.startswith("panic:")), lines[-1])  # Go's; what follows says where
    if status == 0:
        raise CniError(Code.UNDECODABLE, "its answer is no JSON object", words, kind)
    raise CniError(Code.INTERNAL, f"ended with status {status}", words, kind)

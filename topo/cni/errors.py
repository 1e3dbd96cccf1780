"""Errors as plugins report them: a number that the specification gives a meaning, a message and details."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Code(IntEnum):
    """Section "Error" of the specification; from 100 on they are a plugin's own."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    INVALID_CONFIG = 7
    TRY_LATER = 11
    UNAVAILABLE = 50
    LIMITED = 51
    # Ours: what was asked for is there already, is not as it was made, or is taken.
    EXISTS = 100
    NOT_AS_MADE = 101
    ADDRESS_TAKEN = 102
    # As libcni's ErrInternal: something that no other number fits.
    INTERNAL = 999


# The configuration's fault: the same request can never succeed.
CONFIGURATION = (Code.INCOMPATIBLE_VERSION, Code.UNSUPPORTED_FIELD, Code.UNDECODABLE, Code.INVALID_CONFIG)


class CniError(Exception):
    """One plugin's error. plugin: its type, set by whoever ran it."""

    def __init__(self, code: int, msg: str, details: str = "", plugin: str = "") -> None:
        self.code, self.msg, self.details, self.plugin = code, msg, details, plugin
        super().__init__(code, msg, details, plugin)

    def __str__(self) -> str:
        who = f"plugin {self.plugin}: " if self.plugin else ""
        return f"{who}{self.msg}{f': {self.details}' if self.details else ''} (code {int(self.code)})"

    def object(self, version: str) -> dict[str, Any]:
        """As it stands on a plugin's standard output."""
        return {"cniVersion": version, "code": int(self.code), "msg": self.msg, "details": self.details}

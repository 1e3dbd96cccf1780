"""A plugin's side of the protocol: parameters and configuration checked, one method called, its answer as JSON.

`serve` is pure but for the plugin it calls, so an executable and a call within the lab's own process are the same.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from topo.cni import versions
from topo.cni.conf import NAME
from topo.cni.errors import CniError, Code
from topo.cni.result import Result, read

LOG = logging.getLogger("mininetes")
COMMANDS = ("ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION")
_ATTACHMENT = ("ADD", "DEL", "CHECK")
_IFNAME = re.compile(r"[^\s/:]{1,15}")


@dataclass(frozen=True, slots=True)
class Call:
    """What a plugin is asked to do. environment: all of CNI_*, for a plugin it delegates to."""

    command: str
    version: str
    network: str
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    container: str = ""
    netns: str = ""
    ifname: str = ""
    args: Mapping[str, str] = field(default_factory=dict)

    @property
    def told(self) -> Mapping[str, Any]:
        """The runtime's capability arguments."""
        return self.config.get("runtimeConfig") or {}

    @property
    def previous(self) -> Result | None:
        """The result before this one, or ADD's last. Raises CniError if it is none."""
        value = self.config.get("prevResult")
        return None if value is None else read(value)

    @property
    def valid(self) -> frozenset[tuple[str, str]]:
        """GC: (container, ifname) of what still is. Raises CniError."""
        try:
            listed = self.config.get("cni.dev/valid-attachments") or ()
            return frozenset((str(one["containerID"]), str(one["ifname"])) for one in listed)
        except (LookupError, TypeError) as error:
            raise CniError(Code.INVALID_CONFIG, "cni.dev/valid-attachments is no list of attachments") from error


class Plugin(Protocol):
    """What does the work; each raises CniError."""

    def add(self, call: Call) -> Result:
        """Attach."""

    def delete(self, call: Call) -> None:
        """Detach; what is gone already is no error."""

    def check(self, call: Call) -> None:
        """Raise unless all is as `add` left it."""

    def status(self, call: Call) -> None:
        """Raise if `add` cannot be served."""

    def collect(self, call: Call) -> None:
        """GC: give back what belongs to no valid attachment."""


def serve(plugin: Plugin, environment: Mapping[str, str], text: str) -> tuple[int, str]:
    """One call: its exit status and what it prints."""
    version = versions.LATEST
    try:
        command = _command(environment)
        config = _config(text, command)
        if versions.is_version(config.get("cniVersion")):
            version = str(config["cniVersion"])
        if command == "VERSION":
            return 0, json.dumps({"cniVersion": version, "supportedVersions": list(versions.SUPPORTED)})
        call = _call(command, environment, config)
        answer = _work(plugin, call)
        return 0, json.dumps(answer.object(version)) if answer else ""
    except CniError as error:
        return 1, json.dumps(error.object(version))
    except Exception as error:
        # The kernel or a switch refused; the caller gets an error object, the log what it was.
        LOG.exception("%s of %s", environment.get("CNI_COMMAND"), type(plugin).__name__)
        return 1, json.dumps(CniError(Code.INTERNAL, type(error).__name__, str(error)).object(version))


def _work(plugin: Plugin, call: Call) -> Result | None:
    match call.command:
        case "ADD":
            return plugin.add(call)
        case "DEL":
            plugin.delete(call)
        case "CHECK":
            plugin.check(call)
        case "STATUS":
            plugin.status(call)
        case "GC":
            plugin.collect(call)
    return None


def _command(environment: Mapping[str, str]) -> str:
    command = environment.get("CNI_COMMAND", "")
    if command not in COMMANDS:
        said = f"{command!r} is no command" if command else "is missing"
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_COMMAND {said}", f"expected one of {', '.join(COMMANDS)}")
    return command


def _config(text: str, command: str) -> dict[str, Any]:
    if command == "VERSION" and not text.strip():
        return {}
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CniError(Code.UNDECODABLE, "the network configuration is no JSON", str(error)) from error
    if not isinstance(config, dict):
        raise CniError(Code.UNDECODABLE, "the network configuration is no JSON object")
    return config


def _call(command: str, environment: Mapping[str, str], config: dict[str, Any]) -> Call:
    container, netns, ifname = (environment.get(f"CNI_{name}", "") for name in ("CONTAINERID", "NETNS", "IFNAME"))
    if command in _ATTACHMENT:
        if not NAME.fullmatch(container):
            raise _variable("CNI_CONTAINERID", container, "a letter or digit, then those, '_', '.' and '-'")
        if not _IFNAME.fullmatch(ifname) or ifname in (".", ".."):
            raise _variable("CNI_IFNAME", ifname, "an interface's name, of at most 15 characters")
        if not netns and command != "DEL":
            raise _variable("CNI_NETNS", netns, "the path of a network namespace")
    if command == "GC" and not environment.get("CNI_PATH"):
        raise _variable("CNI_PATH", "", "folders with plugins")
    version = config.get("cniVersion")
    if version not in versions.SUPPORTED:
        said = f"the plugin speaks {', '.join(versions.SUPPORTED)}, the configuration {version}"
        raise CniError(Code.INCOMPATIBLE_VERSION, "incompatible CNI version", said)
    since = {"CHECK": versions.CHECK_SINCE, "STATUS": versions.GC_SINCE, "GC": versions.GC_SINCE}.get(command)
    if since and not versions.at_least(str(version), since):
        raise CniError(Code.INCOMPATIBLE_VERSION, f"{command} came with CNI {since}", f"the configuration is {version}")
    name = config.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise CniError(Code.INVALID_CONFIG, "name: no network's name", json.dumps(name))
    given = {key: value for key, value in environment.items() if key.startswith("CNI_")}
    return Call(command, str(version), name, config, given, container, netns, ifname, _args(given.get("CNI_ARGS", "")))


def _args(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, text.split(";")):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise _variable("CNI_ARGS", text, "KEY=VALUE;KEY=VALUE")
        found[key] = value
    return found


def _variable(name: str, value: str, expected: str) -> CniError:
    said = f"{value!r} is wrong" if value else "is missing"
    return CniError(Code.INVALID_ENVIRONMENT, f"{name} {said}", f"expected {expected}")

"""Network configurations: reading a .conflist file and the plugins beside it, every mistake named by file and field.

Source: specification, section 1; libcni's way to find files: the folder's .conflist files in the order of their names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo.cluster.errors import InputError
from topo.cni import versions

# A network's name and a container's; both become parts of file names.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# What the runtime writes itself.
_RESERVED = ("runtimeConfig", "prevResult")
_FLAGS = ("disableCheck", "disableGC", "loadOnlyInlinedPlugins")


@dataclass(frozen=True, slots=True)
class PluginConf:
    """One plugin of a network. where: its place, for messages."""

    type: str
    values: Mapping[str, Any]
    where: str

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it wants to be told of each attachment."""
        return tuple(name for name, wanted in (self.values.get("capabilities") or {}).items() if wanted)

    @property
    def ipam(self) -> str:
        """The plugin to which it leaves addresses, or ""."""
        return str((self.values.get("ipam") or {}).get("type", ""))


@dataclass(frozen=True, slots=True)
class Network:
    """A network configuration as it is executed. versions: those it supports, of which one will be spoken."""

    name: str
    versions: tuple[str, ...]
    plugins: tuple[PluginConf, ...]
    where: str
    disable_check: bool = False
    disable_gc: bool = False


def find(folder: Path) -> Path:
    """The folder's network: its first .conflist file by name, as a kubelet's runtime takes it. Raises InputError."""
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix == ".conflist" and file.is_file())
    except OSError as error:
        raise InputError(str(folder), f"cannot be read: {error.strerror}", "a folder with a .conflist file") from error
    if not files:
        raise InputError(str(folder), "has no network configuration", "a .conflist file (CNI specification, section 1)")
    return files[0]


def load(file: Path, fields: Mapping[str, str] = {}) -> Network:
    """Read a .conflist and what its folder adds to it. fields: values of {{.NAME}} in the text. Raises InputError."""
    values = _mapping(_read(file, fields), str(file))
    network, inlined_only = _network(values, str(file))
    plugins = network.plugins
    folder = file.parent / network.name
    if not inlined_only and folder.is_dir():
        extra = sorted(one for one in folder.iterdir() if one.suffix == ".conf")
        plugins += tuple(_plugin(_mapping(_read(one, fields), str(one)), str(one), "") for one in extra)
    if not plugins:
        raise InputError(str(file), "names no plugins", f"a list `plugins`, or .conf files in {folder}")
    return Network(network.name, network.versions, plugins, network.where, network.disable_check, network.disable_gc)


def parse(text: str, name: str) -> Network:
    """A configuration's text alone; `name` stands for its file. Raises InputError."""
    return _network(_mapping(_decode(text, name), name), name)[0]


def expand(text: str, fields: Mapping[str, str], where: str) -> str:
    """Put values in place of {{.NAME}}, as containerd's conf_template and kindnet's have it. Raises InputError."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in fields:
            line = text.count("\n", 0, match.start()) + 1
            known = ", ".join(f"{{{{.{name}}}}}" for name in fields)
            raise InputError(f"{where}:{line}", f"unknown field {match[0]}", f"one of {known}")
        return fields[match[1]]

    return re.sub(r"\{\{-?\s*\.(\w+)\s*-?\}\}", value, text)


def _read(file: Path, fields: Mapping[str, str]) -> Any:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(file), f"cannot be read: {error}", "a JSON file") from error
    return _decode(expand(text, fields, str(file)), str(file))


def _decode(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{where}{line}", f"is no JSON: {getattr(error, 'msg', error)}", "a JSON object") from error
    except RecursionError as error:
        raise InputError(where, "is nested too deeply", "a JSON object") from error


def _network(values: Mapping[str, Any], where: str) -> tuple[Network, bool]:
    """The network, and whether only inlined plugins count."""
    name = values.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _wrong(where, "name", name, "a letter or digit, then those, '_', '.' and '-'")
    flags = {}
    for flag in _FLAGS:
        flags[flag] = values.get(flag, False)
        if not isinstance(flags[flag], bool):
            raise _wrong(where, flag, flags[flag], "true or false")
    if "plugins" not in values and flags["loadOnlyInlinedPlugins"]:
        raise InputError(f"{where}: loadOnlyInlinedPlugins", "is true, but there is no `plugins`", "a list of plugins")
    listed = values.get("plugins", [])
    if not isinstance(listed, list) or ("plugins" in values and not listed):
        raise _wrong(where, "plugins", listed, "a list of one plugin at least")
    plugins = tuple(_plugin(item, where, f"plugins[{i}]") for i, item in enumerate(listed))
    network = Network(name, _versions(values, where), plugins, where, flags["disableCheck"], flags["disableGC"])
    return network, flags["loadOnlyInlinedPlugins"]


def _versions(values: Mapping[str, Any], where: str) -> tuple[str, ...]:
    found = values.get("cniVersions", [])
    if not isinstance(found, list):
        raise _wrong(where, "cniVersions", found, "a list of versions, as 1.0.0")
    for i, version in enumerate(found):
        if not versions.is_version(version):
            raise _wrong(where, f"cniVersions[{i}]", version, "a version, as 1.0.0")
    if "cniVersion" in values or not found:
        if not versions.is_version(values.get("cniVersion")):
            raise _wrong(where, "cniVersion", values.get("cniVersion"), "a version, as 1.0.0")
        found = [*found, values["cniVersion"]]
    return tuple(dict.fromkeys(found))


def _plugin(value: Any, where: str, path: str) -> PluginConf:
    inside = f"{path}." if path else ""
    values = _mapping(value, where, path)
    kind = values.get("type")
    if not isinstance(kind, str) or not kind or "/" in kind or kind in (".", ".."):
        raise _wrong(where, f"{inside}type", kind, "the name of a plugin's executable")
    capabilities = values.get("capabilities", {})
    if not isinstance(capabilities, dict) or not all(isinstance(x, bool) for x in capabilities.values()):
        raise _wrong(where, f"{inside}capabilities", capabilities, 'true or false by name, as {"portMappings": true}')
    for key in values:
        if key in _RESERVED or key.startswith("cni.dev/"):
            raise InputError(f"{where}: {inside}{key}", "is written by the runtime", "no such field")
    ipam = values.get("ipam", {})
    if not isinstance(ipam, dict) or not isinstance(ipam.get("type", ""), str):
        raise _wrong(where, f"{inside}ipam", ipam, "an object with a `type`")
    return PluginConf(kind, values, f"{where}: {path}" if path else where)


def _mapping(value: Any, where: str, path: str = "") -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, path, value, "a JSON object")
    return value


def _wrong(where: str, field: str, value: Any, expected: str) -> InputError:
    said = "is missing" if value is None else f"{json.dumps(value)[:60]} is wrong"
    return InputError(f"{where}: {field}" if field else where, said, expected)

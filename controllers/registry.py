"""Finding CNIs, proxy modes and scenarios: a file says NAME = value, looking is all the registration there is."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from topo.cluster.errors import InputError

# Folders with the user's own (--plugins), where this process looks too; as sys.path, there is one for all of it.
FOLDERS: list[Path] = []


def look_in(folders: Sequence[Path]) -> None:
    """These are the user's folders."""
    FOLDERS[:] = [folder.resolve() for folder in folders]


def discover(package: ModuleType, attribute: str) -> dict[str, Any]:
    """Every value named `attribute` in the package's modules and in the *.py files of the user's folders.

    Returns them by their own .name, sorted. Raises InputError where a plugin cannot be imported, a folder is
    missing, or two files claim one name.
    """
    modules = [
        importlib.import_module(f"{package.__name__}.{info.name}") for info in pkgutil.iter_modules(package.__path__)
    ]
    # Only files that set the name are imported: a scenario has no business in the controller's process.
    modules += [_plugin(file) for folder in FOLDERS for file in _files(folder) if _sets(file, attribute)]
    found: dict[str, tuple[Any, str]] = {}
    for module in modules:
        value = getattr(module, attribute, None)
        if value is None:
            continue
        origin = str(module.__file__)
        if value.name in found:
            raise InputError(origin, f"the name {value.name!r} is taken by {found[value.name][1]}", "another name")
        found[value.name] = value, origin
    return {name: found[name][0] for name in sorted(found)}


def choose(found: dict[str, Any], name: str, what: str, where: str) -> Any:
    """The value called `name`, or InputError that lists what there is. what: "CNI"; where: the flag or field."""
    if name not in found:
        raise InputError(where, f"unknown {what} {name!r}", f"one of: {', '.join(found)}")
    return found[name]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"--plugins {folder}", "no such folder", "a folder with Python files")
    return sorted(folder.glob("*.py"))


def _sets(file: Path, name: str) -> bool:
    """Whether a file assigns the name at its top level. Raises InputError if it is not Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        raise InputError(str(file), f"the plugin cannot be read: {error}", "a Python file") from error
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


@cache
def _plugin(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"mininetes_plugin_{file.stem}", file)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's own code may raise anything
        raise InputError(str(file), f"the plugin cannot be imported: {type(error).__name__}: {error}") from error
    return module

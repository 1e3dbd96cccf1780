"""Imports point one way: scenarios on controllers and topo, controllers on topo.cluster; flows are made without Ryu."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What decides which flows there are; all of it can be tested without a switch.
PURE = ("flow", "features", "cni", "proxy", "state", "compile", "fabric", "rib", "uplink", "simulate")
FOLDERS = ("topo", "controllers", "scenarios")


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")}


def imports(module: str, source: str) -> Iterator[str]:
    """Every module, or name of one, that the source imports, wherever it stands, "from a import b" as a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


IMPORTS = {module: set(imports(module, file.read_text())) for module, file in MODULES.items()}


def inside(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def wrong(of: str, *packages: str) -> list[str]:
    """The imports of the packages by a module of `of`."""
    return sorted(
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        if inside(module, of)
        for name in names
        if inside(name, *packages)
    )


def test_imports_are_found_in_every_form() -> None:
    source = "import a.b\nfrom c import d, e as f\nfrom . import g\nfrom ..h import i\ndef j():\n    import k"
    assert set(imports("x.y.z", source)) == {"a.b", "c.d", "c.e", "x.y.g", "x.h.i", "k"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_there_is_something_to_look_at(folder: str) -> None:
    assert sum(inside(module, folder) for module in MODULES) > 5


def test_topo_imports_neither_controllers_nor_scenarios() -> None:
    assert wrong("topo", "controllers", "scenarios") == []


def test_controllers_import_no_scenarios_and_of_topo_only_the_cluster_model_and_system_calls() -> None:
    assert wrong("controllers", "scenarios") == []
    allowed = (" topo.cluster", " topo.system")
    assert [line for line in wrong("controllers", "topo") if not any(part in line for part in allowed)] == []


def test_cluster_model_imports_nothing_else_of_ours() -> None:
    ours = [line for line in wrong("topo.cluster", *FOLDERS) if " topo.cluster" not in line]
    assert ours == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_imports_tests_or_a_folder_that_is_shared(folder: str) -> None:
    assert wrong(folder, "tests", "shared", "common", "utils") == []


@pytest.mark.parametrize("name", PURE)
def test_what_decides_about_flows_never_reaches_ryu(name: str) -> None:
    start = {module for module in MODULES if inside(module, f"controllers.{name}")}
    assert start
    seen, todo = set[str](), sorted(start)
    while todo:
        module = todo.pop()
        seen.add(module)
        assert not [x for x in IMPORTS[module] if inside(x, "ryu", "eventlet", "controllers.ryu_compat")], module
        # "from a import b" may name a module b, or something in the module a.
        named = {part for x in IMPORTS[module] for part in (x, x.rpartition(".")[0]) if part in MODULES}
        todo += sorted(named - seen)

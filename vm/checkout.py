"""The checkout on its way into the machine, and what came out of it on its way back."""

from __future__ import annotations

import compileall
import tarfile
from pathlib import Path

# What every command of ours imports.
PACKAGES = ("topo", "controllers", "scenarios")
# Neither history nor anything that can be made again.
LEFT_OUT = {".git", ".venv", ".cache", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
# Of results/ only what belongs to the project: runs stay where they are.
RESULTS = {"README.md", "reference", "baseline"}


def goes_in(name: str) -> bool:
    """Whether a file of the checkout, named by its path in it, goes into the machine."""
    parts = Path(name).parts
    if parts[:1] == ("results",) and len(parts) > 1:
        return parts[1] in RESULTS
    return not LEFT_OUT.intersection(parts)


def pack(source: Path, archive: Path) -> None:
    """Write the checkout's files, as they are now, into an archive, with what Python compiles of the packages.

    That would take an emulated processor a minute; a Python of another release ignores it.
    """
    for package in PACKAGES:
        compileall.compile_dir(source / package, quiet=2)

    def chosen(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        return entry if goes_in(entry.name) else None

    with tarfile.open(archive, "w") as file:
        file.add(source, arcname=".", filter=chosen)


def unpack(archive: Path, target: Path) -> None:
    """Put results and reports of the machine into the checkout, as files of whoever asked for them.

    Plain files and nothing else, and none outside of the checkout (Debian 12's Python has no filter for that).
    """
    with tarfile.open(archive) as file:
        for entry in file:
            path, content = (target / entry.name).resolve(), file.extractfile(entry)
            if content is not None and path.is_relative_to(target.resolve()):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())

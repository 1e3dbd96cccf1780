"""Every process of the capsule, by what it runs."""

from __future__ import annotations

import os
from pathlib import Path

# Those whose end nobody has asked for.
ENDED = "(ended)"
LAB = "lab"


def census(proc: Path) -> dict[str, list[int]]:
    """Numbers of processes by what they run: the program, and of an interpreter or a sleep what it is about."""
    found: dict[str, list[int]] = {}
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            words = (folder / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended meanwhile
        number = int(folder.name)
        name = ENDED if state in "ZX" else LAB if number == os.getpid() else _name(words)
        found.setdefault(name, []).append(number)
    return found


def _name(words: list[str]) -> str:
    program = Path(words[0]).name
    if program == "sleep":
        return " ".join([program, *words[1:]])
    if program.startswith("python") and "-m" in words:
        return f"python -m {words[words.index('-m') + 1]}"
    return program

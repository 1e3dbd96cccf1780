"""What may be written to a terminal: texts of manifests have no power over it."""

from __future__ import annotations


def printable(text: str) -> str:
    """Without characters that a terminal would obey: they show as Python writes them."""
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)

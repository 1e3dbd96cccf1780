"""Text in a Markdown report is just that text: no tags, no links, and no cell ends before its time."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What begins a tag or a link (CommonMark, "Backslash escapes"), and an entity.
_SIGNS = str.maketrans({"<": "&lt;", "[": "\\[", "\n": " ", "\r": " "})
_ENTITY = re.compile(r"&(?=[#A-Za-z])")


def text(words: str) -> str:
    """Words in a paragraph, a list or a title."""
    return _ENTITY.sub("&amp;", words).translate(_SIGNS)


def code(words: str) -> str:
    """Words as they were typed; in code nothing else means anything."""
    return f"`{words.replace('`', chr(39)).replace(chr(10), ' ')}`"


def line(cells: Iterable[str]) -> str:
    """A line of a table."""
    return "| " + " | ".join(text(cell).replace("|", "\\|") for cell in cells) + " |"

"""Read YAML and JSON text into plain values that know their lines, and never more than the reader can bear.

Scalars mean what they mean to kubectl (sigs.k8s.io/yaml, a YAML 1.1 without dates and base-60 numbers), not to PyYAML.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from topo.cluster.errors import InputError

MAX_BYTES, MAX_DEPTH, MAX_ALIASED = 10_000_000, 100, 100_000


class Map(dict[str, Any]):
    """A mapping that knows the line of each key."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


class Seq(list[Any]):
    """A sequence that knows the line of each item."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document of a file, numbered from 1; its value is None, a scalar, a Map or a Seq."""

    name: str
    number: int
    line: int
    value: Any

    def line_of(self, path: Iterable[str | int]) -> int:
        """The line of a field, or of the nearest thing around it that is there."""
        value, line = self.value, self.line
        for step in path:
            try:
                value, line = value[step], value.lines[step]
            except (AttributeError, KeyError, IndexError, TypeError):
                break
        return line


def show(value: object, most: int = 60) -> str:
    """A value as an error names it: short, whatever it is."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def field_path(path: Iterable[str | int]) -> str:
    """spec.ports[0].port; a key that would be unclear with dots stands in brackets."""
    out = ""
    for step in path:
        plain = isinstance(step, str) and re.fullmatch(r"[A-Za-z_$][\w$-]*", step)
        out += (f".{step}" if out else str(step)) if plain else f"[{step}]"
    return out


def nearest(word: str, known: Iterable[str]) -> str:
    """What somebody who wrote `word` may have meant, for an error's "expected"."""
    names = sorted(known)
    close = difflib.get_close_matches(word[:100], names)
    some = close or names[:15]
    return " or ".join(some) if close else f"one of {', '.join(some)}{', ...' if len(names) > len(some) else ''}"


def plain(value: Any) -> Any:
    """A copy made of dicts and lists only, in which nothing is shared."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list) else value


def read_text(path: Path) -> str:
    """The text of a file. Raises InputError if it is missing, too big or not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if len(data) > MAX_BYTES:
            return " " * len(data)  # may be cut inside a character; the size is what read_documents tells
        where = f"{path}:{data.count(10, 0, error.start) + 1}"
        raise InputError(where, f"byte 0x{data[error.start]:02x} is not UTF-8", "a text file in UTF-8") from error


def read_documents(text: str, name: str) -> list[Document]:
    """The documents of a YAML (or JSON) text, the empty ones too. Raises InputError.

    Works through the parser's events one by one, so that no nesting can exhaust the stack.
    """
    if len(text) > MAX_BYTES:
        raise InputError(name, "the file is too big", f"at most {MAX_BYTES // 1_000_000} MB")
    documents: list[Document] = []
    builder, line = _Builder(name, 1), 1
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            line = event.start_mark.line + 1 if event.start_mark else line
            if isinstance(event, yaml.DocumentStartEvent):
                builder = _Builder(name, len(documents) + 1)
            elif isinstance(event, yaml.DocumentEndEvent):
                documents.append(Document(name, len(documents) + 1, builder.root.line, builder.value))
            else:
                builder.take(event, line)
    except yaml.MarkedYAMLError as error:
        lines = text.rstrip("\n").split("\n")  # the parser may place an error after the last one
        line = min(error.problem_mark.line + 1 if error.problem_mark else line, len(lines))
        tab = "\t" in lines[line - 1][: len(lines[line - 1]) - len(lines[line - 1].lstrip())]
        problem = ": ".join(part for part in (error.context, error.problem) if part)
        raise builder.fail(line, problem, "spaces, no tabs, as indentation" if tab else "YAML") from error
    except (yaml.YAMLError, UnicodeError) as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        reason = getattr(error, "reason", "unreadable text")
        raise builder.fail(line, str(reason), "printable text in UTF-8") from error
    return documents


@dataclass(slots=True)
class _Frame:
    """A collection that is being built. size and depth count what its aliases repeat, too."""

    into: Map | Seq | None
    line: int
    anchor: str | None = None
    key: str | None = None
    key_line: int = 0
    size: int = 1
    depth: int = 0
    merged: list[Map] = field(default_factory=list)


class _Builder:
    """Makes one document's value of events."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.value: Any = None
        self.root = _Frame(None, 0)
        self.stack = [self.root]
        # Of each anchor: value, size, depth. None while it is being built.
        self.anchors: dict[str, tuple[Any, int, int] | None] = {}

    def fail(self, line: int, problem: str, expected: str = "") -> InputError:
        return InputError(f"{self.name}:{line}: document {self.number}", problem, expected)

    def take(self, event: yaml.Event, line: int) -> None:
        """One event between a document's start and end."""
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event, line)
            if event.anchor:
                self.anchors[event.anchor] = (value, 1, 0)
            merge = event.value == "<<" and event.implicit[0]
            self.put(value, line, 1, 0, merge)
        elif isinstance(event, yaml.CollectionStartEvent):
            into = Map() if isinstance(event, yaml.MappingStartEvent) else Seq()
            if event.tag not in (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
                raise self.fail(line, f"unknown tag {show(event.tag)}", "no tag")
            if len(self.stack) > MAX_DEPTH:
                raise self.fail(line, "the nesting is too deep", f"at most {MAX_DEPTH} levels")
            if event.anchor:
                self.anchors[event.anchor] = None
            self.stack.append(_Frame(into, line, event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            frame = self.stack.pop()
            if isinstance(frame.into, Map):
                for source in frame.merged:  # what the mapping says itself goes first
                    for key in (k for k in source if k not in frame.into):
                        frame.into[key], frame.into.lines[key] = source[key], source.lines[key]
            if frame.anchor:
                self.anchors[frame.anchor] = (frame.into, frame.size, frame.depth + 1)
            self.put(frame.into, frame.line, frame.size, frame.depth + 1)
        elif isinstance(event, yaml.AliasEvent):
            name = event.anchor or ""
            known = self.anchors.get(name)
            if not known:
                problem = (
                    f"alias *{name} is inside its own anchor" if name in self.anchors else f"unknown alias *{name}"
                )
                raise self.fail(line, problem, "an anchor that ends before the alias")
            value, size, depth = known
            if len(self.stack) + depth > MAX_DEPTH:
                raise self.fail(line, "the nesting of aliases is too deep", f"at most {MAX_DEPTH} levels")
            self.put(value, line, size, depth)
            if sum(frame.size for frame in self.stack) > MAX_ALIASED:
                raise self.fail(line, "the aliases repeat too much", f"at most {MAX_ALIASED} values with them")

    def put(self, value: Any, line: int, size: int, depth: int, merge: bool = False) -> None:
        """Add a finished value to the collection around it."""
        frame = self.stack[-1]
        frame.size += size
        frame.depth = max(frame.depth, depth)
        if frame.into is None:
            self.value, frame.line = value, line
        elif isinstance(frame.into, Seq):
            frame.into.append(value)
            frame.into.lines.append(line)
        elif frame.key is None:
            frame.key, frame.key_line = self.key(value, line, frame.into, merge), line
        else:
            key, frame.key = frame.key, None
            frame.into.lines[key] = frame.key_line
            if key != _MERGE:
                frame.into[key] = value
                return
            frame.merged = value if isinstance(value, Seq) else [value]
            if not all(isinstance(source, Map) for source in frame.merged):
                raise self.fail(line, "<< merges no mapping", "an alias of a mapping, or a list of such")

    def key(self, value: Any, line: int, into: Map, merge: bool) -> str:
        """A mapping's key as the JSON that kubectl makes of it has it."""
        if value is None or isinstance(value, (Map, Seq)):
            raise self.fail(line, f"{'null' if value is None else 'a collection'} as a key", "a string")
        key = _MERGE if merge else json.dumps(value) if isinstance(value, bool) else str(value)
        if key in into.lines:
            first = into.lines[key]
            raise self.fail(line, f"key {show(key)} appears twice, first in line {first}", "each key once in a mapping")
        return key

    def scalar(self, event: yaml.ScalarEvent, line: int) -> Any:
        """A scalar's value by its tag, or by its looks if it is plain."""
        tag = (event.tag or "").removeprefix("tag:yaml.org,2002:")
        if tag in ("str", "timestamp", "!") or (not tag and not event.implicit[0]):
            return event.value
        if tag and tag not in _TAGGED:
            raise self.fail(line, f"unknown tag {show(event.tag)}", "no tag, or one of !!str, !!int, !!float, !!bool")
        value = _resolve(event.value)
        if tag and not isinstance(value, _TAGGED[tag]):
            raise self.fail(line, f"{show(event.value)} is no !!{tag}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.fail(line, f"{event.value} is no number that JSON can hold", "a finite number")
        return value


_MERGE = "<<\0"  # no text has a NUL
_TAGGED: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
_WORDS: dict[str, Any] = {
    f(word): value
    for words, value in (("y yes true on", True), ("n no false off", False), ("null", None), (".nan", math.nan))
    for word in words.split()
    for f in (str.lower, str.title, str.upper)
} | {"": None, "~": None, ".NaN": math.nan}
_WORDS |= {f"{s}{w}": math.inf for s in ("", "+", "-") for w in (".inf", ".Inf", ".INF")}
_INT = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0[bB][01]+|[1-9][0-9]*|0)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def _resolve(text: str) -> Any:
    """What a plain scalar means. Source: sigs.k8s.io/yaml, goyaml.v2/resolve.go."""
    if text in _WORDS:
        return _WORDS[text]
    if not text[0].isascii() or text[0] not in "+-.0123456789" or len(text) > 400:
        return text
    digits = text.replace("_", "") if text[0] != "." else text
    if whole := _INT.fullmatch(digits):
        sign, number = whole.groups()
        octal = len(number) > 1 and number[0] == "0" and number[1].isdigit()
        return int(f"{sign}{number}", 8 if octal else 0)
    if not _FLOAT.fullmatch(digits) or math.isinf(value := float(digits)):
        return text
    return int(value) if value.is_integer() and abs(value) < 2**53 else value  # JSON writes 80.0 as 80

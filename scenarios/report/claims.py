"""Claims of published figures, read and checked: results/reference/claims.yaml beside published.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo.cluster.errors import InputError
from topo.yaml_source import Document, field_path, nearest, plain, read_documents, read_text

CLAIMS, PUBLISHED = "claims.yaml", "published.yaml"
# What each kind needs, and what it may have, beside what every claim has.
_EVERY = ("id", "statement", "source", "kind", "explanation")
_FIGURE = ("scenario", "measurement", "path")
NEEDED: Mapping[str, tuple[str, ...]] = {
    "ratio": ("published", "within", "of", "to"),
    "shape": ("published", "within", "measured"),
    "table": ("baseline", "column", "rows", "within", "correlation", "measured"),
    "ordering": ("groups", "measured"),
    "outcome": ("measured",),
}
_MAY = ("where",)
# Where the published values of a kind are, in the source's section; a ratio may also be a number.
_PUBLISHED = {"ratio": ("of", "to"), "shape": ("at", "values")}
# Fields that say where a figure is, and where published values are.
_FIGURES = ("of", "to", "measured")


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim. section: what published.yaml has of its source; fields: what its kind needs."""

    id: str
    statement: str
    source: str
    kind: str
    explanation: str
    section: Mapping[str, Any]
    fields: Mapping[str, Any]

    def published(self, path: str) -> Any:
        """A value of the source's section: "rows.flannel.1"."""
        found: Any = self.section
        for word in path.split("."):
            found = found[int(word)] if isinstance(found, list) else found[word]
        return found

    @property
    def scenario(self) -> str:
        """The one that measures it."""
        return str(next(self.fields[name] for name in _FIGURES if name in self.fields)["scenario"])


def load(folder: Path) -> tuple[Claim, ...]:
    """All claims of a folder. Raises InputError with file, line and field."""
    sections = plain(_document(folder / PUBLISHED).value)
    document = _document(folder / CLAIMS)
    if not isinstance(document.value, list):
        raise InputError(document.name, "is no list", "a list of claims")
    found = tuple(_claim(document, number, sections) for number in range(len(document.value)))
    for number, claim in enumerate(found):
        if claim.id in {one.id for one in found[:number]}:
            raise _error(document, (number, "id"), f"{claim.id!r} is there already", "another id")
    return found


def _document(path: Path) -> Document:
    documents = [d for d in read_documents(read_text(path), str(path)) if d.value is not None]
    if len(documents) != 1:
        raise InputError(str(path), f"the file has {len(documents)} documents", "one")
    return documents[0]


def _claim(document: Document, number: int, sections: Mapping[str, Any]) -> Claim:
    entry = plain(document.value[number])
    if not isinstance(entry, dict):
        raise _error(document, (number,), "is no mapping", "a claim")
    kind = str(entry.get("kind"))
    if kind not in NEEDED:
        raise _error(document, (number, "kind"), f"unknown kind {kind!r}", f"one of: {', '.join(NEEDED)}")
    needed = (*_EVERY, *NEEDED[kind])
    for name in needed:
        if name not in entry:
            raise _error(document, (number,), f"field {name!r} is missing", f"fields: {', '.join(needed)}")
    for name in entry:
        if name not in (*needed, *_MAY):
            raise _error(document, (number, name), f"unknown field {name!r}", nearest(name, (*needed, *_MAY)))
    for name in (name for name in _FIGURES if name in entry):
        wanted = _FIGURE[:1] if kind == "outcome" else _FIGURE
        if not isinstance(entry[name], dict) or set(entry[name]) != set(wanted):
            raise _error(document, (number, name), "says no figure's place", f"fields: {', '.join(wanted)}")
    if kind in _PUBLISHED and not _says_values(entry["published"], kind):
        expected = f"fields: {', '.join(_PUBLISHED[kind])}, each a path as rows.flannel.1"
        raise _error(document, (number, "published"), f"{entry['published']!r} says no published value", expected)
    if entry["source"] not in sections:
        raise _error(document, (number, "source"), f"unknown source {entry['source']!r}", f"a section of {PUBLISHED}")
    section = sections[entry["source"]]
    if not isinstance(section, dict) or not section.get("source"):
        raise InputError(PUBLISHED, f"section {entry['source']} names no source", "source: who published it and where")
    fields = {name: value for name, value in entry.items() if name not in _EVERY}
    texts = {name: str(entry[name]) for name in _EVERY}
    claim = Claim(**texts, section=section, fields=fields)
    for place, path in _paths(kind, fields):
        try:
            claim.published(path)
        except (KeyError, IndexError, ValueError, TypeError):
            raise _error(document, (number, *place), f"{PUBLISHED} has no {path}", f"under {claim.source}") from None
    return claim


def _says_values(given: Any, kind: str) -> bool:
    if isinstance(given, dict):
        return set(given) == set(_PUBLISHED[kind]) and all(isinstance(path, str) for path in given.values())
    return kind == "ratio" and isinstance(given, int | float)


def _paths(kind: str, fields: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Every path into the source's section, with its field."""
    if kind == "table":
        return [(("rows", name), f"rows.{name}.{fields['column']}") for name in fields["rows"]]
    if isinstance(fields.get("published"), dict):
        return [(("published", key), path) for key, path in fields["published"].items()]
    return []


def _error(document: Document, path: tuple[str | int, ...], problem: str, expected: str) -> InputError:
    return InputError(f"{document.name}:{document.line_of(path)}: {field_path(path)}", problem, expected)

"""Load Kubernetes manifests: files to checked objects, or the one error that says where and what is wrong."""

from __future__ import annotations

import functools
import importlib.resources
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource

from topo import calico_rules, ingress_rules, manifest_rules, policy_rules, policy_schemas, text_rules
from topo.cluster.errors import InputError
from topo.cluster.store import kind_of
from topo.manifest_rules import Problem
from topo.yaml_source import Document, Map, Seq, field_path, nearest, read_documents, read_text, show

# kind: apiVersion. A further kind that the official schemas know is one line here, or in a caller's `extra`.
KINDS: Mapping[str, str] = {
    "Namespace": "v1",
    "Node": "v1",
    "Pod": "v1",
    "Service": "v1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "ReplicaSet": "apps/v1",
    "Job": "batch/v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "Ingress": "networking.k8s.io/v1",
    "IngressClass": "networking.k8s.io/v1",
    "Secret": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    **policy_schemas.KINDS,
}
# Kinds of another group that bear a name of Kubernetes' own.
_NAMESAKES = frozenset({("NetworkPolicy", policy_schemas.CALICO)})
_SCHEMAS = "kubernetes-json-schema/v1.37.0-local-strict"
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Ignored:
    """An object of a kind that has no meaning for the network; where is file and line."""

    kind: str
    name: str
    where: str


@dataclass(frozen=True, slots=True)
class Manifests:
    """Objects in the order of the input, checked, with namespace and port defaults filled in."""

    objects: tuple[dict[str, Any], ...]
    ignored: tuple[Ignored, ...]


def load(paths: Sequence[Path], extra: Mapping[str, str] | None = None) -> Manifests:
    """Load files, and folders' *.yaml, *.yml and *.json by name. extra: further kinds and their apiVersions.

    Raises InputError.
    """
    texts = [(read_text(file), str(file)) for path in paths for file in _files(path)]
    return _load([d for text, name in texts for d in read_documents(text, name)], extra)


def load_text(text: str, name: str, extra: Mapping[str, str] | None = None) -> Manifests:
    """Load one text; `name` stands for the file's. Raises InputError."""
    return _load(read_documents(text, name), extra)


def _files(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        found = sorted(f for f in path.iterdir() if f.suffix in _SUFFIXES)
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from error
    if not found:
        raise InputError(str(path), "the folder has no manifests", "*.yaml, *.yml or *.json")
    return found


def _load(documents: Iterable[Document], extra: Mapping[str, str] | None) -> Manifests:
    kinds = {**KINDS, **(extra or {})}
    objects: list[dict[str, Any]] = []
    ignored: list[Ignored] = []
    places: dict[tuple[str, str, str], str] = {}
    for document in documents:
        for item in _items(document, document.value, ()):
            kind, meta = item.value["kind"], item.value.get("metadata")
            if not _is_ours(item, kinds):
                name = meta.get("name") if isinstance(meta, dict) else None
                ignored.append(Ignored(kind, "" if name is None else str(name), item.place()))
                continue
            thing = _checked(item, item.value["apiVersion"])
            meta = thing["metadata"]
            key = (kind_of(thing), meta.get("namespace", ""), meta["name"])
            if key in places:
                name = "/".join(part for part in key[1:] if part)
                problem = f"{kind} {name} is there twice, first in {places[key]}"
                raise item.error(Problem(("metadata", "name"), problem, "each object once"))
            places[key] = item.place()
            objects.append(thing)
    return Manifests(tuple(objects), tuple(ignored))


@dataclass(frozen=True, slots=True)
class _Item:
    """An object as it stands in a document, perhaps in a List."""

    document: Document
    path: tuple[str | int, ...]
    value: dict[str, Any]

    def place(self) -> str:
        return f"{self.document.name}:{self.document.line_of(self.path)}"

    def error(self, problem: Problem) -> InputError:
        return _error(self.document, (*self.path, *problem.path), problem.problem, problem.expected)


def _error(document: Document, path: Sequence[str | int], problem: str, expected: str) -> InputError:
    where = f"{document.name}:{document.line_of(path)}: document {document.number}"
    return InputError(f"{where}, {field_path(path)}" if path else where, problem, expected)


def _items(document: Document, value: Any, path: tuple[str | int, ...]) -> Iterator[_Item]:
    """The objects of a document: itself, or the items of a List."""
    if value is None and not path:
        return
    if not isinstance(value, Map):
        raise _error(document, path, f"{show(value)} is no object", "a mapping with apiVersion, kind and metadata")
    for name in ("apiVersion", "kind"):
        if not isinstance(value.get(name), str) or not value[name]:
            problem = f"{show(value[name])} is no {name}" if name in value else f"{name} is missing"
            raise _error(
                document, (*path, name), problem, "a string, as Service" if name == "kind" else "a string, as v1"
            )
    if value["kind"] != "List" and not (value["kind"].endswith("List") and "items" in value):
        yield _Item(document, path, value)
        return
    items = value.get("items", None)
    if items is not None and not isinstance(items, Seq):
        raise _error(document, (*path, "items"), f"{show(items)} is no list", "a list of objects")
    for i, item in enumerate(items or ()):
        if isinstance(item, Map) and value["kind"] != "List":  # an item of a PodList need not say that it is a Pod
            item.setdefault("kind", value["kind"].removesuffix("List"))
            item.setdefault("apiVersion", value["apiVersion"])
        yield from _items(document, item, (*path, "items", i))


def _is_ours(item: _Item, kinds: Mapping[str, str]) -> bool:
    """Whether the object is of a supported kind. Raises InputError for a near miss, which would be lost unseen."""
    kind, version = item.value["kind"], item.value["apiVersion"]
    if (kind, version) in _NAMESAKES:
        return True
    if kind in kinds:
        # Other projects' groups have a domain and may have a Service, too (serving.knative.dev).
        group = version.rpartition("/")[0]
        if version != kinds[kind] and ("." not in group or group.endswith(".k8s.io")):
            problem = Problem(("apiVersion",), f"{show(version)} has no {kind}", kinds[kind])
            raise item.error(problem)
        return bool(version == kinds[kind])
    right = {k.lower(): k for k in kinds}.get(kind.lower())
    if right:
        raise item.error(Problem(("kind",), f"unknown kind {show(kind)}", right))
    return False


def _checked(item: _Item, version: str) -> dict[str, Any]:
    """A plain object that fits its schema and the rules, with defaults."""
    thing: dict[str, Any] = _without_nulls(item, item.value, ())
    errors = itertools.islice(_validator(thing["kind"], version).iter_errors(thing), 50)
    # A misspelt field is the cause, the field that is then missing the effect.
    worst = min(errors, key=lambda e: (e.validator != "additionalProperties", e.validator == "required"), default=None)
    if worst is not None:
        raise item.error(_explain(worst))
    thing.setdefault("metadata", {})
    manifest_rules.fill_defaults(thing)
    ingress_rules.fill_defaults(thing)
    policy_rules.fill_defaults(thing)
    calico_rules.fill_defaults(thing)
    for problem in itertools.chain(
        manifest_rules.problems(thing),
        text_rules.problems(thing),
        ingress_rules.problems(thing, item.value),
        policy_rules.problems(thing),
        calico_rules.problems(thing),
    ):
        raise item.error(problem)
    return thing


def _without_nulls(item: _Item, value: Any, path: tuple[str | int, ...]) -> Any:
    """A plain copy as the API server reads it: a null field is absent, a null value of a map of strings is ''."""
    if isinstance(value, dict):
        strings = bool(path) and path[-1] in _MAPS_OF_STRINGS
        pairs = {k: "" if v is None and strings else v for k, v in value.items()}
        return {k: _without_nulls(item, v, (*path, k)) for k, v in pairs.items() if v is not None}
    if not isinstance(value, list):
        return value
    if None in value:
        problem = Problem((*path, value.index(None)), "null in a list", "a value")
        raise item.error(problem)
    return [_without_nulls(item, v, (*path, i)) for i, v in enumerate(value)]


_MAPS_OF_STRINGS = ("labels", "annotations", "matchLabels", "nodeSelector")


@functools.cache
def _definitions() -> Registry[Any]:
    """What the kinds' schemas refer to. Loaded once: the file has 1.8 MB."""
    return Resource.from_contents(_schema("_definitions")) @ Registry()


@functools.cache
def _validator(kind: str, version: str) -> jsonschema.Draft202012Validator:
    """The official schema's validator; kubernetes_validate.validate() would read its files again for each object."""
    own = policy_schemas.schema(kind, version)
    if own is not None:
        return jsonschema.Draft202012Validator(own, registry=_definitions(), format_checker=_FORMATS)
    group, _, number = version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], number) if part)
    return jsonschema.Draft202012Validator(_schema(name), registry=_definitions(), format_checker=_FORMATS)


def _schema(name: str) -> dict[str, Any]:
    file = importlib.resources.files("kubernetes_validate") / _SCHEMAS / f"{name}.json"
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema


_FORMATS = jsonschema.FormatChecker(formats=())
for _bits in (32, 64):
    # A value of another type than integer is the business of "type".
    _FORMATS.checks(f"int{_bits}")(lambda v, most=2 ** (_bits - 1): not isinstance(v, int) or -most <= v < most)
_TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def _explain(error: jsonschema.ValidationError) -> Problem:
    """What a schema's error means to somebody who wrote a manifest."""
    path, said = tuple(error.absolute_path), f"{show(error.instance)} is wrong"
    instance: Any = error.instance
    schema: Any = error.schema
    match error.validator:
        case "additionalProperties":
            known = schema.get("properties", {})
            unknown = next(key for key in instance if key not in known)
            return Problem((*path, unknown), f"unknown field {show(unknown)}", nearest(unknown, known))
        case "required":
            missing = next(key for key in schema["required"] if key not in instance)
            known = schema.get("properties", {})
            return Problem((*path, missing), "the field is missing", _type(known.get(missing, {})))
        case "enum":
            return Problem(path, said, f"one of {', '.join(map(str, schema['enum']))}")
        case "format":
            return Problem(path, f"{show(instance)} is out of range", f"an integer of {schema['format'][3:]} bits")
        case "oneOf":
            return Problem(path, said, " or ".join(_type(part) for part in schema["oneOf"]))
    hint = " (in quotes)" if "string" in str(schema.get("type")) and not isinstance(instance, (dict, list)) else ""
    return Problem(path, said, _type(schema) + hint)


def _type(schema: Mapping[str, Any]) -> str:
    """The type that a schema wants, in words."""
    names = schema.get("type", "object" if "$ref" in schema else ())
    words = [_TYPES[n] for n in ([names] if isinstance(names, str) else names) if n != "null"]
    return " or ".join(words) or "a value"

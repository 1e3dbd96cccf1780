"""Reading YAML: kubectl's meaning of scalars, lines that are right, and limits that hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from topo.cluster.errors import InputError
from topo.yaml_source import MAX_BYTES, field_path, plain, read_documents, read_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True), ("Off", False), ("~", None), ("", None), ("0644", 420), ("0x1F", 31), ("0b11", 3),
        ("1_000", 1000), ("089", 89), ("1e3", 1000), ("80.0", 80), (".5", 0.5), ("1e999", "1e999"), ("22:22", "22:22"),
        ("2020-01-01", "2020-01-01"), ("'1'", "1"), ("!!str 1", "1"), ("!!int 1", 1), ("1.2.3", "1.2.3"),
        ("9" * 500, "9" * 500),
    ],
)  # fmt: skip
def test_scalars_mean_what_they_mean_to_kubectl(text: str, value: object) -> None:
    (document,) = read_documents(f"a: {text}", "f")
    assert document.value["a"] == value
    assert type(document.value["a"]) is type(value)


def test_documents_know_their_lines() -> None:
    first, second, third = read_documents("# head\n\na:\n  b:\n  - x\n  - c.d/e: y\n---\n---\n- z\n", "f")
    assert [d.number for d in (first, second, third)] == [1, 2, 3]
    assert (second.value, third.value) == (None, ["z"])
    path = ("a", "b", 1, "c.d/e")
    assert (first.line, first.line_of(path), first.line_of((*path, "beyond", 3))) == (3, 6, 6)
    assert (first.line_of(("a",)), first.line_of(("a", "b", 0)), third.line) == (3, 5, 9)
    assert field_path(path) == "a.b[1][c.d/e]"


def test_merge_keys_yield_to_the_mappings_own() -> None:
    (document,) = read_documents("a: &a {x: 1, z: 1}\nb: {<<: *a, w: 2, x: 2}\nc: {<<: [*a, {x: 3, v: 3}]}\n", "f")
    assert plain(document.value) == {
        "a": {"x": 1, "z": 1},
        "b": {"w": 2, "x": 2, "z": 1},
        "c": {"x": 1, "z": 1, "v": 3},
    }
    assert document.line_of(("c", "v")) == 3


def test_json_may_be_indented_with_tabs_and_keys_become_strings() -> None:
    (document,) = read_documents('{\n\t"a": {1: "\\u00e9", true: 2, 1.5: 3, "<<": 4}\n}\n', "f")
    assert document.value == {"a": {"1": "é", "true": 2, "1.5": 3, "<<": 4}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\n\tb: 2", "f:2: document 1: "),
        ("a: {\n}\n\tb: 2", "expected spaces, no tabs, as indentation"),
        ("a: 1\n  b: 2", "f:2: document 1: mapping values are not allowed in this context; expected YAML"),
        ("a: 1\n---\nb: [1, 2", "f:3: document 2: while parsing a flow sequence"),
        ('{"a": 1}\n{"b": 2}', "did not find expected <document start>"),
        ("a: 1\na: 2", "f:2: document 1: key 'a' appears twice, first in line 1; expected each key once"),
        ("1: 1\n'1': 2", "key '1' appears twice"),
        ("a: *b", "f:1: document 1: unknown alias *b"),
        ("a: &a [*a]", "alias *a is inside its own anchor"),
        ("a: {<<: 1}", "<< merges no mapping; expected an alias of a mapping, or a list of such"),
        ("a: !secret x", "unknown tag '!secret'"),
        ("a: !!binary aGk=", "unknown tag 'tag:yaml.org,2002:binary'"),
        ("a: !!set {x: }", "unknown tag 'tag:yaml.org,2002:set'; expected no tag"),
        ("a: !!int x", "'x' is no !!int"),
        ("a: -.inf", "-.inf is no number that JSON can hold; expected a finite number"),
        ("{[a]: x}", "a collection as a key; expected a string"),
        ("? \n: 1", "null as a key"),
        ("a: 1\nb: \x07", "f:2: document 1: control characters are not allowed"),
        ("a: \ud800", "surrogates not allowed; expected printable text in UTF-8"),
        ("%YAML 3.0\n---\na: 1", "found incompatible YAML document"),
        ("[" * 1000, "the nesting is too deep; expected at most 100 levels"),
        ("- " * 100_000, "the nesting is too deep"),
        (
            "a: &a0 [x]\n" + "".join(f"b{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 300)),
            "aliases is too deep",
        ),
        ("- &a0 [x]\n" + "".join(f"- &a{i} [{f'*a{i - 1}, ' * 10}]\n" for i in range(1, 9)), "aliases repeat too much"),
        ("#" * (MAX_BYTES + 1), "f: the file is too big; expected at most 10 MB"),
    ],
    ids=range(25),
)
def test_errors(text: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        read_documents(text, "f")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hundred_levels_are_allowed() -> None:
    assert len(read_documents("[" * 100 + "]" * 100, "f")) == 1


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    (tmp_path / "big.yaml").write_bytes(b"\xc3\xa9" * MAX_BYTES)
    for name, expected in (
        ("latin.yaml", "latin.yaml:2: byte 0xe9 is not UTF-8; expected a text file in UTF-8"),
        ("big.yaml", "the file is too big"),
        ("none.yaml", "cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(InputError) as caught:
            read_documents(read_text(tmp_path / name), name)
        assert expected in str(caught.value)

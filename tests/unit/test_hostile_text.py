"""Texts of manifests and results stay texts: on a terminal, in tables, in Markdown, in a pod's files and requests."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from scenarios.cli.common import console, table
from scenarios.cli.terminal import printable
from scenarios.report import markdown, tables
from scenarios.report.results import Measurement, Result, TextTable
from topo import manifests
from topo.cluster.errors import InputError
from topo.cni import pod

EVIL = "[red]x[/red] <script>x</script> [a](http://b) a|b :bomb: `c`\n# title"
RESULT = Result(
    scenario="paths",
    started="2024-05-06T07:08:09+00:00",
    command=f"mininetes {EVIL}",
    environment={"host": EVIL},
    lab={"shaped": False},
    measurements=(Measurement("tcp_rr", EVIL, "us", note=EVIL),),
    notes=(EVIL,),
    tables=(TextTable(EVIL, (EVIL, "b"), ((EVIL, EVIL),)),),
    warnings=(EVIL,),
)


def printed(*things: Any) -> str:
    out = io.StringIO()
    for one in things:
        console(out).print(one)
    return out.getvalue()


def test_tables_and_notes_on_a_terminal_show_brackets_and_colons() -> None:
    shown = table("[bold]t[/bold]", "[i]c[/i]")
    shown.add_row("[red]x[/red] :bomb:")
    assert "[bold]t[/bold]" in printed(shown) and "[red]x[/red] :bomb:" in printed(shown)
    result = replace(RESULT, warnings=("[red]w[/red]",), notes=("[red]n[/red] :bomb:",))
    text = printed(*tables.text_tables(result), tables.table(result), tables.notes(result))
    for one in ("[red]x[/red]", "[red]w[/red]", "[red]n[/red] :bomb:", "[a](http://b)"):
        assert one in text


def test_markdown_has_no_tag_no_link_and_no_line_that_is_not_ours() -> None:
    command, text = re.findall(r"by (`[^`]*`)", tables.markdown(RESULT)), tables.markdown(RESULT)
    assert len(command) == 1  # in code everything is as it was typed
    text = text.replace(command[0], "").replace("`c`", "")
    assert "<script>" not in text and "&lt;script>" in text
    assert "[a](" not in text.replace("\\[a](", "")
    assert not [line for line in text.splitlines() if line == "# title" or line.startswith("# title")]
    row = next(line for line in text.splitlines() if line.startswith("| \\[red]x") and line.count("\\[red]x") == 2)
    assert len(re.split(r"(?<!\\)\|", row)) == 4  # two cells, and what is before and after
    assert markdown.text("a & b &lt; > c") == "a & b &amp;lt; > c"
    assert markdown.code("a`b\nc") == "`a'b c`"


@pytest.mark.parametrize(
    ("text", "shown"), [("a b", "a b"), ("\x1b[2J", "\\x1b[2J"), ("\r\x07", "\\r\\x07"), ("é ü\n", "é ü\n")]
)
def test_a_terminal_is_told_nothing_by_a_text(text: str, shown: str) -> None:
    assert printable(text) == shown


def load(spec: dict[str, Any]) -> Any:
    whole = {"containers": [{"name": "c", "image": "x"}]} | spec
    thing = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": whole}
    return manifests.load_text(yaml.safe_dump(thing), "m").objects


def probing(**asked: Any) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "x", "readinessProbe": {"httpGet": {"port": 80, **asked}}}]}


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a\n10.0.0.2 b"]}]}, r"hostAliases\[0\].hostnames\[0\]"),
        ({"dnsConfig": {"nameservers": ["10.0.0.1\nnameserver 10.0.0.2"]}}, r"dnsConfig.nameservers\[0\]"),
        ({"dnsConfig": {"searches": ["a b"]}}, r"dnsConfig.searches\[0\]"),
        ({"dnsConfig": {"options": [{"name": "ndots:5\nsearch x"}]}}, r"dnsConfig.options\[0\].name"),
        ({"dnsConfig": {"options": [{"name": "ndots", "value": "5 debug"}]}}, r"dnsConfig.options\[0\].value"),
        (probing(path="/\r\nX: y"), "httpGet.path"),
        (probing(host="a\nb"), "httpGet.host"),
        (probing(httpHeaders=[{"name": "A: b", "value": "c"}]), r"httpHeaders\[0\].name"),
        (probing(httpHeaders=[{"name": "A", "value": "c\nd"}]), r"httpHeaders\[0\].value"),
    ],
)
def test_what_would_be_more_than_a_word_of_a_file_or_a_request_is_refused(spec: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError, match=where):
        load(spec)


def test_what_kubernetes_takes_is_taken() -> None:
    options = [{"name": "ndots", "value": "2"}, {"name": "edns0"}, {"name": "timeout", "value": ""}]
    config = {"nameservers": ["10.0.0.1", "::1"], "searches": ["a.b", "_tcp.c.", "."], "options": options}
    assert load({"dnsConfig": config, "hostAliases": [{"ip": "::1", "hostnames": ["a", "a.b-c"]}]})
    assert load(probing(path="/a?b=[c]&d", host="example.com", httpHeaders=[{"name": "X-A", "value": "b; c"}]))


def test_a_pods_uid_of_a_file_adds_no_argument_for_cni_plugins() -> None:
    meta = {"name": "p", "namespace": "d", "uid": "a;K8S_POD_NAME=other"}
    said = pod.args({"metadata": meta, "spec": {}})
    assert not [value for value in said.values() if ";" in value]

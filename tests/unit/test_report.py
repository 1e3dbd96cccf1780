"""The report's rows, its Markdown and its terminal table."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from controllers.cni import Traits
from scenarios.measure.stats import repeat_summary, summary
from scenarios.report import tables as report
from scenarios.report import traits
from scenarios.report.results import Measurement, Result
from scenarios.report.tables import Row


def measured(name: str, path: str, unit: str, *medians: float, **other: Any) -> Measurement:
    runs = tuple(summary([middle]) for middle in medians)
    return Measurement(name, path, unit, runs, repeat_summary(runs), **other)


RESULT = Result(
    scenario="paths",
    started="2024-05-06T07:08:09+00:00",
    command="mininetes measure",
    environment={"kernel": "6.1", "load_average": [0.5, 0.25, 0.1], "seed": None},
    lab={"shaped": False},
    measurements=(
        measured("icmp_rtt", "baseline", "us", 8),
        measured("tcp_rr", "baseline", "us", 20, 21, 22),
        measured("tcp_throughput", "baseline", "bit/s", 10e9),
        measured("icmp_rtt", "same node", "us", 12),
        measured("tcp_rr", "same node", "us", 40, 42, 150, lost=3),
        measured("tcp_throughput", "same node", "bit/s", 2.5e9, details={"retransmits": 7}),
        Measurement("icmp_rtt", "ClusterIP", "us", note="not measured: a ClusterIP answers no ICMP"),
        measured("tcp_rr", "ClusterIP", "us", 63),
        measured("udp_throughput", "ClusterIP", "bit/s", 0.5e9, details={"loss_percent": 12.34}),
    ),
    notes=("Baseline: offload on.",),
)
NO_ICMP = "not measured: a ClusterIP answers no ICMP"


def test_rows_are_by_kind_then_path_with_the_baseline_first() -> None:
    assert report.rows(RESULT) == (
        Row("ICMP RTT (µs)", "same node", "8.00 (8.00, 8.00)", "12.0 (12.0, 12.0)", "1.50", "12.0 to 12.0", "0"),
        Row("ICMP RTT (µs)", "ClusterIP", "8.00 (8.00, 8.00)", NO_ICMP, "-", "-", "-"),
        Row("TCP RR (µs)", "same node", "21.0 (21.0, 21.0)", "42.0 (42.0, 42.0)", "2.00", "40.0 to 150", "3"),
        Row("TCP RR (µs)", "ClusterIP", "21.0 (21.0, 21.0)", "63.0 (63.0, 63.0)", "3.00", "63.0 to 63.0", "0"),
        Row("TCP throughput (Gbit/s)", "same node", "10.0", "2.50", "0.25", "2.50 to 2.50", "7 resent"),
        Row("UDP throughput (Gbit/s)", "ClusterIP", "-", "0.500", "-", "0.500 to 0.500", "12.3 %"),
    )


def test_a_baseline_alone_has_rows_of_its_own() -> None:
    rows = report.rows(replace(RESULT, measurements=RESULT.measurements[:2]))
    assert [(row.kind, row.path, row.ratio) for row in rows] == [
        ("ICMP RTT (µs)", "baseline", "1.00"),
        ("TCP RR (µs)", "baseline", "1.00"),
    ]


def test_markdown_and_table_show_the_same_values() -> None:
    text = report.markdown(RESULT)
    stream = io.StringIO()
    Console(file=stream, width=200).print(report.table(RESULT))
    shown = stream.getvalue()
    for row in report.rows(RESULT):
        assert f"| {' | '.join(row.cells())} |" in text
        assert any(all(cell in line for cell in row.cells()) for line in shown.splitlines())
    for output in (text, shown):
        assert "Fabric: unshaped. The emulator's CPU decides every figure" in output
        assert "Baseline: offload on." in output
    assert "| load_average | 0.5, 0.25, 0.1 |\n| seed | - |" in text


LIMITED = {"bandwidth": None, "delay": 2.0, "loss": None, "mtu": 1500}
FREE = {"bandwidth": None, "delay": None, "loss": None, "mtu": 1500}


@pytest.mark.parametrize(
    ("lab", "expected"),
    [
        ({"shaped": True}, True),
        ({"shaped": False, "fabric": {"link": LIMITED}}, False),
        ({"fabric": {"link": FREE, "links": {}}}, False),
        ({"fabric": {"link": LIMITED, "links": {}}}, True),
        ({"fabric": {"link": FREE, "links": {"a--b": LIMITED}}}, True),
        ({}, None),
    ],
)
def test_shaped(lab: dict[str, object], expected: bool | None) -> None:
    assert report.shaped(lab) is expected
    words = {True: "Fabric: shaped", False: "Fabric: unshaped", None: "Fabric: not told"}
    assert words[expected] in report.markdown(replace(RESULT, lab=lab))
    assert words[expected] in str(report.table(replace(RESULT, lab=lab)).caption)


def test_of_labs_of_which_only_some_were_shaped_that_is_said() -> None:
    """The result's lab is the last one, whose fabric alone would say something of all."""
    lab = {report.MIXED: True, "fabric": {"link": LIMITED}}
    assert report.shaped(lab) is None and report.shaping(lab).startswith(
        "Fabric: shaped in some labs, unshaped in others"
    )


def test_a_bar_in_a_value_does_not_break_the_markdown_table() -> None:
    assert "a \\| b" in report.markdown(replace(RESULT, environment={"cpu": "a | b"}))


def test_what_the_lab_used_is_a_table_of_its_own() -> None:
    cost = measured("vswitchd CPU", "same node", "CPUs", 0.5)
    result = replace(RESULT, measurements=(*RESULT.measurements, cost))
    assert report.rows(result) == report.rows(RESULT)
    assert report.cost_rows(result) == (("Lab's own use", "same node"), ("vswitchd CPU (CPUs)", "0.500"))
    assert "| vswitchd CPU (CPUs) | 0.500 |" in report.markdown(result)
    assert report.cost_rows(RESULT) == ()


def test_markdown_shows_the_traits_of_the_cnis_that_were_measured() -> None:
    own = traits.data(Traits("VXLAN", 50, "routes", "an overlay", policy=("ingress",), source="RFC 7348"))
    shown = report.markdown(replace(RESULT, lab={"traits": {"some vxlan": own}}))
    assert "| some vxlan | VXLAN | 50 bytes | 1450 | routes | L3 | ingress | - | - | RFC 7348 |" in shown
    assert "Pod networks" not in report.markdown(RESULT)

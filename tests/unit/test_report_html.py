"""report.html: its figures are result.json's, names in it do nothing, and a browser shows it whole at any width."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from controllers import cni
from controllers.registry import choose, discover
from scenarios.lab.topology import wiring
from scenarios.measure.stats import repeat_summary, summary
from scenarios.report import html, lab_picture, plots, results, tables, traits
from scenarios.report.curves import Curves
from scenarios.report.results import Measurement, Result, TextTable
from topo import fabric
from topo.config import FabricConfig, LinkConfig
from topo.labfile import default_config

EVIL = '<script>document.title="ran"</script><img src=x onerror="document.title=1">'
BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
LONG = "checkoutservice-with-a-very-long-name-6b9f7c5d4-xk2vq-and-more-of-it"


def measured(name: str, path: str, unit: str, *medians: float) -> Measurement:
    runs = tuple(summary([middle * 0.7, middle, middle * 3.1]) for middle in medians)
    return Measurement(name, path, unit, runs, repeat_summary(runs), details={"mtu": 1500})


def topology(nodes: int = 3) -> dict[str, object]:
    limited = FabricConfig(link=LinkConfig(bandwidth=1000), links={"leaf-1--spine-1": LinkConfig(100, 2, 0.5)})
    config = replace(default_config(nodes), fabric=limited)
    attached = {node.name: f"leaf-{number % 2 + 1}" for number, node in enumerate(config.nodes)}
    pods = {"worker": [f"shop/{LONG}-{n}" for n in range(40)], "control-plane": [f"red/{EVIL}", "kube-system/dns"]}
    return wiring(config, attached, pods)


TRAITS = traits.data(choose(discover(cni, "CNI"), "flannel", "CNI", "").variants["vxlan"])
RESULT = Result(
    scenario="paths",
    started="2024-05-06T07:08:09+00:00",
    command=f"mininetes run paths --option names={LONG},{LONG}",
    environment={"kernel": "6.1", "load_average": [0.5, 0.25, 0.1], "commit": "0123abc", "datapath": "netdev"},
    lab={"shaped": True, "cni": "flannel", "topology": topology(), "traits": {"flannel vxlan": TRAITS}},
    measurements=(
        measured("tcp_rr", tables.BASELINE, "us", 20.123, 21.5, 22),
        measured("tcp_rr", "other node", "us", 1140.25, 1242, 1344),
        measured("tcp_throughput", "other node", "bit/s", 5.4321e9, 4e9),
        measured("vswitchd CPU", "other node", "CPUs", 0.512),
        Measurement("icmp_rtt", "ClusterIP", "us", note="not measured: a ClusterIP answers no ICMP"),
    ),
    notes=("a note", "Not as expected: a pod did not answer"),
    tables=(TextTable("own", ("a", "b"), ((LONG, LONG * 3),)),),
    curves=(Curves("growth", "Services", "s", {"ovs": ((10, 0.1), (1e4, 9.0))}, {"ovs": ((10, 0.05, 0.2),)}),),
    warnings=("the machine was busy",),
    failed=("a pod did not answer",),
)


HARNESS = """<!doctype html><body style="margin:0">{frames}<script>
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement, wide = root.clientWidth;
    const out = [...page.body.querySelectorAll("*")].filter(
      one => one.getBoundingClientRect().right > wide + 0.5 && !one.closest(".scroll"));
    const text = (list) => [...page.querySelectorAll(list)].map(one => one.textContent);
    return {{
      width: wide, scrolled: root.scrollWidth,
      outside: out.map(one => one.tagName + ": " + one.textContent.slice(0, 40)),
      title: page.title, images: page.images.length, scripts: page.scripts.length,
      pods: [...page.querySelectorAll("rect.pod")].length, drawn: text(".panel .value"),
      figures: [...page.querySelectorAll("table.figures data")].map(
        one => [one.closest("tr").cells[0].textContent, +one.value, one.textContent]),
      heights: [...page.querySelectorAll("svg")].map(one => one.getBoundingClientRect().height),
    }};
  }});
  document.body.innerHTML = "<pre></pre>"; document.querySelector("pre").textContent = JSON.stringify(found);
}});
</script>"""


def in_browser(text: str, folder: Path, *widths: int) -> list[dict[str, Any]]:
    """What a real browser makes of a page at each width."""
    frames = "".join(f'<iframe width={w} height=800 style="border:0" srcdoc="{escape(text)}"></iframe>' for w in widths)
    (folder / "harness.html").write_text(HARNESS.format(frames=frames))
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    quiet += ["--disable-component-update", "--no-first-run", f"--user-data-dir={folder / 'profile'}"]
    argv = [BROWSER, *quiet, "--dump-dom", f"file://{folder / 'harness.html'}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    shown = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert shown, done.stdout[-500:] + done.stderr[-500:]
    found: list[dict[str, Any]] = json.loads(unescape(shown[1]))
    return found


@pytest.mark.skipif(not BROWSER, reason="no chromium: `make browser` installs it and runs these tests")
def test_a_browser_shows_it_whole_on_a_phone_and_on_a_desk(tmp_path: Path) -> None:
    evil = replace(RESULT, scenario=EVIL, notes=(EVIL, LONG * 9), warnings=(LONG * 5,))
    folder = results.write(evil, [], tmp_path)
    document = json.loads((folder / "result.json").read_text())
    pages = in_browser((folder / "report.html").read_text(), tmp_path, 360, 1280)
    expected = [
        (one["name"], one["path"], one["summary"]["p50"])
        for one in document["measurements"]
        if one["summary"] and one["path"] != tables.BASELINE and one["unit"] != "CPUs"
    ]
    for page in pages:
        assert page["scrolled"] == page["width"] and page["outside"] == []
        assert [(path, value) for path, value, _ in page["figures"]] == [one[1:] for one in expected]
        assert [text.split()[0] for *_, text in page["figures"]] == ["1242", "4.72"]
        assert page["drawn"] == ["21.5", "1242", "4.72"]
        assert page["pods"] == lab_picture.SHOWN - 1 + 2 and all(height > 40 for height in page["heights"])
        assert page["title"].startswith(EVIL) and page["images"] == page["scripts"] == 0


@pytest.mark.skipif(not BROWSER, reason="no chromium: `make browser` installs it and runs these tests")
def test_what_sticks_out_is_seen(tmp_path: Path) -> None:
    text = "<p>before</p><div style='width: 500px'>wide</div>"
    narrow, wide = in_browser(text, tmp_path, 360, 1280)
    assert narrow["scrolled"] > 360 and "wide" in narrow["outside"][0]
    assert wide["outside"] == []


def test_names_are_escaped_and_nothing_is_fetched() -> None:
    evil = replace(
        RESULT,
        scenario=EVIL,
        command=EVIL,
        notes=(EVIL,),
        warnings=(EVIL,),
        failed=(EVIL,),
        tables=(TextTable(EVIL, (EVIL,), ((EVIL,),)),),
        measurements=(measured(EVIL, EVIL, "us", 1.0), Measurement("x", EVIL, EVIL, note=EVIL)),
        curves=(Curves(EVIL, EVIL, EVIL, {EVIL: ((1.0, 1.0), (2.0, 2.0))}),),
        environment={EVIL: EVIL},
        lab={"cni": EVIL, "topology": topology()},
    )
    text = html.page(evil)
    assert "&lt;script&gt;" in text
    assert not re.findall(r"<(script|img|link|iframe|object|embed)\b", text)
    assert not re.findall(r"(src|href)=|url\(", text.replace("src=x", ""))
    assert 'name="viewport"' in text and "default-src 'none'" in text


def test_it_says_all_that_the_other_reports_say() -> None:
    text = unescape(html.page(RESULT))
    for row in tables.rows(RESULT):
        assert all(cell in text for cell in (row.kind, *row.cells()))
    for cell in (c for row in tables.cost_rows(RESULT) for c in row):
        assert cell in text
    for cell in traits.row("flannel vxlan", TRAITS):
        assert cell in text
    assert text.count("a pod did not answer") == 1
    for said in ("a note", *RESULT.warnings, *RESULT.failed, tables.shaping(RESULT.lab), RESULT.command):
        assert said in text
    assert "git checkout 0123abc" in text and "100M, 2 ms, 0.5 % loss" in text


def test_its_figures_are_those_of_the_result_in_full() -> None:
    found = re.findall(r'<data value="([^"]+)">([^<]+)</data>', html.page(RESULT))
    shown = [m for m in RESULT.measurements if m.summary and m.path != tables.BASELINE and m.unit != "CPUs"]
    assert [float(value) for value, _ in found] == [m.summary.p50 for m in shown if m.summary]
    # 1242.0 us, and the median of 5.4321 and 4 Gbit/s, in three digits at most after the point.
    assert [text.split()[0] for _, text in found] == ["1242", "4.72"]


@pytest.mark.parametrize("nodes", [1, 3, 12, 40])
def test_no_two_machines_of_the_picture_overlap(nodes: int) -> None:
    drawn = lab_picture.picture(topology(nodes))
    solid = [box for box in drawn.boxes if box.kind in ("node", "outside", "leaf", "spine")]
    assert sum(box.kind == "node" for box in solid) == nodes
    for number, one in enumerate(solid):
        assert one.x >= 0 and one.x + one.width <= drawn.width and one.y + one.height <= drawn.height
        for two in solid[number + 1 :]:
            apart = one.x + one.width <= two.x or two.x + two.width <= one.x
            assert apart or one.y + one.height <= two.y or two.y + two.height <= one.y
    assert len(drawn.lines) == 4 + nodes + 1


@pytest.mark.parametrize("shape", ["star", "two-racks", "two-sites"])
def test_a_fabric_of_any_shape_is_drawn_with_each_link_once(shape: Any) -> None:
    config = replace(default_config(4), fabric=FabricConfig(shape=shape, link=LinkConfig(bandwidth=50)))
    attached = {node.name: fabric.attach(config.fabric, n).switch for n, node in enumerate(config.nodes)}
    found = wiring(config, attached, {})
    ends = [frozenset(link["ends"]) for link in found["links"]]
    between = 0 if shape == "star" else 1
    assert len(ends) == len(set(ends)) == 4 + 1 + between
    drawn = lab_picture.picture(found)
    level = [line for line in drawn.lines if line.y1 == line.y2]
    assert len(level) == between and all(line.limits and line.x1 < line.x2 for line in level)


def test_a_plot_shows_every_repeat_in_its_place() -> None:
    (panel, _) = plots.panels(RESULT)
    base, other = panel.marks
    assert panel.logarithmic and len(base.repeats) == 3
    assert base.low == min(base.repeats) and base.high == max(base.repeats) and base.middle == base.repeats[1]
    assert 0 < base.middle < other.low <= other.middle <= other.high < (other.tail or 0) < plots.WIDTH
    at = {tick.text: tick.at for tick in panel.ticks}
    decade = at["1000"] - at["100"]
    assert at["3000"] - at["300"] == pytest.approx(decade)
    assert base.middle == pytest.approx(at["100"] + decade * math.log10(0.215))


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "expected"),
    [
        (0, 10, False, (0, 5, 10)),
        (0, 0.7, False, (0, 0.2, 0.4, 0.6)),
        (8, 1200, True, (10, 30, 100, 300, 1000)),
        (8, 60, True, (10, 20, 50)),
        (1, 12000, True, (1, 10, 100, 1000, 10000)),
    ],
)
def test_ticks_are_round(low: float, high: float, logarithmic: bool, expected: tuple[float, ...]) -> None:
    assert plots.ticks(low, high, logarithmic) == pytest.approx(expected)

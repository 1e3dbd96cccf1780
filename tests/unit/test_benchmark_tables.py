"""The CNI benchmark's labs, and its tables from figures that are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scenarios import Outcome
from scenarios.cni_benchmark import SCENARIO
from scenarios.measure import suite
from scenarios.measure.fileservers import Folder
from scenarios.measure.place import Place
from scenarios.measure.suite import Run, combine
from scenarios.measure.trials import KINDS, Route, Setting
from scenarios.report import benchmark
from scenarios.report.benchmark import BARE, COST, COSTS, IDLE, MEMORY, NODES, POD, SAID, SERVICE
from scenarios.report.results import TextTable
from topo import fabric, labfile
from topo.cluster.errors import InputError
from topo.config import FabricConfig, LabConfig, LinkConfig

FREE = {"machine_percent": 40.0, "own_percent": 30.0, "thread_percent": 50.0}
FULL = {"machine_percent": 99.0, "own_percent": 90.0, "thread_percent": 60.0}


def asked(**options: str) -> LabConfig:
    return replace(labfile.default_config(3), scenario={**SCENARIO.options, **options})


def lab(mtu: str, of: dict[tuple[str, str, str], tuple[list[float], dict[str, float]]]) -> Outcome:
    """Each figure's repeats and what the CPU did."""
    made = [combine(*key, [Run((v,), details=cpu) for v in values]) for key, (values, cpu) in of.items()]
    said = TextTable("", SAID, ((mtu, "none", "none"),))
    return Outcome([m for m, _ in made], [s for _, rows in made for s in rows], tables=[said])


def tcp(path: str) -> tuple[str, str, str]:
    return "tcp_throughput", path, "bit/s"


def cost(name: str, path: str) -> tuple[str, str, str]:
    return name, path, COSTS[name]


@pytest.fixture
def found() -> Outcome:
    nodes = ([28.7e6, 28.6e6, 28.8e6], FREE)
    outcomes = {
        "no CNI, shaped": lab(
            "1500", {tcp(NODES): nodes, tcp(BARE): nodes, cost(MEMORY, IDLE): ([20.0, 20.1, 20.0], {})}
        ),
        "flannel vxlan, shaped": lab(
            "1450",
            {
                tcp(NODES): nodes,
                tcp(POD): ([27.7e6, 27.6e6, 27.8e6], FREE),
                tcp(SERVICE): ([10.0e6, 10.1e6, 9.9e6], FULL),
                cost(MEMORY, IDLE): ([24.0, 24.1, 24.0], {}),
                cost(MEMORY, POD): ([30.0] * 3, {}),
                cost(COST, NODES): ([2.0, 2.0, 2.0], {}),
                cost(COST, POD): ([8.0, 8.0, 8.0], {}),
            },
        ),
        "flannel udp, shaped": lab("1472", {tcp(NODES): nodes, tcp(POD): ([5e6, 20e6, 28e6], FREE)}),
        "docker bridge, shaped": Outcome([], [], ["its pods do not reach those of other nodes"]),
        "flannel vxlan, unshaped": lab("1450", {tcp(NODES): nodes, tcp(POD): ([9e6] * 3, FULL)}),
    }
    return benchmark.outcome(outcomes, {"calico ipip, shaped": "no tun"})


def table(found: Outcome, title: str) -> dict[str, tuple[str, ...]]:
    one = next(t for t in found.tables if t.title.startswith(title))
    assert all(len(row) == len(one.columns) for row in one.rows)
    return {row[0]: row[1:] for row in one.rows}


def test_figures_are_rated_and_marked_where_the_cpu_decided(found: Outcome) -> None:
    rows = table(found, "shaped: Mbit/s")
    assert rows["no CNI"] == ("28.7", "-")
    assert rows["bare"] == ("28.7 very good", "-")
    assert rows["flannel vxlan"] == ("27.7 good", "10.0 poor*")
    assert rows["flannel udp"] == ("20.0 within noise", "-")
    assert rows["calico ipip"] == rows["docker bridge"] == ("left out", "")
    assert "calico ipip, shaped is left out: no tun" in found.notes
    assert "docker bridge, shaped: its pods do not reach those of other nodes" in found.notes
    assert table(found, "unshaped: Mbit/s")["flannel vxlan"] == ("9.0 poor",)  # there it always does


def test_costs_are_beside_a_lab_without_pods(found: Outcome) -> None:
    rows = table(found, "shaped: what it costs")
    assert rows["flannel vxlan"][:8] == ("1450", "24.0", "+4.0", "30.0", "-", "-", "8.00", "poor")
    assert rows["no CNI"][:3] == ("1500", "20.0", "-")


def test_scores_and_the_cpus_part_are_told_for_each_result(found: Outcome) -> None:
    scores = table(found, "shaped: scores")
    assert scores["flannel vxlan"][0].startswith("0.965 (0.96-0.97)")
    assert scores["bare"][0] == "1.000 (1.00-1.00)" and scores["no CNI"][0] == "-"
    cpu = table(found, "shaped: was the CPU")
    assert cpu["flannel vxlan"] == ("no 40/30/50", "yes 99/90/60")


def test_every_figure_is_kept_with_its_lab_and_way(found: Outcome) -> None:
    paths = {m.path for m in found.measurements if m.name == "tcp_throughput"}
    assert {"flannel vxlan, shaped: pod", "flannel vxlan, unshaped: pod", "no CNI, shaped: bare"} <= paths


def test_labs_differ_in_cni_way_and_mtu_alone() -> None:
    variants = SCENARIO.variants(
        asked(way="both", cnis="flannel udp,weave sleeve password", mtu="1500,9000", rate="50")
    )
    names = [variant.name for variant in variants]
    assert names[:4] == [
        "no CNI, shaped",
        "flannel udp, shaped",
        "weave sleeve password, shaped",
        "no CNI, shaped, MTU 9000",
    ]
    assert len(names) == 12 and names[-1] == "weave sleeve password, unshaped, MTU 9000"
    shaped, unshaped = (
        variants[1].config,
        next(v for v in variants if v.name == "flannel udp, unshaped, MTU 9000").config,
    )
    assert shaped.fabric.link == LinkConfig(bandwidth=50.0) and unshaped.fabric.link == LinkConfig(mtu=9000)
    assert not variants[0].objects and variants[1].objects
    sealed = variants[2].config.cni_options
    assert sealed["mode"] == "sleeve" and sealed["password"]


def test_no_link_keeps_a_limit_of_its_own() -> None:
    links = {"worker--site-2": LinkConfig(bandwidth=1.0, mtu=1400)}
    config = replace(asked(way="both", cnis="canal"), fabric=FabricConfig(shape="two-sites", routing="l2", links=links))
    for variant in SCENARIO.variants(config):
        wanted = 30.0 if "unshaped" not in variant.name else None
        for ends in (("site-1", "site-2"), ("worker", "site-2"), ("worker", "site-1")):
            assert fabric.link(variant.config.fabric, *ends).bandwidth == wanted
            assert fabric.link(variant.config.fabric, *ends).mtu == 1400


@pytest.mark.parametrize(
    "options", [{"way": "fast"}, {"tests": "udp,dccp"}, {"mtu": "9"}, {"rate": "0"}, {"cnis": "no"}]
)
def test_what_cannot_be_meant_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(InputError, match="--option"):
        SCENARIO.variants(asked(**options))


def test_every_load_has_a_name_and_an_option_of_its_own() -> None:
    assert len({kind.name for kind in KINDS}) == len({kind.option for kind in KINDS}) == len(KINDS)


def test_datagrams_fill_the_paths_packets_and_a_shaped_wire_is_offered_little_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(suite, "iperf3", lambda *ends, **how: asked.append(how) or Run((1.0,)))
    one, two = Place("one", 1, "10.0.0.1"), Place("two", 2, "10.0.0.2")
    udp = next(kind for kind in KINDS if kind.option == "udp")
    for rate in (30_000_000, 0):
        udp.once(Route("pod", one, two, "10.96.0.1", 1376), Setting(rate, 0.1, Folder(Path("/none"), 1)))
    assert [how["length"] for how in asked] == [1348, 1348] and asked[0]["address"] == "10.96.0.1"
    assert asked[0]["rate"] == pytest.approx(33_000_000, abs=1) and asked[1]["rate"] == 0

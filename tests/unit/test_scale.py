"""What the scale scenario asks for, and how it sees whether something grows more than it should."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace

import pytest

from scenarios import Outcome
from scenarios.measure import suite, usage
from scenarios.report.results import TextTable
from scenarios.scale import COLUMNS, SCENARIO, growth
from topo.cluster.errors import InputError
from topo.labfile import default_config

CONFIG = replace(default_config(), scenario=SCENARIO.options)


def asked(**options: str) -> list[tuple[str, int]]:
    scenario = {**SCENARIO.options, **{key.replace("_", "-"): value for key, value in options.items()}}
    return [(v.name, len(v.config.nodes)) for v in SCENARIO.variants(replace(CONFIG, scenario=scenario))]


def test_there_is_a_lab_for_each_size_from_the_smallest() -> None:
    assert asked(nodes="10,2,10") == [("2", 2), ("10", 10)]
    for options in ({"nodes": "0"}, {"nodes": "256"}, {"pods_per_node": "254"}, {"pods_per_node": "1,2"}):
        with pytest.raises(InputError):
            asked(**options)


@pytest.mark.parametrize(("power", "factor"), [(0, 7), (1, 0.1), (2, 3)])
def test_growth_is_the_power_of_the_size(power: float, factor: float) -> None:
    found = growth([(x, factor * x**power) for x in (2.0, 5.0, 10.0, 100.0)])
    assert found == pytest.approx(power)


def test_one_size_or_nothing_at_all_has_no_growth() -> None:
    assert growth([(2.0, 1.0)]) is None
    assert growth([(2.0, 0.0), (4.0, 0.0)]) is None
    assert growth([(2.0, 1.0), (2.0, 2.0)]) is None


def outcome(size: int, power: float) -> Outcome:
    values = {c.name: 3.0 * size ** (power if c.name == "memory" else 1) for c in COLUMNS}
    made = [suite.combine(c.name, str(size), c.unit, [suite.Run((values[c.name],))])[0] for c in COLUMNS]
    return Outcome(made, [], tables=(TextTable("", ("", "MiB", "CPUs"), (("lab", str(size), "0"),)),))


def test_what_grows_more_than_linearly_is_not_as_expected() -> None:
    linear = SCENARIO.compare({str(n): outcome(n, 1) for n in (2, 5, 20)}, {})
    assert linear.failed == [] and len(linear.curves) == len(COLUMNS)
    assert [row[0] for row in linear.tables[0].rows] == ["2", "5", "20"]
    assert linear.tables[2].rows == (("lab", "20", "0"),)
    more = SCENARIO.compare({str(n): outcome(n, 2) for n in (2, 5, 20)}, {"50": "no memory"})
    assert more.failed == ["memory (MiB) grows with the power 2.00 of the nodes"]
    assert "50 nodes were not measured: no memory" in more.notes


def test_a_process_has_an_age() -> None:
    with subprocess.Popen(["sleep", "9"]) as child:
        time.sleep(0.1)
        assert 0.05 < usage.age(child.pid) < 5
        assert usage.age(os.getpid()) >= usage.age(child.pid)
        child.kill()

"""What the scenario routing-convergence asks for, and what it says was not as expected."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scenarios.lab.assemble import Choices, parts
from scenarios.measure.outage import Outage
from scenarios.routing_convergence import MODES, SCENARIO, _missed, _mode_of
from topo.labfile import default_config

CONFIG = replace(default_config(), scenario=SCENARIO.options)


def test_every_mode_is_a_lab_that_can_be_and_is_known_again() -> None:
    found = {variant.name: variant.config for variant in SCENARIO.variants(CONFIG)}
    assert list(found) == list(MODES)
    for name, config in found.items():
        assert _mode_of(config) is MODES[name]
        assert set(MODES[name].limits) <= set(MODES[name].events)
        assert bool(parts(config, Choices()).routers) == (name == "tor-bfd")


@pytest.mark.parametrize(
    ("event", "found", "limit", "said"),
    [
        ("link down", [Outage(5, 0.006)], 0.05, []),
        ("link down", [Outage(5, 0.006), Outage(70, 0.071)], 0.05, []),
        ("link down", [Outage(60, 0.06)], 0.05, ["link down: 60 ms without traffic, not under 50"]),
        ("leaf dead", [Outage(1200, 1.2)], None, []),
        ("leaf dead", [Outage(1200, None)], None, ["leaf dead: traffic did not come back"]),
        ("controller dead", [Outage(0, 0.0), Outage(3, 0.001)], None, ["controller dead: 3 packets lost, not 0"]),
    ],
)
def test_what_was_missed_is_said(event: str, found: list[Outage], limit: float | None, said: list[str]) -> None:
    assert list(_missed(event, found, limit)) == said

"""What --option says is read or refused before there is a lab, in words that say what was expected."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scenarios.connection_churn import ConnectionChurn
from scenarios.incast import Incast
from scenarios.lab.options import number, numbers
from scenarios.latency_under_load import LatencyUnderLoad
from scenarios.multi_tenant import MultiTenant
from scenarios.virtual_devices import VirtualDevices
from topo import labfile
from topo.cluster.errors import InputError


def test_one_number_is_no_list() -> None:
    assert number({"rate": "10"}, "rate", 1) == 10 and numbers({"rate": "10,20"}, "rate", 1) == (10, 20)
    for text in ("10,20", "0", "", "1.5", "-1", "many"):
        with pytest.raises(InputError, match=r"--option rate=.*expected 1 or more"):
            number({"rate": text}, "rate", 1)


def planned(scenario: Any, **wanted: str) -> Any:
    config = replace(labfile.default_config(3), scenario={**scenario.options, **wanted})
    return scenario.variants(config) if hasattr(scenario, "variants") else scenario.plan(config)


@pytest.mark.parametrize(
    ("scenario", "key", "text"),
    [
        (ConnectionChurn(), "ports", "1,2"),
        (ConnectionChurn(), "ports", "25537"),
        (ConnectionChurn(), "rates", "fast"),
        (Incast(), "bytes", "1,2"),
        (Incast(), "senders", "0"),
        (LatencyUnderLoad(), "rate", "1,2"),
        (LatencyUnderLoad(), "queues", "long"),
        (MultiTenant(), "seconds", "0"),
        (MultiTenant(), "cases", "loud"),
        (VirtualDevices(), "devices", "wire"),
        (VirtualDevices(), "offload", "half"),
    ],
)
def test_what_is_no_option_is_refused_and_the_rest_gives_a_plan(scenario: Any, key: str, text: str) -> None:
    assert planned(scenario)
    with pytest.raises(InputError, match=f"--option {key}={text}"):
        planned(scenario, **{key: text})

"""What the policy scenario makes of the times at which answers came."""

from __future__ import annotations

import pytest

from scenarios.policy_cost import STAY, PolicyCost, until
from topo import labfile


def test_the_last_answer_before_and_the_first_after_a_policy_is_there() -> None:
    answers = [0.999, 1.000, 1.010, 1.020, 1.405, 1.406, 1.9]
    denied, allowed = until(answers, [(1.0, 1.0 + STAY)])
    assert denied == (pytest.approx(20),) and allowed == (pytest.approx(5),)


def test_a_policy_that_takes_effect_at_once_took_no_time() -> None:
    assert until([0.999, 1.41], [(1.0, 1.4)])[0] == (0.0,)


def test_a_policy_that_was_never_in_force_gives_nothing() -> None:
    answers = [1.0 + i / 1000 for i in range(900)]
    assert until(answers, [(1.0, 1.0 + STAY)]) == ((), ())


def test_one_whose_connections_never_come_again_is_only_denied() -> None:
    assert until([1.001, 2.5], [(1.0, 1.4)]) == ((pytest.approx(1),), ())


def test_a_cni_that_enforces_nothing_is_replaced_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    config, objects = PolicyCost().plan(labfile.default_config(1))
    assert config.cni == "calico" and "CNI flannel enforces no policies" in capsys.readouterr().err
    assert len({(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects}) == 4 + 2 + 6

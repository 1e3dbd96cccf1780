"""The example of docs/results.md, run as it stands there by the plugin, and its assertion in both ways."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from running import ROOT

(EXAMPLE,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "results.md").read_text(), re.DOTALL)
# What must not pass: a path that is ten times as slow as it was, a pod that is not there, a baseline nobody knows.
MORE = """

def test_slower(lab, address, assert_no_regression):
    lab.apply(SHOP)
    measured = lab.measure("tcp_rr", "caller", "shop", address=address, beside=("caller", "shop"), repeats=5)
    assert len(measured.ratios) >= 3 and measured.unit == "us"
    assert_no_regression(measured, 0.1, 0.0)


def test_nobody(lab):
    lab.exec("nobody", "true")


def test_unknown(lab, assert_no_regression):
    assert_no_regression(lab.measure("tcp_rr", "caller", "shop", repeats=3), "unheard")
"""


def test_the_example_of_the_page_holds_and_what_must_fail_fails(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(EXAMPLE + MORE)
    (tmp_path / "results" / "baseline").mkdir(parents=True)
    (tmp_path / "results" / "baseline" / "ratios.yaml").write_text("service-tcp_rr: 5.0\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    # By its module, so that it is this checkout's whatever is installed.
    plugin = ("-p", "no:mininetes", "-p", "scenarios.testing.plugin", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, "-v", "--tb=short", "test_shop.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    verdicts = dict(re.findall(r"::(\w+) (PASSED|FAILED|ERROR)", done.stdout))
    assert verdicts == {
        "test_the_shop_answers": "PASSED",
        "test_its_service_is_not_slower_than_it_was": "PASSED",
        "test_without_its_pod_connections_are_refused": "PASSED",
        "test_slower": "FAILED",
        "test_nobody": "FAILED",
        "test_unknown": "FAILED",
    }, done.stdout + done.stderr
    assert re.search(r"tcp_rr: [0-9.]+ times .* baseline 0\.10, tolerance 0%: slower", done.stdout)
    assert "there is no such pod" in done.stdout
    assert "has no baseline 'unheard' for datapath" in done.stdout

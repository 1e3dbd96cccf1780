"""The examples of docs/extending.md, run as they stand there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import MANIFESTS, ROOT, RunningLab, StartLab, mininetes

from scenarios.report import schema

EXAMPLES = re.findall(r"```python\n(\"\"\"(\w+):.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every example of the page."""
    folder = tmp_path_factory.mktemp("plugins")
    for text, name in EXAMPLES:
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def lab(start_lab: StartLab, plugins: Path) -> RunningLab:
    """A lab on the page's CNI and proxy mode."""
    chosen = ("--plugins", str(plugins), "--cni", "hostgw", "--proxy", "first")
    return start_lab(*chosen, str(MANIFESTS / "guestbook.yaml"))


def test_the_page_has_the_three_examples() -> None:
    assert [name for _, name in EXAMPLES] == ["hostgw", "first", "handshake"]


def test_list_names_them(plugins: Path) -> None:
    found = json.loads(mininetes("list", "--json", "--plugins", str(plugins)).stdout)
    assert "hostgw static" in found["cni"] and "first" in found["proxy"] and "handshake" in found["scenarios"]


def test_the_cni_carries_packets_between_all_nodes(lab: RunningLab) -> None:
    pods = [p for p in lab.status()["pods"] if p["namespace"] == "default"]
    assert len({p["node"] for p in pods}) == 3
    for pod in pods:
        assert "1 received" in lab.exec(pods[0]["name"], "ping", "-c", "1", "-W", "2", pod["ip"])


def test_the_proxy_mode_sends_every_connection_to_the_first_endpoint(lab: RunningLab) -> None:
    service = next(s for s in lab.status()["services"] if s["name"] == "frontend")
    first = next(p["name"] for p in lab.status()["pods"] if p["ip"] == service["endpoints"][0])
    url = f"http://{service['clusterIP']}/"
    answers = [json.loads(lab.exec("redis-master", "curl", "-s", "-m", "2", url))["pod"] for _ in range(5)]
    assert answers == [first] * 5


def test_the_scenario_measures_and_saves_and_says_that_the_machine_was_busy(plugins: Path, tmp_path: Path) -> None:
    saved = ("--results", str(tmp_path), "--json")
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        done = mininetes("run", "handshake", "--plugins", str(plugins), "--repeats", "2", *saved)
    finally:
        busy.kill()
        busy.wait()
    assert done.returncode == 0, done.stderr
    (measured,) = json.loads(done.stdout)["measurements"]
    assert measured["name"] == "tcp_crr" and measured["summary"]["p50"] > 0 and len(measured["repeats"]) == 2
    (folder,) = tmp_path.iterdir()
    reports = {"report.html", "report.md"}
    assert reports | {"result.json", "samples.csv", "latency.svg"} <= {f.name for f in folder.iterdir()}
    document = json.loads((folder / "result.json").read_text())
    schema.check(document, "result.json")
    doubt = next(text for text in document["warnings"] if text.startswith("Other programs took"))
    assert all(doubt in (folder / name).read_text() for name in reports)
    assert 0 < document["environment"]["veth_rr_us"][0] < measured["summary"]["p50"]
    machines = {m["name"]: m["pods"] for m in document["lab"]["topology"]["machines"]}
    assert "default/client" in machines["worker"] and "default/server" in machines["worker2"]


def test_what_needs_bgp_says_that_the_cni_has_none(lab: RunningLab) -> None:
    done = lab.ask("routes", "worker", ok=False)
    assert done.returncode == 2 and "CNI hostgw speaks no BGP" in done.stderr


def test_packets_do_what_its_traits_say(plugins: Path, tmp_path: Path) -> None:
    words = ("--plugins", str(plugins), "--option", "cnis=hostgw", "--results", str(tmp_path), "--json")
    done = mininetes("run", "cni-traits", *words, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    assert all(row[0] == "hostgw static" for row in json.loads(done.stdout)["tables"][0]["rows"])


def test_the_kernel_routes_for_it_too(start_lab: StartLab, plugins: Path) -> None:
    manifest = str(MANIFESTS / "guestbook.yaml")
    other = start_lab("--plugins", str(plugins), "--cni", "hostgw", "--proxy", "kernel-nftables", manifest)
    service = next(s["clusterIP"] for s in other.status()["services"] if s["name"] == "frontend")
    assert "pod" in json.loads(other.exec("redis-master", "curl", "-s", "-m", "5", f"http://{service}/"))

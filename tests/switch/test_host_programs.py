"""Programs in a host's namespaces, wherever they are started from."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenarios.measure.place import Place, run
from topo.hosts import Host
from topo.system import here_or_root

pytestmark = pytest.mark.as_root


def test_they_run_where_the_callers_folder_is_covered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    host = Host("covered")
    try:
        assert here_or_root(host.pid) == str(tmp_path / "here")
        host.run("mount", "-t", "tmpfs", "tmpfs", str(tmp_path))
        assert here_or_root(host.pid) == "/"
        assert host.run("pwd") == "/\n"
        assert host.start_daemon("true").wait(10) == 0
    finally:
        host.end()


def test_they_run_where_the_callers_folder_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "removed").mkdir()
    monkeypatch.chdir(tmp_path / "removed")
    (tmp_path / "removed").rmdir()
    host = Host("removed")
    try:
        place = Place("removed", host.pid, "")
        assert run(place, ["pwd"], 10) == "/\n"
    finally:
        host.end()

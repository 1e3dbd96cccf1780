"""BIRD as a process of a node: its end leaves nothing that the next BIRD of that folder could take for its own."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import views

from controllers.bgp.daemon import Bird

# Ends when it likes: what BIRD needs to take leave of its neighbours, without end.
STUBBORN = "#!/bin/sh\ntrap '' TERM\necho ready\nwhile :; do read line; done\n"


def test_when_it_is_closed_it_has_ended_with_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controllers.bgp.daemon._GOODBYE", 0.2)
    program = tmp_path / "bird"
    program.write_text(STUBBORN)
    program.chmod(0o755)
    process = subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        (tmp_path / "bird.pid").write_text(str(process.pid))
        (tmp_path / "bird.ctl").touch()
        Bird(process.pid, tmp_path).close()
        assert process.poll() == -9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bird"]


def test_one_that_ended_just_before_is_waited_for(tmp_path: Path) -> None:
    bird = Bird(0, tmp_path)
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as process:
        bird._process = process
        bird.close()
        assert process.returncode == 0


def test_a_node_that_is_gone_is_waited_for_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    view = views.cluster("calico")["node-1"]
    view = replace(view, lab=replace(view.lab, options={"cni": {"speaker": "bird"}}))
    bird = Bird(gone.pid, tmp_path)
    monkeypatch.setattr(bird, "_feed", lambda *_: None)
    with pytest.raises(RuntimeError, match="node-1 is gone"):
        bird.sync(view)

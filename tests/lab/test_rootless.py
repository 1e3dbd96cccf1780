"""An ordinary user runs labs too, in a user namespace; where the machine forbids it, one line says what to change."""

from __future__ import annotations

import shlex
import shutil
import sys

import pytest
from running import COMMAND, as_ordinary_user, where_changed

from scenarios.measure import fileservers
from topo import platform

UP = f"{shlex.join(COMMAND)} up --lab ordinary"


def test_an_ordinary_user_runs_a_lab() -> None:
    done = as_ordinary_user(
        "sh",
        "-ec",
        f"""
        m="{shlex.join(COMMAND)}"
        trap "$m down --lab ordinary" EXIT
        $m up --detach --lab ordinary --nodes 2 --datapath auto scenarios/data/manifests/guestbook.yaml
        address=$($m status --lab ordinary --json | {sys.executable} -c '
import json, sys
print(next(s["clusterIP"] for s in json.load(sys.stdin)["services"] if s["name"] == "frontend"))')
        $m exec --lab ordinary redis-master -- curl -s -m 3 http://$address/
        $m capture --lab ordinary worker--leaf-2 -w - -c 1 --filter icmp > /dev/null &
        while kill -0 $! 2> /dev/null; do $m exec --lab ordinary worker -- ping -c 1 -W 1 172.18.0.2 > /dev/null; done
        wait $!
        """,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert '"pod": "frontend-' in done.stdout and "lab ordinary is down" in done.stdout


FILES = """
import tempfile
from pathlib import Path
from scenarios.measure import downloads, suite
from scenarios.measure.fileservers import PORTS, prepare, serving_files
with tempfile.TemporaryDirectory() as own, suite.baseline_places() as (client, server):
    folder = prepare(Path(own) / "files", 100_000)
    for kind in PORTS:
        with serving_files(kind, server, folder):
            ends = client, server.address
            print(kind, (downloads.by_scp(*ends, folder) if kind == "scp" else downloads.by_curl(*ends, kind)).values)
"""


def test_real_servers_of_files_need_no_root() -> None:
    """In the namespaces that a lab without root has, with the PATH that the command line gives it."""
    if missing := [name for name in platform.DOWNLOADS if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    own = "unshare --user --map-root-user --net --mount --pid --fork --mount-proc"
    done = as_ordinary_user("sh", "-c", f"PATH=$PATH:/usr/sbin {own} {sys.executable} - <<'END'\n{FILES}END")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(fileservers.PORTS)
    assert all(float(line.split()[1].strip("(),")) > 0 for line in done.stdout.splitlines())


def test_without_the_tun_device_one_line_says_what_to_do() -> None:
    done = where_changed("mount -t tmpfs none /dev/net; touch /dev/net/tun; chmod 0 /dev/net/tun", UP)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "chmod 0666 /dev/net/tun" in done.stderr


def test_without_the_right_to_make_namespaces_one_line_says_what_to_do() -> None:
    done = where_changed("echo 1 > /proc/sys/user/max_user_namespaces", UP)  # and that is the user's own
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "sudo sysctl " in done.stderr, done.stderr
    assert "user.max_user_namespaces=10000" in done.stderr


def test_doctor_works_for_an_ordinary_user() -> None:
    done = as_ordinary_user(*COMMAND, "doctor")
    assert done.returncode == 0 and "in a user namespace" in done.stdout

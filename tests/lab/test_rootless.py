"""An ordinary user runs labs too, in a user namespace; where the machine forbids it, one line says what to change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable

import pytest
from running import MANIFESTS, ROOT

from scenarios.measure import fileservers
from topo import platform

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")
PYTHON = "/usr/bin/python3"
# Large packages that no lab imports.
NOT_NEEDED = ("matplotlib*", "numpy*", "PIL*", "fontTools*", "mypy*", "ruff*", "hypothesis*", "*.pyc")
Run = Callable[[str, str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def as_nobody(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a shell script as an ordinary user, with a copy of the checkout, after a first part as root.

    Both parts have a mount namespace of their own, so that what they do to /dev/net/tun stays there.
    """
    if os.getuid() != 0:
        pytest.skip("the tests run as an ordinary user already")
    if sys.version_info[:2] != _version(PYTHON):
        pytest.skip(f"{PYTHON} is another Python than {sys.executable}, whose packages it would need")
    tmp_path = tmp_path_factory.mktemp("nobody")
    for folder in ("topo", "controllers", "scenarios"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    packages = tmp_path / "packages"
    shutil.copytree(sysconfig.get_path("purelib"), packages, ignore=shutil.ignore_patterns(*NOT_NEEDED))
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_mode & 0o1000:  # the world's own /tmp; pytest's folders below it are private
            break
        path.chmod(path.stat().st_mode | 0o055)
    # Debian's ordinary users have no sbin in PATH (login.defs(5), ENV_PATH).
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": f"{tmp_path}:{packages}",
        "HOME": str(tmp_path),
    }

    def run(prepare: str, script: str) -> subprocess.CompletedProcess[str]:
        user = tmp_path / "script.sh"
        user.write_text(script)
        both = f"set -e\n{prepare}\nexec {' '.join(NOBODY)} sh {user}\n"
        command = ["unshare", "--mount", "sh", "-c", both]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False
        )

    return run


def _version(python: str) -> tuple[int, ...]:
    shown = subprocess.run([python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
    return tuple(map(int, shown.stdout.split()))


OPEN_TUN = "rm -f tun; mknod tun c 10 200; chmod 666 tun; mount --bind tun /dev/net/tun"
CLOSED_TUN = "rm -f tun; mknod tun c 10 200; chmod 600 tun; mount --bind tun /dev/net/tun"


def test_an_ordinary_user_runs_a_lab(as_nobody: Run) -> None:
    done = as_nobody(
        OPEN_TUN,
        f"""
        set -e
        m="{PYTHON} -m scenarios"
        $m up --detach --lab mine --nodes 2 --datapath auto scenarios/data/manifests/guestbook.yaml
        address=$($m status --lab mine --json | {PYTHON} -c '
import json, sys
print(next(s["clusterIP"] for s in json.load(sys.stdin)["services"] if s["name"] == "frontend"))')
        $m exec --lab mine redis-master -- curl -s -m 3 http://$address/
        $m capture --lab mine worker--leaf-2 -w - -c 1 --filter icmp > /dev/null &
        while kill -0 $! 2> /dev/null; do $m exec --lab mine worker -- ping -c 1 -W 1 172.18.0.2 > /dev/null; done
        wait $!
        $m down --lab mine
        """,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert '"pod": "frontend-' in done.stdout and "lab mine is down" in done.stdout
    assert (MANIFESTS / "guestbook.yaml").exists()


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


def test_real_servers_of_files_need_no_root(as_nobody: Run) -> None:
    """In the namespaces that a lab without root has, with the PATH that the command line gives it."""
    if missing := [name for name in platform.DOWNLOADS if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    own = "unshare --user --map-root-user --net --mount --pid --fork --mount-proc"
    done = as_nobody("true", f"PATH=$PATH:/usr/sbin {own} {PYTHON} - <<'END'\n{FILES}END")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(fileservers.PORTS)
    assert all(float(line.split()[1].strip("(),")) > 0 for line in done.stdout.splitlines())


def test_without_the_tun_device_one_line_says_what_to_do(as_nobody: Run) -> None:
    done = as_nobody(CLOSED_TUN, f"{PYTHON} -m scenarios up --lab mine")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "chmod 0666 /dev/net/tun" in done.stderr


def test_doctor_works_for_an_ordinary_user(as_nobody: Run) -> None:
    done = as_nobody(OPEN_TUN, f"{PYTHON} -m scenarios doctor")
    assert done.returncode == 0 and "in a user namespace" in done.stdout

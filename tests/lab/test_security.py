"""What a hostile manifest, another user and a stranger on the network can do to a lab: nothing."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import RunningLab, StartLab, mininetes

# What a shell, a path, a terminal, rich, HTML, Jinja, Markdown and nginx would each take for something.
TEXT = (
    '"; $(touch {0}) `touch {0}` | touch {0} #\\ ../../../{0} [red]x[/red] <script>x</script> {{{{7*7}}}} [a](b) :bomb:'
)
# What would be a directive of nginx's if it were not a path.
PATH = '/"; return 200 "answered'
# Every network namespace of the lab's processes: the programs that live in it, and where it listens.
LISTENING = """
import glob, json, os, socket, struct
found = {}
for folder in glob.glob("/proc/[0-9]*"):
    try:
        place = os.readlink(folder + "/ns/net")
        words = open(folder + "/cmdline").read().split(chr(0))
        ports = found.setdefault(place, {"programs": [], "ports": []})
        ports["programs"].append(" ".join(words).strip())
        if ports["ports"]:
            continue
        for kind, state in (("tcp", "0A"), ("udp", "07"), ("tcp6", "0A"), ("udp6", "07")):
            for line in open(folder + "/net/" + kind).read().splitlines()[1:]:
                words = line.split()
                if words[3] == state:
                    address, port = words[1].split(":")
                    if "6" not in kind:
                        address = socket.inet_ntoa(struct.pack("<I", int(address, 16)))
                    ports["ports"].append([kind, address, int(port, 16)])
    except (OSError, KeyError):
        pass
print(json.dumps(list(found.values())))
"""


def hostile(mark: Path) -> list[dict[str, Any]]:
    """Everything that takes free text, with such a text; what must be a name cannot have it (the next test)."""
    text = TEXT.format(mark)
    probe = {"path": f"/{text}", "port": 8080, "httpHeaders": [{"name": "X", "value": text}]}
    container = {
        "name": "c",
        "image": text,
        "command": [text],
        "args": [text],
        "env": [{"name": "A", "value": text}],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": probe},
    }
    meta = {"name": "hostile", "labels": {"app": "hostile"}, "annotations": {"note": text}}
    spec = {"serviceAccountName": text, "schedulerName": "default-scheduler", "containers": [container]}
    port = {"port": 80, "targetPort": 8080, "appProtocol": text}
    backend = {"service": {"name": "hostile", "port": {"number": 80}}}
    made = {"name": "made", "labels": {"kubernetes.io/service-name": "hostile"}, "annotations": {"a": text}}
    service = {"selector": meta["labels"], "ports": [port]}
    way = {"path": PATH, "pathType": "Prefix", "backend": backend}
    end = {"addresses": ["192.0.2.1"], "zone": text, "targetRef": {"kind": text, "name": text}}
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": meta,
            "spec": {"rules": [{"host": "hostile.example", "http": {"paths": [way]}}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": made,
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 80}],
            "endpoints": [end],
        },
        # Of a kind that is ignored nothing is checked, and its name is shown.
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"\x1b[2J{text}"}},
    ]


@pytest.fixture(scope="module")
def mark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that nobody makes unless a text was run."""
    return tmp_path_factory.mktemp("security") / "made-by-a-text"


@pytest.fixture(scope="module")
def lab(start_lab: StartLab) -> RunningLab:
    return start_lab("--nodes", "2", "--cni", "calico", "--ingress")


def test_free_text_is_run_nowhere_and_shown_as_it_is(lab: RunningLab, mark: Path, tmp_path: Path) -> None:
    file = tmp_path / "hostile.yaml"
    file.write_text(yaml.safe_dump_all(hostile(mark)))
    done = lab.ask("apply", "-f", str(file), "--wait", "30")
    assert "\x1b" not in done.stderr and f"\\x1b[2J{TEXT.format(mark)}" in done.stderr
    pod = lab.pod("hostile")
    assert pod["ready"]
    address = next(s["external"][0] for s in lab.status()["services"] if s["name"] == "ingress-nginx-controller")
    head = ("curl", "-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: hostile.example")
    lab.eventually(lambda: lab.exec("client", *head, f"http://{address}/other", ok=False) == "404")
    quoted = PATH.replace('"', "%22").replace(" ", "%20")
    lab.eventually(lambda: lab.exec("client", *head, f"http://{address}{quoted}", ok=False) == "200")
    shown = lab.ask("status").stdout
    assert "hostile" in shown and "\x1b" not in shown
    assert not mark.exists() and not list(Path.cwd().glob("made-by-a-text*"))
    for machine in ("worker", "hostile"):
        assert lab.exec(machine, "sh", "-c", f"ls {mark} /made-by-a-text 2>/dev/null | wc -l").strip() == "0"


@pytest.mark.parametrize(
    ("kind", "name"),
    [("Pod", "../../x"), ("Service", "$(id)"), ("Namespace", "[red]x"), ("Node", "a;b"), ("Node", "n" * 64)]
    + [("Node", "leaf-1"), ("Node", "client"), ("Node", "api.sock"), ("Pod", "a\nb"), ("Secret", "-rf")],
)
def test_a_name_that_is_none_is_refused_in_one_line(lab: RunningLab, tmp_path: Path, kind: str, name: str) -> None:
    spec = {"Pod": {"containers": [{"name": "c", "image": "x"}]}, "Service": {"ports": [{"port": 80}]}}.get(kind, {})
    thing = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **({"spec": spec} if spec else {})}
    file = tmp_path / "name.yaml"
    file.write_text(yaml.safe_dump(thing))
    done = lab.ask("apply", "-f", str(file), ok=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "metadata.name" in done.stderr
    assert name not in [node["name"] for node in lab.status()["nodes"]]


def test_a_lab_listens_only_where_its_own_pods_and_nodes_are(lab: RunningLab) -> None:
    found = json.loads(lab.exec("worker", "python3", "-c", LISTENING))
    listening = [(place["programs"], {(kind, port) for kind, _, port in place["ports"]}) for place in found]
    for programs, ports in listening:
        if any("-m controllers" in one for one in programs):
            # The lab's own processes have a network of their own with no way into it.
            assert ports == set(), (programs, ports)
        elif any("ovs-vswitchd" in one for one in programs):
            # A node has what Services ask it to have: health check ports.
            assert all(kind == "tcp" and port in range(30000, 32768) for kind, port in ports), (programs, ports)
        else:
            # Pods and the machine outside: DNS and whether it is ready, the stand-in's container port, nginx.
            known = {("udp", 53), *(("tcp", port) for port in (53, 80, 443, 8080, 8181, 10254))}
            assert ports <= known, (programs, ports)
    assert sum(("udp", 53) in ports for _, ports in listening) == 3  # two DNS pods, the resolver of the world


def test_nothing_of_a_lab_listens_on_this_machine(lab: RunningLab) -> None:
    mine = f"mininetes/{os.getuid()}/{lab.name}"
    names = {line.split(" ")[-1] for line in Path("/proc/net/unix").read_text().splitlines()}
    assert f"@{mine}" in names
    assert not [name for name in names if "/run/mininetes" in name]
    before = _inodes()
    for folder in Path("/proc").glob("[0-9]*"):
        if _is_of(folder, lab.name):
            assert not before & _sockets(folder), folder
    assert not Path("/run/mininetes").exists() or not list(Path("/run/mininetes").iterdir())


def _inodes() -> set[str]:
    """Of what listens for TCP or takes UDP in the network that this test is in."""
    found = set()
    for kind, state in (("tcp", "0A"), ("udp", "07"), ("tcp6", "0A"), ("udp6", "07")):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == state:
                found.add(words[9])
    return found


def _sockets(folder: Path) -> set[str]:
    found = set()
    for path in (folder / "fd").iterdir():
        target = str(path.readlink())
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def _is_of(folder: Path, lab: str) -> bool:
    try:
        return lab in (folder / "cmdline").read_text()
    except OSError:
        return False


def test_who_listens_at_the_labs_address_as_another_user_is_told_nothing() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can act as another user")
    name = f"squat-{os.getpid()}"
    script = (
        "import socket; s = socket.socket(socket.AF_UNIX); "
        f"s.bind('\\0mininetes/{os.getuid()}/{name}'); s.listen(); print('ready', flush=True); "
        "c, _ = s.accept(); print(c.recv(1000))"
    )
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        done = mininetes("status", "--lab", name)
        assert done.returncode == 2 and "another user listens at its address" in done.stderr
        assert other.communicate(timeout=5)[0] == "b''\n"


def test_the_command_line_shows_what_it_is_given(tmp_path: Path) -> None:
    done = mininetes("status", "--lab", "\x1b[31m[red]x[/red]")
    assert done.returncode == 2 and "\x1b" not in done.stderr and "[red]x[/red]" in done.stderr

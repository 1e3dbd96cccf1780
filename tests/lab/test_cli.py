"""Bad input is one line and status 2, and nothing is left; data for programs is data."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from running import MANIFESTS, RunningLab, StartLab, mininetes

from topo import platform

LAB = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p@NOTES@}\nspec: {@SPEC@containers: [{name: c, image: x}]}\n"
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: @IP@, ports: [{port: 80}]}\n"
VERBS = [
    "apply",
    "capture",
    "controller",
    "delete",
    "doctor",
    "down",
    "exec",
    "flows",
    "list",
    "run",
    "status",
    "switch",
    "up",
]


def pod(notes: str = "", spec: str = "") -> str:
    return POD.replace("@NOTES@", notes and f", annotations: {{{notes}}}").replace("@SPEC@", spec)


FILES = {
    "not YAML": ("a: [1\n", "expected"),
    "a tab": ("kind:\tPod\n\tx: 1\n", ":"),
    "no kind": ("apiVersion: v1\n", "kind"),
    "wrong type": (POD.replace("{name: p@NOTES@}", "{name: 7}").replace("@SPEC@", ""), "name"),
    "unknown field": (pod(spec="nodename: worker, "), "nodename"),
    "a name twice": (pod() + "---\n" + pod(), "twice"),
    "unknown node": (pod(spec="nodeName: nowhere, "), "there is no node 'nowhere'"),
    "program missing": (pod('"mininetes.dev/command": "no-such-program -x"'), "not installed here"),
    "words not closed": (pod('"mininetes.dev/command": "echo \'x"'), "cannot be split"),
    "address outside": (SERVICE.replace("@IP@", "192.0.2.1"), "no address of the Service subnet"),
    "unknown key of the lab": (LAB + "mininetes: {fabrik: {}}\n", "fabrik"),
    "overlapping subnets": (LAB + "networking: {podSubnet: 10.96.0.0/16}\n", "overlap"),
    "subnet too small": (LAB + "networking: {podSubnet: 10.244.0.0/24}\n", "podSubnet"),
    "unknown CNI": (LAB + "mininetes: {cni: kilo}\n", "unknown CNI 'kilo'"),
    "unknown option of the CNI": (LAB + "mininetes: {cni: {name: calico, colour: red}}\n", "no such option"),
    "unknown proxy mode": (LAB + "networking: {kubeProxyMode: magic}\n", "unknown proxy mode 'magic'"),
    "a link that is none": (LAB + "mininetes: {fabric: {links: {leaf-1--leaf-2: {mtu: 1400}}}}\n", "leaf-1--leaf-2"),
}
FLAGS = {
    "unknown scenario": (("run", "nothing"), "unknown scenario 'nothing'"),
    "no repeats": (("run", "quickstart", "--repeats", "0"), "nothing would be measured"),
    "no nodes": (("up", "--nodes", "0"), "--nodes"),
    "unknown CNI": (("up", "--cni", "kilo"), "one of: calico, canal, cilium"),
    "no file": (("up", "/nonexistent.yaml"), "/nonexistent.yaml"),
    "no application": (("up", "--controller", "/nonexistent.py"), "no such file"),
    "no folder": (("up", "--plugins", "/nonexistent"), "no such folder"),
    "bad name of a lab": (("up", "--lab", "Ä"), "is no lab's name"),
    "no such lab": (("status", "--lab", "never-started"), "no such lab is running"),
    "nothing to delete": (("delete",), "names no object"),
    "no command": (("exec", "pod"), "there is no command"),
}


def refused(*arguments: str, words: str) -> None:
    done = mininetes(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("ignored: ")]
    assert len(lines) == 1 and lines[0].startswith("mininetes: ") and words in lines[0], done.stderr
    assert not done.stdout


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    text, words = FILES[name]
    file = tmp_path / "input.yaml"
    file.write_text(text)
    refused("up", "--lab", f"refused-{os.getpid()}", str(file), words=words)


@pytest.mark.parametrize("name", FLAGS)
def test_a_bad_flag_is_refused_in_one_line(name: str) -> None:
    arguments, words = FLAGS[name]
    refused(*arguments, words=words)


def test_a_plugin_that_is_not_python_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("CNI = (\n")
    refused("up", "--plugins", str(tmp_path), words="bad.py")


def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    done = mininetes("up", env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == 2 and "sudo apt-get install" in done.stderr and "openvswitch-switch" in done.stderr


def test_what_the_kernel_lacks_is_said_and_not_skipped(tmp_path: Path) -> None:
    if next(f.there for f in platform.findings() if f.part == "sch_netem"):
        pytest.skip("this kernel has sch_netem, so a link delay is not refused")
    file = tmp_path / "lab.yaml"
    file.write_text(LAB + "mininetes: {fabric: {link: {delay: 1ms}}}\n")
    refused("up", "--lab", f"delay-{os.getpid()}", str(file), words="link delay and loss need sch_netem")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = mininetes(verb, "--help")
    assert done.returncode == 0 and f"example:\n  mininetes {verb}" in done.stdout


@pytest.fixture(scope="module")
def lab(start_lab: StartLab) -> RunningLab:
    return start_lab("--nodes", "2", str(MANIFESTS / "guestbook.yaml"))


def test_a_running_lab_refuses_in_one_line_too_and_goes_on(lab: RunningLab, tmp_path: Path) -> None:
    refused("up", "--lab", lab.name, words="is running already")
    for arguments, words in (
        (("exec", "nobody", "--", "true"), "there is no such pod"),
        (("flows", "nowhere"), "there is no such machine"),
        (("flows", "worker", "--table", "Nothing"), "has no such table"),
        (("capture", "a--b", "-w", str(tmp_path / "x")), "there is no such link"),
        (("delete", "pod", "nobody"), "there is no such object"),
        (("delete", "thing", "x"), "unknown kind"),
    ):
        done = lab.ask(*arguments, ok=False)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    changed = (MANIFESTS / "guestbook.yaml").read_text().replace("tier: frontend", "tier: changed")
    file = tmp_path / "changed.yaml"
    file.write_text(changed)
    assert "cannot be changed" in lab.ask("apply", "-f", str(file), ok=False).stderr
    assert len(lab.status()["pods"]) == 8  # the two of the DNS too


def test_data_for_programs(lab: RunningLab) -> None:
    assert {"lab", "nodes", "pods", "services", "warnings", "controller"} <= set(lab.status())
    assert {"table", "flow", "packets", "owner"} <= set(lab.json("flows", "worker")[0])
    assert {"revision", "set", "removed", "text"} <= set(lab.json("flows", "worker", "--diff"))
    assert lab.json("controller", "restart")["pid"] > 0
    found = json.loads(mininetes("list", "--json").stdout)
    vxlan, bgp = found["cni"]["flannel vxlan"], found["cni"]["calico bgp"]
    assert (vxlan["overhead"], vxlan["mtu_on_1500"], vxlan["policy"]) == (50, 1450, [])
    assert (bgp["overhead"], bgp["mtu_on_1500"], bgp["policy"]) == (0, 1500, ["ingress", "egress"])
    assert "quickstart" in found["scenarios"] and "ovs" in found["proxy"]
    assert all({"part", "there", "remedy"} <= set(f) for f in json.loads(mininetes("doctor", "--json").stdout))


def test_another_user_is_not_heard(lab: RunningLab) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can act as another user")
    script = (
        "import contextlib, socket; s = socket.socket(socket.AF_UNIX)\n"
        f"s.connect('\\0mininetes/{os.getuid()}/{lab.name}')\n"
        "with contextlib.suppress(BrokenPipeError):\n"  # nothing of it is read
        '    s.sendall(b\'{"verb": "down"}\\n\')\n'
        "print(s.recv(1000).decode())"
    )
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert "belongs to another user" in done.stdout
    assert len(lab.status()["pods"]) == 8  # the two of the DNS too


def test_a_lab_is_down_in_no_time(lab: RunningLab) -> None:
    assert lab.json("down")["seconds"] < 2

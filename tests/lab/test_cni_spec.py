"""The CNI specification: labs with the reference plugins and with ours, and plugins called as programs by a stranger.

The configurations are those of docs/cni-plugins.md. Statements that need no lab are in tests/unit/test_cni_*.py.
"""

from __future__ import annotations

import ast
import json
import random
import re
import sys
import uuid
from collections import Counter
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import ROOT, RunningLab, StartLab, mininetes

REFERENCE = Path("/usr/lib/cni")
PAGE = (ROOT / "docs" / "cni-plugins.md").read_text()
EXAMPLES = dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
STRANGER = Path(__file__).with_name("cni_stranger.py")
MORE = """
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec: {nodeName: worker, containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
"""

pytestmark = pytest.mark.skipif(
    not (REFERENCE / "bridge").exists(), reason="no reference plugins: apt-get install containernetworking-plugins"
)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, and a pod more."""
    folder = tmp_path_factory.mktemp("cni")
    for name, text in EXAMPLES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text + (MORE if name == "pods.yaml" else ""))
    return folder


@pytest.fixture(scope="module")
def lab(start_lab: StartLab, examples: Path) -> RunningLab:
    """bridge, host-local, portmap, bandwidth and tuning, as Debian has them."""
    return start_lab("--no-dns", str(examples / "lab.yaml"))


@pytest.fixture(scope="module")
def own(start_lab: StartLab, examples: Path) -> RunningLab:
    """Our plugin on the nodes' switches, portmap chained to it."""
    chosen = ("--no-dns", "--cni", "conflist", "--cni-option", f"confDir={examples / 'own'}", "--nodes", "2")
    return start_lab(*chosen, str(examples / "pods.yaml"))


def http(lab: RunningLab, client: str, url: str) -> dict[str, Any]:
    return dict(json.loads(lab.exec(client, "curl", "-s", "-m", "3", f"http://{url}/")))


def node_of(lab: RunningLab, name: str) -> dict[str, Any]:
    return next(n for n in lab.status()["nodes"] if n["name"] == name)


def listed(lab: RunningLab, node: str, folder: str) -> list[str]:
    return sorted(lab.exec(node, "ls", f"/run/mininetes/{node}/cni/{folder}", ok=False).split())


def asked(lab: RunningLab, *arguments: str) -> list[dict[str, Any]]:
    """`mininetes cni` and what it says, whatever its exit status."""
    done = lab.ask("cni", "--json", *arguments, ok=False)
    found = json.loads(done.stdout)
    assert done.returncode == (0 if all(one["ok"] for one in found) else 1)
    return list(found)


def test_the_page_has_complete_examples() -> None:
    assert set(EXAMPLES) == {"lab.yaml", "net.d/10-bridge.conflist", "pods.yaml", "own/10-own.conflist"}


def test_every_statement_of_the_specification_is_tested() -> None:
    written = yaml.safe_load((ROOT / "tests/data/cni/spec-1.1-statements.yaml").read_text())["statements"]
    covered: set[str] = set()
    for file in (Path(__file__), *(ROOT / "tests" / "unit").glob("test_cni_*.py")):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        marks = [call for call in calls if ast.unparse(call.func) == "pytest.mark.statement"]
        covered |= {str(arg.value) for call in marks for arg in call.args if isinstance(arg, ast.Constant)}
    assert covered == {one["id"] for one in written} and len(written) == 37


def test_pods_have_the_addresses_of_the_plugins_results(lab: RunningLab) -> None:
    for pod in lab.status()["pods"]:
        (said,) = asked(lab, "result", pod["name"])
        (address,) = said["result"]["ips"]
        assert address["address"] == f"{pod['ip']}/24" and said["result"]["cniVersion"] == "1.0.0"
        assert IPv4Address(pod["ip"]) in IPv4Network(node_of(lab, pod["node"])["podCIDR"])
        assert pod["ip"] in listed(lab, pod["node"], "networks/podnet"), "host-local wrote it down"
        assert pod["ip"] in lab.exec(pod["name"], "ip", "-4", "-brief", "address", "show", "eth0")
    assert lab.exec("web", "sysctl", "-n", "net.core.somaxconn").strip() == "500"
    assert "0a:58:00:11:22:33" in lab.exec("slow", "ip", "link", "show", "eth0")


def test_pods_reach_each_other_and_nodes_reach_pods(lab: RunningLab) -> None:
    web, slow = lab.pod("web")["ip"], lab.pod("slow")["ip"]
    for client, address in (("other", web), ("slow", web), ("web", slow), ("control-plane", web), ("worker", web)):
        assert "1 received" in lab.exec(client, "ping", "-c", "1", "-W", "2", address), (client, address)
    assert http(lab, "other", f"{web}:8080")["client"] == lab.pod("other")["ip"]
    assert http(lab, "slow", f"{web}:8080")["client"] == slow, "no node hides a pod from another's"


def test_services_come_from_the_kernels_proxy_mode(lab: RunningLab) -> None:
    for client in ("slow", "other", "web", "control-plane"):
        assert http(lab, client, lab.service("web"))["pod"] == "web", client


@pytest.mark.parametrize("which", ["lab", "own"])
@pytest.mark.parametrize("client", ["client", "slow", "worker", "other"])
def test_a_host_port_leads_to_its_pod(request: pytest.FixtureRequest, which: str, client: str) -> None:
    lab: RunningLab = request.getfixturevalue(which)
    address = node_of(lab, "worker")["ip"]
    assert http(lab, client, f"{address}:9090")["pod"] == "web"
    refused = lab.ask("exec", client, "--", "curl", "-s", "-m", "2", f"http://{address}:9091/", ok=False)
    assert refused.returncode == 7, "only that port"


@pytest.mark.parametrize(("reverse", "most"), [((), 10e6), (("-R",), 20e6)])
def test_bandwidth_is_limited_in_each_direction(lab: RunningLab, reverse: tuple[str, ...], most: float) -> None:
    lab.exec("slow", "sh", "-c", "iperf3 -s -1 -D >/dev/null 2>&1; sleep 0.5")
    command = ("iperf3", "-c", lab.pod("slow")["ip"], "-t", "4", "-O", "1", "-J", *reverse)
    rate = json.loads(lab.exec("control-plane", *command))["end"]["sum_received"]["bits_per_second"]
    assert 0.5 * most < rate < 1.1 * most
    rules = lab.exec("control-plane", "tc", "qdisc")
    assert "rate 10Mbit" in rules and "rate 20Mbit" in rules


def test_ours_limits_a_pod_at_both_ends_of_its_pair_and_misses_a_limit_that_went(own: RunningLab) -> None:
    assert "rate 10Mbit" in own.exec("control-plane", "tc", "qdisc") and "rate 20Mbit" in own.exec(
        "slow", "tc", "qdisc"
    )
    plugin = asked(own, "check", "slow")[0]
    assert plugin["ok"] or plugin["errors"][0]["plugin"] == "portmap"  # it fails without rules of IPv6, after ours
    own.exec("slow", "tc", "qdisc", "delete", "dev", "eth0", "root")
    (said,) = asked(own, "check", "slow")
    assert said["errors"][0]["plugin"] == "mininetes-cni" and "what leaves eth0 is not limited" in str(said["errors"])


@pytest.mark.statement("check-ok", "check-missing-address", "check-missing-if")
def test_check_finds_what_went(lab: RunningLab) -> None:
    # Before 1.3 portmap and bandwidth fail for pods without rules of IPv6, or without limits (docs/cni-plugins.md).
    assert asked(lab, "check", "slow")[0]["ok"]
    address, gateway = lab.pod("slow")["ip"], str(IPv4Network(node_of(lab, "control-plane")["podCIDR"])[1])
    lab.exec("slow", "ip", "address", "delete", f"{address}/24", "dev", "eth0")
    (said,) = asked(lab, "check", "slow")
    assert not said["ok"] and said["errors"][0]["plugin"] == "bridge"
    lab.exec("slow", "ip", "address", "add", f"{address}/24", "dev", "eth0")
    lab.exec("slow", "ip", "route", "add", "default", "via", gateway)
    assert asked(lab, "check", "slow")[0]["ok"]


def test_del_leaves_nothing(lab: RunningLab, examples: Path) -> None:
    lab.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: brief, annotations: {kubernetes.io/egress-bandwidth: 5M}}
spec:
  nodeName: worker
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: x, ports: [{containerPort: 80, hostPort: 9999}]}]
""",
        examples,
    )
    address = lab.pod("brief")["ip"]

    def traces() -> list[bool]:
        return [
            "9999" in lab.exec("worker", "iptables-save", "-t", "nat"),
            "5Mbit" in lab.exec("worker", "tc", "qdisc"),
            address in listed(lab, "worker", "networks/podnet"),
            len(listed(lab, "worker", "cache/results")) == 3,
            lab.exec("worker", "sh", "-c", "ls /sys/class/net | grep -c veth").strip() == "3",
            "bwp" in lab.exec("worker", "ls", "/sys/class/net"),
        ]

    assert traces() == [True] * 6
    lab.ask("delete", "pod", "brief")
    assert traces() == [False] * 6


@pytest.fixture(scope="module", params=["mininetes-cni", "bridge"])
def said(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a stranger in a node heard, of ours and of the reference (which holds what the steps say to be right)."""
    is_ours = request.param == "mininetes-cni"
    lab: RunningLab = request.getfixturevalue("own" if is_ours else "lab")
    file = f"/run/mininetes/worker/cni/net.d/10-{'own' if is_ours else 'bridge'}.conflist"
    path = f"{Path(sys.executable).parent}:{REFERENCE}"
    heard = lab.exec("worker", sys.executable, str(STRANGER), file, path, lab.pod("slow")["ip"], timeout=180)
    return dict(json.loads(heard)) | {"ours": is_ours}


@pytest.mark.statement("add-creates", "add-same-version", "add-result-interfaces", "version")
def test_add_makes_the_interface_and_says_so(said: dict[str, Any]) -> None:
    status, result = said["add"]
    assert status == 0 and result["cniVersion"] == "1.0.0" and said["version"][0] == 0
    (inner,) = [one for one in result["interfaces"] if one.get("sandbox")]
    assert (inner["name"], inner["sandbox"]) == ("eth0", said["netns"])
    (address,) = result["ips"]
    assert result["interfaces"][address["interface"]] == inner
    assert inner["mac"] in said["inside"] and address["address"] in said["inside"]
    assert "2 received" in said["ping"], "a pod on another node"


@pytest.mark.statement("add-existing-ifname", "err-shape")
def test_an_interface_that_is_there_is_an_error_and_untouched(said: dict[str, Any]) -> None:
    status, error = said["again"]
    assert status != 0 and {"code", "msg"} <= set(error) and said["inside after again"] == said["inside"]


@pytest.mark.statement(
    "check-ok", "check-foreign-route", "check-missing-route", "check-missing-address", "check-missing-if"
)
def test_check_misses_what_went_and_bears_what_came(said: dict[str, Any]) -> None:
    for step in ("check", "check with a foreign route", "check with the route again"):
        assert said[step] == [0, None], step
    for step in ("check without the route", "check without the address", "check without the interface"):
        assert said[step][0] != 0 and said[step][1]["code"], step


@pytest.mark.statement("del-removes", "del-twice", "del-netns-gone", "del-empty-prevresult", "ipam-rollback")
def test_del_gives_everything_back_as_often_as_one_likes(said: dict[str, Any]) -> None:
    steps = ("del", "del twice", "del of a namespace that went", "del without a namespace")
    assert {step: said[step][0] for step in steps} == dict.fromkeys(steps, 0)
    assert "eth0" not in said["inside after del"] and said["reserved after del"] == said["before"]
    assert said["add two"][0] == 0
    assert said["add to no namespace"][0] != 0 and said["too small"][0] != 0
    assert said["after"] == said["before"], "no ADD that failed kept an address"
    assert len(said["left"]) == len(said["before"]), "one veth a pod"


@pytest.mark.statement("err-version", "err-json", "err-env", "err-conf", "err-shape")
def test_programs_say_what_is_wrong_as_json(said: dict[str, Any]) -> None:
    codes = {step: said[step][1]["code"] for step in ("no json", "no version", "no name", "too small")}
    assert (codes["no json"], codes["no version"], codes["no name"]) == (6, 1, 4)
    assert "CNI_IFNAME" in said["no name"][1]["msg"]
    if said["ours"]:  # host-local of 1.1.1 has no number for it
        assert codes["too small"] == 7 and "10.9.0.0/31" in said["too small"][1]["msg"]


@pytest.mark.statement("concurrent")
def test_50_programs_at_once_give_50_addresses(said: dict[str, Any]) -> None:
    assert {status for status, _ in said["many"]} == {0}
    assert len({answer["ips"][0]["address"] for _, answer in said["many"]}) == 50
    assert {status for status, _ in said["many gone"]} == {0}


@pytest.mark.statement("status-ok", "gc-valid", "gc-delegated")
def test_the_labs_own_configuration_speaks_1_1_0_with_status_and_gc(start_lab: StartLab, tmp_path: Path) -> None:
    pods = tmp_path / "pods.yaml"
    pods.write_text(MORE)
    lab = start_lab("--no-dns", "--nodes", "2", str(pods))
    file = "/run/mininetes/worker/cni/net.d/10-mininetes.conflist"
    path = str(Path(sys.executable).parent)
    said = json.loads(lab.exec("worker", sys.executable, str(STRANGER), file, path, timeout=180))
    assert said["add"][1]["cniVersion"] == "1.1.0" and said["add"][1]["interfaces"][1]["mtu"] == 1450
    assert said["status"] == [0, None] and said["gc"] == [0, None]
    assert said["add three"][0] == 0 and said["reserved after gc"] == said["before"] == said["after"]
    assert [(one["ok"], one["version"]) for one in asked(lab, "status")] == [(True, "1.1.0")] * 2
    keep = lab.pod("other")["ip"]
    lab.exec(
        "worker", "sh", "-c", "printf 'nobody\\r\\neth0' > /run/mininetes/worker/cni/networks/mininetes/10.244.1.99"
    )
    assert all(one["ok"] for one in asked(lab, "gc"))
    assert [x for x in listed(lab, "worker", "networks/mininetes") if x[0].isdigit()] == [keep]
    assert asked(lab, "check", "other")[0]["ok"]


# More than a /24 has addresses; the statement's 1000 would take three times as long to say the same.
@pytest.mark.statement("ipam-rollback")
def test_adds_that_fail_leak_no_address(own: RunningLab) -> None:
    script = """
import json, os, pathlib, subprocess, time
from topo.cni.errors import CniError
from topo.cni.execute import Executor
from topo.cni.interface import VethPlugin
from topo.cni.ipam import Ipam
from topo.cni.ports import LinuxBridge
from topo.cni.protocol import serve
container = subprocess.Popen(["unshare", "--net", "sleep", "60"])
time.sleep(0.3)
plugin = VethPlugin(lambda _: LinuxBridge("missing"), lambda: Executor((), {"mininetes-ipam": Ipam()}))
ipam = {"type": "mininetes-ipam", "subnet": "10.9.0.0/24", "dataDir": "/run/leaks"}
text = json.dumps({"cniVersion": "1.1.0", "name": "net", "ipam": ipam})
given = {"CNI_COMMAND": "ADD", "CNI_NETNS": f"/proc/{container.pid}/ns/net", "CNI_IFNAME": "eth0"}
said = {serve(plugin, {**given, "CNI_CONTAINERID": f"c{i}"}, text)[0] for i in range(300)}
left = [f for f in pathlib.Path("/run/leaks/net").iterdir() if f.name.startswith("10.")]
veths = len([n for n in os.listdir("/sys/class/net") if n.startswith("veth")])
print(json.dumps([sorted(said), len(left), veths]))
container.kill()
"""
    heard = own.exec("control-plane", sys.executable, "-c", script, timeout=120)
    assert json.loads(heard) == [[1], 0, 1]


def test_no_address_twice_in_200_random_adds_and_deletes(own: RunningLab, tmp_path: Path) -> None:
    rng, alive, count = random.Random(7), list[str](), 0
    for _ in range(5):
        names = [f"r{count + i}" for i in range(40)]
        count += 40
        file = tmp_path / "pods.yaml"
        file.write_text("---".join(map(brief, names)))
        own.ask("apply", "-f", str(file))
        # While they come: GC must not take what an ADD has just got.
        assert all(one["ok"] for one in asked(own, "gc", "worker"))
        own.ask("apply", "-f", str(file), "--wait", "60")
        alive += names
        found = {p["name"]: p["ip"] for p in own.status()["pods"] if p["node"] == "worker"}
        assert set(alive) <= set(found) and max(Counter(found.values()).values()) == 1
        assert all(one["ok"] for one in asked(own, "check", *rng.sample(names, 8)))
        gone = [alive.pop(rng.randrange(len(alive))) for _ in range(rng.randrange(20, 40))]
        own.ask("delete", "pod", *gone)
    own.ask("delete", "pod", *alive)
    left = [x for x in listed(own, "worker", "networks/podnet") if x[0].isdigit()]
    assert sorted(left) == sorted(p["ip"] for p in own.status()["pods"] if p["node"] == "worker")


def brief(name: str) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec: {{nodeName: worker, terminationGracePeriodSeconds: 0, containers: [{{name: c, image: x}}]}}
"""


def test_ptp_and_firewall_can_stand_in_for_bridge(start_lab: StartLab, examples: Path, tmp_path: Path) -> None:
    values = json.loads(EXAMPLES["net.d/10-bridge.conflist"].replace("{{.MTU}}", "1400"))
    ipam = values["plugins"][0]["ipam"]
    (tmp_path / "ptp.conflist").write_text(
        json.dumps(values | {"plugins": [{"type": "ptp", "mtu": 1400, "ipam": ipam}, {"type": "firewall"}]})
    )
    chosen = ("--proxy", "kernel-nftables", "--cni", "conflist", "--cni-option", f"confDir={tmp_path}")
    lab = start_lab("--no-dns", "--nodes", "2", *chosen, str(examples / "pods.yaml"))
    assert http(lab, "slow", f"{lab.pod('web')['ip']}:8080")["client"] == lab.pod("slow")["ip"]
    assert http(lab, "other", lab.service("web"))["pod"] == "web"
    assert "mtu 1400" in lab.exec("other", "ip", "link", "show", "eth0")
    assert all(one["ok"] for one in asked(lab, "check"))


BRIDGE = {"type": "bridge", "ipam": {"type": "host-local", "subnet": "{{.PodCIDR}}"}}
BAD: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "10-x.conflist:1: is no JSON"),
    "no such plugin": (
        [{"type": "nobody"}],
        "plugins[0]: plugin nobody: no executable 'nobody': looked in /usr/lib/cni",
    ),
    "a subnet of all nodes": (
        [{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.22.0.0/16"}}],
        "plugins[0].ipam.subnet: 10.22.0.0/16 is no part of the node's pod CIDR 10.244.0.0/24; expected {{.PodCIDR}}",
    ),
    "no field of the node": (
        [BRIDGE | {"mtu": "{{.Speed}}"}],
        "unknown field {{.Speed}}; expected one of {{.PodCIDR}}",
    ),
    "refused by a plugin": ([BRIDGE | {"vlan": 9999}], "plugins[0]: plugin bridge: invalid VLAN ID 9999"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_configuration_is_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    plugins, words = BAD[name]
    values = {"cniVersion": "1.0.0", "name": "n", "plugins": plugins}
    (tmp_path / "10-x.conflist").write_text(plugins if isinstance(plugins, str) else json.dumps(values))
    options = ("--cni-option", f"confDir={tmp_path}", "--cni-option", "binDirs=/usr/lib/cni", "--nodes", "1")
    lab = f"test-{uuid.uuid4().hex[:8]}"
    done = mininetes("up", "--detach", "--lab", lab, "--cni", "conflist", *options, "--proxy", "kernel-iptables")
    said = done.stderr + done.stdout  # a detached lab's words come on the output
    assert done.returncode == 2 and words in said and said.count("\n") == 1, said
    assert lab not in json.loads(mininetes("list", "labs", "--json").stdout)["labs"]


def test_what_does_not_fit_together_is_said(tmp_path: Path) -> None:
    (tmp_path / "10-x.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "n", "plugins": [BRIDGE]}))
    options = ("up", "-d", "--cni", "conflist", "--cni-option", f"confDir={tmp_path}")
    done = mininetes(*options)
    assert done.returncode == 2 and "expected kernel-iptables, kernel-ipvs or kernel-nftables" in done.stderr
    (tmp_path / "10-x.conflist").write_text(json.dumps({"cniVersion": "9.9.9", "name": "n", "plugins": [BRIDGE]}))
    done = mininetes(*options, "--proxy", "kernel-iptables")
    assert done.returncode == 2 and "no version in common: the configuration speaks 9.9.9" in done.stderr

"""What only a distribution's kernel has, with real packets: its Open vSwitch datapath and tunnels, link delay and loss,
IP in IP, WireGuard, virtual servers. `make vm-test` runs these in the virtual machine.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from running import RunningLab, StartLab

from topo import platform
from topo.cluster.errors import PlatformError

LAB = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{{role: control-plane}}, {{role: worker}}]
networking: {{kubeProxyMode: {proxy}}}
mininetes:
  dns: false
  cni: {cni}
  fabric: {{shape: star, links: {{worker--switch-1: {link}}}}}
"""
OBJECTS = """
apiVersion: v1
kind: Pod
metadata: {name: one}
spec: {nodeName: control-plane, containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: web}}
spec: {nodeName: worker, containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""
# As long as makes it plain beside what an emulated processor takes.
DELAY, LOSS = 200, 30


def started(start_lab: StartLab, folder: Path, cni: str, proxy: str = "ovs", link: str = "{}") -> RunningLab:
    """Two nodes with a pod each, on the kernel's datapath; a skip that says what this kernel lacks for it."""
    if os.getuid() != 0:
        pytest.skip("only root may change the kernel's datapath")
    try:
        platform.choose_datapath("system")
    except PlatformError as error:
        pytest.skip(str(error))
    (folder / "lab.yaml").write_text(LAB.format(cni=cni, proxy=proxy, link=link))
    (folder / "objects.yaml").write_text(OBJECTS)
    return start_lab("--datapath", "system", str(folder / "lab.yaml"), str(folder / "objects.yaml"))


@pytest.fixture(scope="module")
def slow_link(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    """VXLAN over a link that is slow and loses packets."""
    link = f"{{delay: {DELAY}ms, loss: {LOSS}%}}"
    return started(start_lab, tmp_path_factory.mktemp("slow"), "flannel", link=link)


@pytest.fixture(scope="module")
def sealed(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    """Geneve in WireGuard."""
    return started(start_lab, tmp_path_factory.mktemp("sealed"), "{name: cilium, mode: geneve, encryption: wireguard}")


@pytest.fixture(scope="module")
def ipip(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    """IP in IP, and Services by the kernel's virtual servers."""
    return started(start_lab, tmp_path_factory.mktemp("ipip"), "{name: calico, mode: ipip}", "kernel-ipvs")


def devices(lab: RunningLab, node: str, kind: str) -> list[str]:
    """Names of a node's devices of a kind that are up."""
    return [
        d["ifname"]
        for d in json.loads(lab.exec(node, "ip", "-json", "link", "show", "type", kind))
        if "UP" in d["flags"]
    ]


def sent(lab: RunningLab, node: str, device: str) -> int:
    """Packets that left by a device."""
    return int(json.loads(lab.exec(node, "ip", "-json", "-s", "link", "show", device))[0]["stats64"]["tx"]["packets"])


def answered(lab: RunningLab, target: str) -> str:
    """Which pod answers an HTTP request of pod `one`."""
    return str(json.loads(lab.exec("one", "curl", "-sS", "--max-time", "20", f"http://{target}"))["pod"])


def test_the_kernel_forwards_what_its_switches_were_told(slow_link: RunningLab) -> None:
    """Packets pass flows of the datapath in the kernel, and only the first of each flow goes up to the program."""
    lab = slow_link
    assert lab.status()["datapath"] == "system"
    before = hits(lab)
    lab.exec("one", "ping", "-c20", "-i0.2", "-W5", lab.pod("two")["ip"], ok=False)
    assert hits(lab) - before >= 20


def hits(lab: RunningLab) -> int:
    """Packets of node control-plane that found a flow in the kernel."""
    found = re.search(r"hit:(\d+)", lab.exec("control-plane", "ovs-dpctl", "show"))
    assert found is not None
    return int(found[1])


def test_the_kernels_own_vxlan_carries_what_crosses(slow_link: RunningLab) -> None:
    (device,) = devices(slow_link, "control-plane", "vxlan")
    before = sent(slow_link, "control-plane", device)
    slow_link.exec("one", "ping", "-c3", "-W5", slow_link.pod("two")["ip"], ok=False)
    assert sent(slow_link, "control-plane", device) >= before + 3


def test_a_link_delays_and_loses_packets_as_asked(slow_link: RunningLab) -> None:
    """Both ways: an echo is DELAY late on each, and comes back with the probability that neither way lost it."""
    said = slow_link.exec("one", "ping", "-c60", "-i0.2", "-W5", slow_link.pod("two")["ip"], ok=False)
    received = re.search(r"(\d+) received", said)
    quickest = re.search(r"= ([\d.]+)/", said)
    assert received and quickest, said
    assert 2 * DELAY <= float(quickest[1]) < 3 * DELAY
    # 29 of 60 are expected, give or take four; outside of this by chance once in a hundred thousand times.
    assert 12 <= int(received[1]) <= 47


def test_a_service_is_reached_through_the_kernels_connection_tracking(sealed: RunningLab) -> None:
    assert answered(sealed, sealed.service("web")) == "two"


def test_the_kernels_own_geneve_and_wireguard_carry_what_crosses(sealed: RunningLab) -> None:
    for kind in ("geneve", "wireguard"):
        (device,) = devices(sealed, "control-plane", kind)
        before = sent(sealed, "control-plane", device)
        assert answered(sealed, f"{sealed.pod('two')['ip']}:8080") == "two"
        assert sent(sealed, "control-plane", device) > before, kind


def test_the_kernels_own_ip_in_ip_carries_what_crosses(ipip: RunningLab) -> None:
    assert "tunl0" in devices(ipip, "control-plane", "ipip")
    before = sent(ipip, "control-plane", "tunl0")
    assert answered(ipip, f"{ipip.pod('two')['ip']}:8080") == "two"
    assert sent(ipip, "control-plane", "tunl0") > before


def test_the_kernels_virtual_servers_serve_a_service(ipip: RunningLab) -> None:
    assert answered(ipip, ipip.service("web")) == "two"
    shown = ipip.exec("control-plane", "ipvsadm", "-L", "-n", "--stats")
    assert re.search(rf"{re.escape(ipip.pod('two')['ip'])}:8080\s+[1-9]", shown), shown

"""What only a distribution's kernel has, with real packets: its Open vSwitch datapath and tunnels, link delay and loss,
IP in IP, WireGuard, virtual servers. `make vm-test` runs these in the virtual machine.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from running import RunningLab, mininetes

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
# As much as makes it plain beside what an emulated processor takes, and leaves enough answers to count.
DELAY, LOSS, ECHOES = 200, 30, 60
# CNI, proxy mode and one link of each lab.
LABS = {
    "vxlan": ("flannel", "ovs", f"{{delay: {DELAY}ms, loss: {LOSS}%}}"),
    "geneve in wireguard": ("{name: cilium, mode: geneve, encryption: wireguard}", "ovs", "{}"),
    "ipip": ("{name: calico, mode: ipip}", "kernel-ipvs", "{}"),
}


@dataclass(frozen=True)
class Kernel:
    """A lab on the kernel's datapath, with the addresses of pod `two` and of the Service before it."""

    lab: RunningLab
    datapath: str
    pod: str
    service: str

    def sent(self) -> Counter[str]:
        """Packets that left node control-plane by its devices, by their kinds."""
        shown = self.lab.exec("control-plane", "ip", "-json", "-details", "-statistics", "link", "show", "up")
        sent: Counter[str] = Counter()
        for device in filter(None, json.loads(shown)):  # ip(8) prints {} for those that are down
            sent[device.get("linkinfo", {}).get("info_kind", "")] += device["stats64"]["tx"]["packets"]
        return sent

    def hits(self) -> int:
        """Packets of node control-plane that found a flow in the kernel."""
        found = re.search(r"hit:(\d+)", self.lab.exec("control-plane", "ovs-dpctl", "show"))
        assert found is not None
        return int(found[1])

    def answered(self, target: str) -> str:
        """Which pod answers an HTTP request of pod `one`."""
        return str(json.loads(self.lab.exec("one", "curl", "-sS", "--max-time", "20", f"http://{target}"))["pod"])


@pytest.fixture(scope="module")
def kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One of LABS, gone before the next; a skip that says what this kernel lacks for it."""
    try:
        platform.choose_datapath("system")
    except PlatformError as error:
        pytest.skip(str(error))
    if os.getuid() != 0:
        pytest.skip("only root may change the kernel's datapath")
    folder = tmp_path_factory.mktemp("kernel")
    cni, proxy, link = LABS[request.param]
    (folder / "lab.yaml").write_text(LAB.format(cni=cni, proxy=proxy, link=link))
    (folder / "objects.yaml").write_text(OBJECTS)
    lab = RunningLab(f"test-{uuid.uuid4().hex[:8]}")
    files = [str(folder / "lab.yaml"), str(folder / "objects.yaml")]
    up = mininetes("up", "--detach", "--lab", lab.name, "--datapath", "system", *files, timeout=120)
    assert up.returncode == 0, up.stderr + up.stdout
    try:
        status = lab.status()
        (pod,) = [p["ip"] for p in status["pods"] if p["name"] == "two"]
        (service,) = [s["clusterIP"] for s in status["services"] if s["name"] == "web"]
        yield Kernel(lab, status["datapath"], pod, service)
    finally:
        lab.ask("down", ok=False)


def of(name: str) -> Any:
    """Runs a case in this lab."""
    return pytest.mark.parametrize("kernel", [pytest.param(name, id=name)], indirect=True, scope="module")


@dataclass(frozen=True)
class Echoes:
    """What ping said, and what was counted meanwhile."""

    said: str
    hits: int
    sent: Counter[str]


@pytest.fixture(scope="module")
def echoes(kernel: Kernel) -> Echoes:
    """ECHOES of pod `one` to pod `two`, which is on the other node."""
    hits, sent = kernel.hits(), kernel.sent()
    said = kernel.lab.exec("one", "ping", f"-c{ECHOES}", "-i0.2", "-W5", kernel.pod, ok=False)
    return Echoes(said, kernel.hits() - hits, kernel.sent() - sent)


@of("vxlan")
def test_the_kernel_forwards_what_its_switches_were_told(kernel: Kernel, echoes: Echoes) -> None:
    """Packets pass flows of the datapath in the kernel; of each flow only the first goes up to the program."""
    assert kernel.datapath == "system"
    assert echoes.hits >= ECHOES


@of("vxlan")
def test_the_kernels_own_vxlan_carries_what_crosses(kernel: Kernel, echoes: Echoes) -> None:
    assert echoes.sent["vxlan"] >= ECHOES


@of("vxlan")
def test_a_link_delays_and_loses_packets_as_asked(kernel: Kernel, echoes: Echoes) -> None:
    """Both ways: an echo is DELAY late on each, and comes back with the probability that neither way lost it."""
    received = re.search(r"(\d+) received", echoes.said)
    quickest = re.search(r"= ([\d.]+)/", echoes.said)
    assert received and quickest, echoes.said
    assert 2 * DELAY <= float(quickest[1]) < 3 * DELAY
    # 29 of 60 are expected, give or take four; outside of this by chance once in a hundred thousand times.
    assert 12 <= int(received[1]) <= 47


@of("geneve in wireguard")
def test_the_kernels_own_geneve_and_wireguard_carry_what_crosses(kernel: Kernel) -> None:
    before = kernel.sent()
    assert kernel.answered(f"{kernel.pod}:8080") == "two"
    after = kernel.sent()
    assert after["geneve"] > before["geneve"] and after["wireguard"] > before["wireguard"]


@of("geneve in wireguard")
def test_a_service_is_reached_through_the_kernels_connection_tracking(kernel: Kernel) -> None:
    assert kernel.answered(kernel.service) == "two"


@of("ipip")
def test_the_kernels_own_ip_in_ip_carries_what_crosses(kernel: Kernel) -> None:
    before = kernel.sent()["ipip"]
    assert kernel.answered(f"{kernel.pod}:8080") == "two"
    assert kernel.sent()["ipip"] > before


@of("ipip")
def test_the_kernels_virtual_servers_serve_a_service(kernel: Kernel) -> None:
    assert kernel.answered(kernel.service) == "two"
    shown = kernel.lab.exec("control-plane", "ipvsadm", "-L", "-n", "--stats")
    assert re.search(rf"{re.escape(kernel.pod)}:8080\s+[1-9]", shown), shown

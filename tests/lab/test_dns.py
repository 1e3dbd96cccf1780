"""The cluster's DNS, asked from pods: by programs that know nothing of it, and record by record."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from running import COMMAND, RunningLab, StartLab, where_changed

# Asks one question with dnspython in a pod: SERVER NAME TYPE [tcp|udp]. Prints rcode, flags, records, milliseconds.
ASK = """
import sys, time, json, dns.message, dns.query, dns.flags, dns.rcode
server, name, kind, how, plain = sys.argv[1:]
question = dns.message.make_query(name, kind, use_edns=None if plain == "plain" else 0)
began = time.monotonic()
got = getattr(dns.query, how)(question, server, timeout=3)
print(json.dumps({
    "rcode": dns.rcode.to_text(got.rcode()), "flags": dns.flags.to_text(got.flags),
    "records": sorted(f"{s.name} {s.ttl} {line}" for s in got.answer for line in (r.to_text() for r in s)),
    "authority": [s.to_text() for s in got.authority], "ms": (time.monotonic() - began) * 1000}))
"""

LAB = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
mininetes: {dnsUpstream: "172.18.0.1:5353"}
"""

APP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: frontend, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: frontend}}
  template:
    metadata: {labels: {app: frontend}}
    spec: {containers: [{name: c, image: i, ports: [{containerPort: 8080, name: web}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: frontend, namespace: shop}
spec: {selector: {app: frontend}, clusterIP: 10.96.0.80, ports: [{name: http, port: 80, targetPort: web}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  serviceName: db
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: i, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, clusterIP: None, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {type: ExternalName, externalName: www.example.com}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: frontend.shop.svc.cluster.local}
---
apiVersion: v1
kind: Pod
metadata: {name: box, namespace: shop}
spec:
  hostAliases: [{ip: 192.0.2.7, hostnames: [old, old.example.com]}]
  containers: [{name: c, image: i}]
---
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: shop}
spec: {dnsPolicy: Default, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: own, namespace: shop}
spec:
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.53], searches: [example.com], options: [{name: ndots, value: "2"}, {name: edns0}]}
  containers: [{name: c, image: i}]
---
apiVersion: v1
kind: Pod
metadata: {name: guest, namespace: shop}
spec: {hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet, nodeName: worker, containers: [{name: c, image: i}]}
"""
WORLD = ["--static", "www.example.com=198.51.100.10", "--static", "example.com=198.51.100.11"]


@pytest.fixture(scope="module")
def lab(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    """A lab with an application, whose upstream is a server of the test's own on the client."""
    folder = tmp_path_factory.mktemp("dns")
    (folder / "lab.yaml").write_text(LAB)
    (folder / "app.yaml").write_text(APP)
    lab = start_lab(str(folder / "lab.yaml"), str(folder / "app.yaml"))
    start_world(lab)
    return lab


def start_world(lab: RunningLab) -> None:
    """The resolver outside the cluster, which lives as long as the lab."""
    command = [sys.executable, "-m", "topo.addons.dns", *WORLD, "--listen", "172.18.0.1", "--port", "5353"]
    lab.exec("client", "sh", "-c", f"exec setsid {' '.join(command)} </dev/null >/dev/null 2>&1 &")


def ask(
    lab: RunningLab,
    name: str,
    kind: str = "A",
    how: str = "udp",
    server: str = "10.96.0.10",
    edns: bool = False,
) -> dict[str, Any]:
    """One question from a pod."""
    arguments = [server, name, kind, how, "edns" if edns else "plain"]
    return dict(json.loads(lab.exec("shop/box", sys.executable, "-c", ASK, *arguments)))


def addresses(lab: RunningLab, name: str, **options: Any) -> list[str]:
    """The addresses of a name, in order."""
    return [line.split()[-1] for line in ask(lab, name, **options)["records"]]


def pod_ips(lab: RunningLab, prefix: str) -> list[str]:
    """Addresses of the ready pods whose names begin so."""
    return sorted(p["ip"] for p in lab.status()["pods"] if p["name"].startswith(prefix) and p["ready"])


def test_pods_have_a_kubelets_files(lab: RunningLab) -> None:
    assert lab.exec("shop/box", "cat", "/etc/resolv.conf") == (
        "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    )
    hosts = lab.exec("shop/box", "cat", "/etc/hosts")
    assert f"{lab.pod('box')['ip']}\tbox\n" in hosts
    assert hosts.endswith("# Entries added by HostAliases.\n192.0.2.7\told\told.example.com\n")
    assert lab.exec("shop/box", "getent", "hosts", "old").split()[0] == "192.0.2.7"
    first = lab.exec("shop/db-0", "cat", "/etc/hosts").splitlines()[-1].split()
    assert first == [lab.pod("db-0")["ip"], "db-0.db.shop.svc.cluster.local", "db-0"]


def test_dns_policies(lab: RunningLab) -> None:
    assert lab.exec("shop/plain", "cat", "/etc/resolv.conf") == "nameserver 172.18.0.1\n"
    own = "search example.com\nnameserver 192.0.2.53\noptions ndots:2 edns0\n"
    assert lab.exec("shop/own", "cat", "/etc/resolv.conf") == own
    assert "nameserver 10.96.0.10" in lab.exec("shop/guest", "cat", "/etc/resolv.conf")
    here = Path("/etc/resolv.conf").read_text()
    assert lab.exec("worker", "cat", "/etc/resolv.conf") == here  # a pod's mounts do not reach its node
    assert lab.exec("shop/guest", "getent", "hosts", "frontend").split()[0] == "10.96.0.80"


def test_programs_resolve_short_names(lab: RunningLab) -> None:
    assert lab.exec("shop/box", "getent", "ahostsv4", "frontend").split()[0] == "10.96.0.80"
    assert lab.exec("shop/box", "getent", "ahostsv4", "frontend.shop").split()[0] == "10.96.0.80"
    answer = json.loads(lab.exec("shop/box", "curl", "-sS", "--max-time", "5", "http://frontend"))
    assert answer["pod"].startswith("frontend-")
    assert lab.exec("shop/box", "getent", "hosts", "nowhere", ok=False) == ""


def test_cluster_ip_records(lab: RunningLab) -> None:
    base = "frontend.shop.svc.cluster.local."
    assert ask(lab, base)["records"] == [f"{base} 5 10.96.0.80"]
    assert ask(lab, f"_http._tcp.{base}", "SRV")["records"] == [f"_http._tcp.{base} 5 0 100 80 {base}"]
    assert ask(lab, "80.0.96.10.in-addr.arpa.", "PTR")["records"] == [f"80.0.96.10.in-addr.arpa. 5 {base}"]
    empty = ask(lab, base, "AAAA")
    assert (empty["rcode"], empty["records"]) == ("NOERROR", []) and "SOA" in empty["authority"][0]
    missing = ask(lab, "no.shop.svc.cluster.local.")
    assert missing["rcode"] == "NXDOMAIN" and "AA" in missing["flags"] and "SOA" in missing["authority"][0]
    assert ask(lab, "FrontEnd.Shop.svc.Cluster.Local.")["records"] == ["FrontEnd.Shop.svc.Cluster.Local. 5 10.96.0.80"]
    assert ask(lab, "dns-version.cluster.local.", "TXT")["records"][0].endswith('"1.1.0"')
    assert addresses(lab, "ns.dns.cluster.local.") == ["10.96.0.10"]
    assert addresses(lab, "10-244-0-9.shop.pod.cluster.local.") == ["10.244.0.9"]


def test_headless_and_stateful(lab: RunningLab) -> None:
    base = "db.shop.svc.cluster.local."
    ips = pod_ips(lab, "db-")
    assert len(ips) == 2 and addresses(lab, base) == ips
    for name in ("db-0", "db-1"):
        ip = lab.pod(name)["ip"]
        assert addresses(lab, f"{name}.{base}") == [ip]
        reverse = ".".join(reversed(ip.split("."))) + ".in-addr.arpa."
        assert ask(lab, reverse, "PTR")["records"] == [f"{reverse} 5 {name}.{base}"]
    found = [line.split()[2:] for line in ask(lab, f"_sql._tcp.{base}", "SRV")["records"]]
    assert found == [["0", "50", "5432", f"db-{i}.{base}"] for i in (0, 1)]
    assert lab.exec("shop/box", "getent", "hosts", "db-1.db").split()[0] == lab.pod("db-1")["ip"]


def test_external_names(lab: RunningLab) -> None:
    inside = ask(lab, "alias.shop.svc.cluster.local.")["records"]
    assert inside[0].endswith(" 5 frontend.shop.svc.cluster.local.") and inside[1].endswith(" 5 10.96.0.80")
    lab.eventually(lambda: addresses(lab, "www.example.com.") == ["198.51.100.10"])
    outside = ask(lab, "web.shop.svc.cluster.local.")["records"]
    assert outside[0].endswith(" 5 www.example.com.") and outside[1].endswith(" 198.51.100.10")
    assert lab.exec("shop/box", "getent", "ahostsv4", "web").split()[0] == "198.51.100.10"


def test_names_outside(lab: RunningLab) -> None:
    lab.eventually(lambda: addresses(lab, "example.com.") == ["198.51.100.11"])
    assert ask(lab, "nowhere.example.com.")["rcode"] == "NXDOMAIN"
    assert addresses(lab, "example.com.", how="tcp") == ["198.51.100.11"]
    assert lab.exec("shop/box", "getent", "ahostsv4", "example.com").split()[0] == "198.51.100.11"


def test_a_change_is_answered_at_once(lab: RunningLab, tmp_path: Path) -> None:
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: late, namespace: shop}\n"
    assert ask(lab, "late.shop.svc.cluster.local.")["rcode"] == "NXDOMAIN"
    lab.apply(text + "spec: {ports: [{port: 1}], clusterIP: 10.96.0.90}", tmp_path)
    began = time.monotonic()
    lab.eventually(lambda: addresses(lab, "late.shop.svc.cluster.local.") == ["10.96.0.90"], seconds=1)
    lab.ask("delete", "-n", "shop", "service", "late")
    lab.eventually(lambda: ask(lab, "late.shop.svc.cluster.local.")["rcode"] == "NXDOMAIN", seconds=1)
    assert time.monotonic() - began < 3


def test_a_large_answer_comes_by_tcp(lab: RunningLab, tmp_path: Path) -> None:
    endpoints = ", ".join(f"{{addresses: [192.0.2.{i}]}}" for i in range(1, 101))
    lab.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: many, namespace: shop}\nspec: {clusterIP: None}\n---\n"
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
        "metadata: {name: many-1, namespace: shop, labels: {kubernetes.io/service-name: many}}\n"
        f"endpoints: [{endpoints}]\n",
        tmp_path,
    )
    name = "many.shop.svc.cluster.local."
    lab.eventually(lambda: len(addresses(lab, name, how="tcp")) == 100, seconds=1)
    for edns in (False, True):
        short = ask(lab, name, edns=edns)
        assert "TC" in short["flags"] and short["records"] == []
    found = {line.split()[0] for line in lab.exec("shop/box", "getent", "ahostsv4", "many").splitlines()}
    assert len(found) == 100


def test_one_dns_pod_less(lab: RunningLab) -> None:
    first = next(p for p in lab.status()["pods"] if p["name"].startswith("coredns-"))
    lab.ask("delete", "-n", "kube-system", "pod", first["name"])
    for _ in range(5):
        assert lab.exec("shop/box", "getent", "hosts", "frontend", timeout=20).split()[0] == "10.96.0.80"
    lab.eventually(lambda: len(pod_ips(lab, "coredns-")) == 2)
    assert first["ip"] not in pod_ips(lab, "coredns-")


def test_an_upstream_that_is_silent(start_lab: StartLab, tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(LAB.replace("172.18.0.1:5353", "198.18.0.1"))
    (tmp_path / "app.yaml").write_text(APP)
    lab = start_lab(str(tmp_path / "lab.yaml"), str(tmp_path / "app.yaml"), "--nodes", "2")
    got = ask(lab, "www.example.com.")
    assert got["rcode"] == "SERVFAIL" and got["ms"] < 2500
    assert ask(lab, "web.shop.svc.cluster.local.")["rcode"] == "SERVFAIL"
    assert addresses(lab, "frontend.shop.svc.cluster.local.") == ["10.96.0.80"]


def test_a_lab_without_dns_keeps_this_machines_file(start_lab: StartLab, tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text(APP)
    lab = start_lab("--no-dns", "--nodes", "2", str(tmp_path / "app.yaml"))
    assert lab.exec("shop/box", "cat", "/etc/resolv.conf") == Path("/etc/resolv.conf").read_text()
    assert not any(s["name"] == "kube-dns" for s in lab.status()["services"])


def test_an_ordinary_user_has_it_too_where_resolv_conf_is_a_link_that_leads_nowhere() -> None:
    """As on machines with systemd-resolved, whose /etc/resolv.conf leads into /run, which a lab does not share."""
    # What of it only root may read, which stays behind, has nothing to do with names.
    link = """
        folder=$(mktemp -d); mount -t tmpfs etc $folder; cp -r /etc/. $folder 2> /dev/null || true
        ln -sf ../run/systemd/resolve/stub-resolv.conf $folder/resolv.conf; mount --bind $folder /etc
        umount $folder; rmdir $folder
    """
    done = where_changed(
        link,
        f"""
        m="{shlex.join(COMMAND)}"
        trap "$m down --lab ordinary-dns" EXIT
        $m up --detach --lab ordinary-dns --nodes 2 scenarios/data/manifests/guestbook.yaml
        $m exec --lab ordinary-dns redis-master -- cat /etc/resolv.conf
        $m exec --lab ordinary-dns redis-master -- curl -sS -m 5 --retry 9 --retry-delay 1 --retry-all-errors http://frontend
        """,
    )
    assert "nameserver 10.96.0.10" in done.stdout and '"pod": "frontend-' in done.stdout, done.stderr + done.stdout

"""The DNS as a cluster has it: two pods and the Service at the address that every pod's resolv.conf names.

Names and shape are those of kubeadm's CoreDNS (kubeadm, addons/dns): what is written for it finds what it seeks.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from topo.addons.dns import READY_PORT
from topo.cluster.store import key_of
from topo.cluster.wiring import COMMAND
from topo.pod_files import DNS_SERVICE, NODE_RESOLVER

Object = dict[str, Any]
_LABELS = {"k8s-app": "kube-dns"}
_PORTS = (("dns", "UDP"), ("dns-tcp", "TCP"))


def address(services: IPv4Network) -> IPv4Address:
    """The cluster DNS' address: the tenth of the Service subnet (kubeadm, GetDNSIP)."""
    return services.network_address + 10


def objects(services: IPv4Network, upstream: str) -> list[Object]:
    """Everything it consists of, with defaults filled in. upstream: ADDRESS[:PORT] of the resolver outside."""
    namespace, name = DNS_SERVICE
    command = shlex.join([sys.executable, "-m", "topo.addons.dns", "--upstream", upstream])
    container = {
        "name": "coredns",
        "image": "registry.k8s.io/coredns/coredns",  # not pulled: the annotation runs ours in its place
        "ports": [{"name": port, "containerPort": 53, "protocol": protocol} for port, protocol in _PORTS],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": READY_PORT}, "periodSeconds": 2},
    }
    template = {
        "metadata": {"labels": _LABELS, "annotations": {COMMAND: command}},
        "spec": {
            "containers": [container],
            "dnsPolicy": "Default",
            "tolerations": [
                {"key": "CriticalAddonsOnly", "operator": "Exists"},
                {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"},
            ],
        },
    }
    cluster_ip = str(address(services))
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": _LABELS,
                "annotations": {NODE_RESOLVER: upstream},
            },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": cluster_ip,
                "clusterIPs": [cluster_ip],
                "selector": _LABELS,
                "ports": [{"name": n, "port": 53, "protocol": p, "targetPort": 53} for n, p in _PORTS],
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "coredns", "namespace": namespace, "labels": _LABELS},
            "spec": {"replicas": 2, "selector": {"matchLabels": _LABELS}, "template": template},
        },
    ]


def missing(have: Iterable[Object], services: IPv4Network, upstream: str) -> list[Object]:
    """Those of its objects that these, which are the user's and win, do not bring themselves."""
    keys = {key_of(thing) for thing in have}
    return [thing for thing in objects(services, upstream) if key_of(thing) not in keys]

"""What a kubelet's runtime tells plugins of a pod: CNI_ARGS and capability arguments, from its manifest; pure.

Sources: CNI, CONVENTIONS.md; Kubernetes, "Network Plugins" (hostPort by portMappings, traffic shaping by bandwidth);
Calico's annotations for an address and a MAC of a pod's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any
from zlib import crc32

from topo.cluster.wiring import WANTED_IP, WANTED_MAC
from topo.cni.conf import NAME

INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"
# Suffixes of a quantity (Kubernetes API, resource.Quantity).
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_QUANTITY = re.compile(rf"(\d{{1,18}}(?:\.\d{{1,18}})?)({'|'.join(_UNITS)})", re.ASCII)
# What a kubelet takes as a rate, in bit/s.
_LEAST, _MOST = 10**3, 10**15


class BadPod(Exception):
    """An annotation cannot be heeded; the message says which and what was expected."""


def args(pod: Mapping[str, Any]) -> dict[str, str]:
    """CNI_ARGS as container runtimes write it for a kubelet."""
    meta, uid = pod["metadata"], container_id(pod)
    return {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": meta["namespace"],
        "K8S_POD_NAME": meta["name"],
        "K8S_POD_INFRA_CONTAINER_ID": uid,
        "K8S_POD_UID": uid,
    }


def capabilities(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Everything there is to say; a plugin hears what it declares. Raises BadPod."""
    notes = pod["metadata"].get("annotations") or {}
    found: dict[str, Any] = {}
    if ports := _ports(pod["spec"]):
        found["portMappings"] = ports
    if rates := _bandwidth(notes):
        found["bandwidth"] = rates
    if WANTED_IP in notes:
        found["ips"] = [str(_address(notes[WANTED_IP]))]
    if WANTED_MAC in notes:
        found["mac"] = notes[WANTED_MAC]
    return found


def _ports(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The containers' hostPorts."""
    return [
        {
            "hostPort": port["hostPort"],
            "containerPort": port["containerPort"],
            "protocol": port.get("protocol", "TCP").lower(),
            **({"hostIP": port["hostIP"]} if port.get("hostIP") else {}),
        }
        for container in (*spec.get("initContainers", ()), *spec.get("containers", ()))
        for port in container.get("ports", ())
        if port.get("hostPort")
    ]


def _bandwidth(notes: Mapping[str, str]) -> dict[str, int]:
    """Rates in bit/s, bursts in bits.

    A kubelet's runtime allows bursts of 256 MiB, after which alone a limit would be felt; here one lasts a tenth of a
    second, and is at least what a veth hands over at once (64 KiB).
    """
    found = {}
    for note, name in ((INGRESS, "ingress"), (EGRESS, "egress")):
        if note in notes:
            found[f"{name}Rate"] = rate = _rate(note, notes[note])
            found[f"{name}Burst"] = min(max(rate // 10, 8 * 65536), 2**31 - 1)
    return found


def _rate(note: str, text: str) -> int:
    match = _QUANTITY.fullmatch(text)
    rate = int(Decimal(match[1]) * _UNITS[match[2]]) if match else 0
    if not _LEAST <= rate <= _MOST:
        raise BadPod(f"annotation {note}: {text!r} is no rate; expected bit/s from 1k to 1P, as 10M")
    return rate


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(json.loads(text)[0])
    except (ValueError, LookupError, TypeError) as error:
        raise BadPod(f"annotation {WANTED_IP}: {text!r} is no JSON list with an address") from error


def container_id(pod: Mapping[str, Any]) -> str:
    """CNI_CONTAINERID: the pod's uid, with which the sandbox comes and goes; a pod from a file may have any uid."""
    uid = str(pod["metadata"]["uid"])
    return uid if NAME.fullmatch(uid) else f"pod-{crc32(uid.encode()):08x}"

"""A pod's limits of bandwidth, as the CNI plugin `bandwidth` has them: a token bucket in each direction.

Source: CNI's page on the bandwidth plugin (rates in bit/s, bursts in bits, packets wait 25 ms at most); tc-tbf(8). What
enters the pod is limited where it leaves the node's end of the pair, as there. What leaves the pod is limited at the
pod's end, and not, by way of an ifb device, at the node's: a switch in userspace takes packets before they get there.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from topo.cni.errors import CniError, Code
from topo.system import inside

_PATIENCE = "25ms"
# What the kernel's numbers have room for (struct tc_tbf_qopt): bytes a second, and the time that a burst takes, as it
# is counted in 64 ns. Nothing here is as fast as the first, 34 Gbit/s.
_MOST, _LONGEST = 2**32 - 1, 270


@dataclass(frozen=True, slots=True)
class Bucket:
    """rate: bit/s; burst: bits."""

    rate: int
    burst: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Of what enters the pod, and of what leaves it; None: no limit."""

    ingress: Bucket | None = None
    egress: Bucket | None = None


def read(told: Mapping[str, Any]) -> Limits:
    """From the capability argument `bandwidth`. Raises CniError."""
    given = told.get("bandwidth") or {}
    if not isinstance(given, Mapping):
        raise CniError(Code.INVALID_CONFIG, "runtimeConfig.bandwidth is no object", "expected ingressRate and so on")
    return Limits(*(_bucket(given, way) for way in ("ingress", "egress")))


def _bucket(given: Mapping[str, Any], way: str) -> Bucket | None:
    """None if neither is there: both are needed, as the plugin `bandwidth` says."""
    rate, burst = (given.get(f"{way}{what}") or 0 for what in ("Rate", "Burst"))
    if rate == burst == 0:
        return None
    if not (isinstance(rate, int) and isinstance(burst, int) and rate >= 8 and burst >= 8):
        said = f"runtimeConfig.bandwidth: {way}Rate {rate!r} and {way}Burst {burst!r} are no limit"
        raise CniError(Code.INVALID_CONFIG, said, "expected both, of 8 bits or more")
    return Bucket(rate, burst)


def limit(name: str, bucket: Bucket) -> None:
    """Hold what leaves by an interface of the present namespace to a rate. Raises CniError and NetlinkError."""
    with IPRoute() as ip:
        try:
            index, rate = socket.if_nametoindex(name), min(bucket.rate // 8, _MOST)
            burst = min(bucket.burst // 8, rate * _LONGEST)
            ip.tc("add", "tbf", index, 0x10000, rate=rate, burst=burst, latency=_PATIENCE)
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                raise CniError(
                    Code.INTERNAL, "limits of bandwidth need sch_tbf, which this kernel lacks", "modprobe sch_tbf"
                ) from error
            raise


def check(limits: Limits, host: str, netns: str, name: str) -> None:
    """Raise CniError unless both ends are held as they should be."""
    if limits.ingress and not _is_limited(host):
        raise CniError(Code.NOT_AS_MADE, f"what leaves {host} is not limited")
    with inside(netns):
        if limits.egress and not _is_limited(name):
            raise CniError(Code.NOT_AS_MADE, f"what leaves {name} is not limited")


def _is_limited(name: str) -> bool:
    with IPRoute() as ip:
        found = ip.get_qdiscs(index=socket.if_nametoindex(name))
    return any(one.get_attr("TCA_KIND") == "tbf" for one in found)

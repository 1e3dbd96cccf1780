"""What Kubernetes refuses of texts that get into a pod's files, its probes' requests and the cluster's DNS.

Every rule is one that the API server has too (core/v1 and discovery/v1 validation); but for a request's path and
values, in which it takes control characters that HTTP has not (RFC 9110, section 5.5).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from topo.manifest_rules import DNS_LABEL, Object, Path, Problem, is_label, is_subdomain
from topo.yaml_source import show

_WORKLOADS = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job")
_SUBDOMAIN = "a DNS name (a-z, 0-9, '-' and '.')"
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# resolv.conf(5): words with a colon and a value at most.
_OPTION = re.compile(r"[-a-z0-9]+")


def problems(thing: Object) -> Iterator[Problem]:
    """Everything the rules find in an object that fits its schema."""
    spec = thing.get("spec") or {}
    if thing["kind"] == "Pod":
        yield from _pod(("spec",), spec)
    elif thing["kind"] in _WORKLOADS:
        yield from _pod(("spec", "template", "spec"), spec.get("template", {}).get("spec", {}))
    elif thing["kind"] == "EndpointSlice":
        for i, endpoint in enumerate(thing.get("endpoints") or ()):
            name = endpoint.get("hostname")
            if name and not is_label(name):
                yield Problem(("endpoints", i, "hostname"), f"{show(name)} is no host's name", DNS_LABEL)


def _pod(path: Path, spec: Object) -> Iterator[Problem]:
    for i, alias in enumerate(spec.get("hostAliases") or ()):
        for j, name in enumerate(alias.get("hostnames") or ()):
            if not is_subdomain(name):
                yield Problem((*path, "hostAliases", i, "hostnames", j), f"{show(name)} is no host's name", _SUBDOMAIN)
    yield from _dns((*path, "dnsConfig"), spec.get("dnsConfig") or {})
    for group in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(group) or ()):
            for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                asked = (container.get(probe) or {}).get("httpGet") or {}
                yield from _request((*path, group, i, probe, "httpGet"), asked)


def _dns(path: Path, config: Object) -> Iterator[Problem]:
    for i, server in enumerate(config.get("nameservers") or ()):
        try:
            ipaddress.ip_address(server)
        except ValueError:
            yield Problem((*path, "nameservers", i), f"{show(server)} is no address", "an IP address")
    for i, domain in enumerate(config.get("searches") or ()):
        # A single dot is the root, and a name may end with it; Kubernetes lets names of services (_tcp) pass.
        if domain != "." and not is_subdomain(domain.removesuffix(".").replace("_", "a")):
            yield Problem((*path, "searches", i), f"{show(domain)} is no domain", _SUBDOMAIN)
    for i, option in enumerate(config.get("options") or ()):
        at, name, value = (*path, "options", i), option.get("name", ""), option.get("value") or ""
        if not _OPTION.fullmatch(name):
            yield Problem((*at, "name"), f"{show(name)} is no resolver's option", "as of resolv.conf(5): ndots")
        if re.search(r"\s", value) or _CONTROL.search(value):
            yield Problem((*at, "value"), f"{show(value)} is no value of an option", "one word")


def _request(path: Path, asked: Object) -> Iterator[Problem]:
    for name in ("path", "host"):
        if _CONTROL.search(asked.get(name) or ""):
            yield Problem((*path, name), f"{show(asked[name])} has a control character", "none")
    for i, header in enumerate(asked.get("httpHeaders") or ()):
        if not _TOKEN.fullmatch(header["name"]):
            yield Problem((*path, "httpHeaders", i, "name"), f"{show(header['name'])} is no header's name", "a token")
        if _CONTROL.search(header["value"]):
            yield Problem(
                (*path, "httpHeaders", i, "value"), f"{show(header['value'])} has a control character", "none"
            )

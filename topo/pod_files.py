"""/etc/resolv.conf and /etc/hosts of a pod, as a kubelet writes them: what they say (pure), and putting them there.

Sources: Kubernetes, "DNS for Services and Pods" (policies, dnsConfig) and "Adding entries to Pod /etc/hosts with
HostAliases"; resolv.conf(5), hosts(5).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo import system

LOG = logging.getLogger("mininetes")

Object = dict[str, Any]
RESOLV_CONF, HOSTS = "/etc/resolv.conf", "/etc/hosts"
# The Service whose address is the cluster's DNS. Its annotation: ADDRESS[:PORT] of the resolver that nodes use.
DNS_SERVICE = "kube-system", "kube-dns"
NODE_RESOLVER = "mininetes.dev/node-resolver"
DOMAIN = "cluster.local"
# Kubernetes, "DNS for Services and Pods", "DNS search domain list limits"; resolv.conf(5), MAXNS.
_MOST_SERVERS, _MOST_SEARCHES = 3, 32
_MS_BIND, _CLONE_FS = 0x1000, 0x200
_LOOPBACK = """\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


@dataclass(frozen=True, slots=True)
class Resolver:
    """What a resolv.conf says."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        """As a file, less what a resolver library would not read."""
        lines = [f"search {' '.join(self.searches[:_MOST_SEARCHES])}"] if self.searches else []
        lines += [f"nameserver {server}" for server in self.servers[:_MOST_SERVERS]]
        lines += [f"options {' '.join(self.options)}"] if self.options else []
        return "".join(f"{line}\n" for line in lines)


def needs_own(pod: Object) -> bool:
    """Whether a pod on its node's network needs a file that differs from the node's."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy", "ClusterFirst")
    return bool(policy in ("ClusterFirstWithHostNet", "None") or spec.get("dnsConfig") or spec.get("hostAliases"))


def files(pod: Object, address: str, dns: Object | None) -> dict[str, str]:
    """Path -> text of each file that the pod does not share with this machine.

    address: the pod's; dns: the Service of the cluster's DNS, None in a lab without one.
    """
    found = {HOSTS: _hosts(pod, address)}
    resolver = _resolver(pod, dns)
    return found if resolver is None else found | {RESOLV_CONF: resolver.text()}


def _resolver(pod: Object, dns: Object | None) -> Resolver | None:
    """None: the same as the node's, which is this machine's."""
    spec = pod["spec"]
    policy, more = spec.get("dnsPolicy", "ClusterFirst"), spec.get("dnsConfig") or {}
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    server = dns["spec"].get("clusterIP") if dns else None
    upstream = (dns["metadata"].get("annotations") or {}).get(NODE_RESOLVER) if dns else None
    if policy == "None":
        base = Resolver()
    elif policy.startswith("ClusterFirst") and server:
        domains = (f"{pod['metadata']['namespace']}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN)
        base = Resolver((server,), domains, ("ndots:5",))
    elif upstream:
        base = Resolver((upstream.partition(":")[0],))
    elif more:
        base = parse(_read(RESOLV_CONF))
    else:
        return None
    return _merge(base, more)


def _merge(base: Resolver, more: Mapping[str, Any]) -> Resolver:
    """With a pod's dnsConfig: its servers and searches after the others, its options instead of those of their name."""
    options = {option.partition(":")[0]: option for option in base.options}
    for option in more.get("options") or ():
        value = option.get("value")
        options[option["name"]] = option["name"] if value is None else f"{option['name']}:{value}"
    return Resolver(
        tuple(dict.fromkeys((*base.servers, *(more.get("nameservers") or ())))),
        tuple(dict.fromkeys((*base.searches, *(more.get("searches") or ())))),
        tuple(options.values()),
    )


def parse(text: str) -> Resolver:
    """A resolv.conf; of several search lines the last counts (resolv.conf(5))."""
    servers: list[str] = []
    searches: Sequence[str] = ()
    options: list[str] = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", server, *_]:
                servers.append(server)
            case ["search" | "domain", *names]:
                searches = names
            case ["options", *values]:
                options += values
    return Resolver(tuple(servers), tuple(searches), tuple(options))


def _hosts(pod: Object, address: str) -> str:
    spec, meta = pod["spec"], pod["metadata"]
    if spec.get("hostNetwork"):
        text = "# Kubernetes-managed hosts file (host network).\n" + _read(HOSTS)
    else:
        host = spec.get("hostname") or meta["name"]
        full = [f"{host}.{spec['subdomain']}.{meta['namespace']}.svc.{DOMAIN}"] if spec.get("subdomain") else []
        text = _LOOPBACK + _line(address, *full, host)
    if aliases := spec.get("hostAliases"):
        text += "\n# Entries added by HostAliases.\n"
        text += "".join(_line(alias["ip"], *(alias.get("hostnames") or ())) for alias in aliases)
    return text


def _line(*words: str) -> str:
    return "\t".join(words) + "\n"


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


class Placer:
    """Puts files over those of this machine in the mount namespace of a process (0.2 ms for two files)."""

    def __init__(self, folder: Path) -> None:
        """folder: on the capsule's tmpfs, which every mount namespace of the lab has; holds files for a moment only."""
        self._folder = folder
        self._home = -1
        self._targets: dict[str, str] = {}
        # A thread that enters mount namespaces may share neither root nor working directory with others (setns(2)).
        self._thread = ThreadPoolExecutor(1, "mounts", lambda: system.unshare(_CLONE_FS))

    def put(self, pid: int, contents: Mapping[str, str]) -> None:
        """Files by path, all or none. That they cannot be placed is logged: the pod runs all the same."""
        try:
            self._thread.submit(self._put, pid, contents).result()
        except OSError as error:
            LOG.warning("%s of process %d: %s", ", ".join(contents), pid, error)

    def _put(self, pid: int, contents: Mapping[str, str]) -> None:
        if self._home < 0:
            self._home = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        sources = {self._target(path): self._folder / f"new-{Path(path).name}" for path in contents}
        for source, text in zip(sources.values(), contents.values(), strict=True):
            source.write_text(text)
            source.chmod(0o644)
        there = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            system.setns(there, system.CLONE_NEWNS)
            try:
                for target, source in sources.items():
                    system.mount(str(source), target, "none", _MS_BIND)
            finally:
                system.setns(self._home, system.CLONE_NEWNS)
        finally:
            os.close(there)
            for source in sources.values():  # the mount keeps it
                source.unlink()

    def _target(self, path: str) -> str:
        """Where a path leads. A link into /run leads nowhere in a capsule, whose /run is its own: a file is made there.

        (systemd-resolved(8): /etc/resolv.conf is a link to /run/systemd/resolve/stub-resolv.conf.)
        """
        if path not in self._targets:
            target = Path(os.path.realpath(path))
            if not target.exists() and target.is_relative_to("/run"):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            self._targets[path] = str(target)
        return self._targets[path]

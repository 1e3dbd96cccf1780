"""Read a lab file: kind's Cluster config plus our own section `mininetes`, to a LabConfig."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from topo.cluster.errors import InputError
from topo.config import FabricConfig, LabConfig, LinkConfig, NodeConfig
from topo.config_rules import fabric_links, problems, switch_names, validate
from topo.fabric import default_link
from topo.yaml_source import Document, Map, Seq, field_path, nearest, plain, read_documents, read_text, show

__all__ = ["LabFile", "default_config", "fabric_links", "load", "node_names", "parse", "switch_names", "validate"]

KIND, API_VERSION = "Cluster", "kind.x-k8s.io/v1alpha4"
ROLES = ("control-plane", "worker")
_TOP = ("kind", "apiVersion", "name", "nodes", "networking", "mininetes")
_ADDRESSES = ("nodeSubnet", "nodeCIDRBits", "loadBalancerPool")
_SERVED = ("honourInitialDelay", "ingress", "dns", "dnsUpstream")
_OWN = ("cni", "proxy", "bgp", "fabric", *_ADDRESSES, *_SERVED, "manifests")
# What kind's v1alpha4 has beyond what a lab heeds (kind, pkg/apis/config/v1alpha4/types.go).
_PATCHES = ("kubeadmConfigPatches", "kubeadmConfigPatchesJSON6902")
_IGNORED_TOP = (
    "featureGates",
    "runtimeConfig",
    "containerdConfigPatches",
    "containerdConfigPatchesJSON6902",
    *_PATCHES,
)
_IGNORED_NODE = ("image", "extraMounts", "extraPortMappings", "gpus", *_PATCHES)
_IGNORED_NETWORKING = ("apiServerAddress", "apiServerPort", "disableDefaultCNI", "dnsSearch")

# Options of a CNI that are paths (controllers/cni/conflist.py).
_CNI_PATHS = ("confDir", "binDirs")

_Path = tuple[str | int, ...]
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z%]*)")
# Field of a link: factor of each unit to LinkConfig's own, and what is expected.
_BITS = {"K": 1e-3, "M": 1.0, "G": 1e3}
_QUANTITIES: tuple[tuple[str, dict[str, float], str], ...] = (
    ("bandwidth", _BITS | {f"{k}bit": v for k, v in _BITS.items()}, "Mbit/s, or a text as 100M or 1G"),
    ("delay", {"us": 1e-3, "ms": 1.0, "s": 1e3}, "milliseconds, or a text as 10us, 1ms or 1s"),
    ("loss", {"%": 1.0}, 'percent, or a text as "1%"'),
)


@dataclass(frozen=True, slots=True)
class LabFile:
    """What a lab file says. manifests: paths as seen from the working directory; ignored: fields of no effect here."""

    config: LabConfig
    manifests: tuple[Path, ...] = ()
    ignored: tuple[str, ...] = ()


def load(path: Path) -> LabFile:
    """Read a lab file. Raises InputError."""
    return parse(read_text(path), str(path))


def parse(text: str, name: str) -> LabFile:
    """Read a lab file's text; `name` stands for its path, and manifests are relative to that. Raises InputError."""
    documents = [d for d in read_documents(text, name) if d.value is not None]
    if len(documents) != 1:
        raise InputError(name, f"the file has {len(documents)} documents", f"one of kind {KIND}")
    return _Reader(documents[0]).lab()


def node_names(roles: Iterable[str]) -> list[str]:
    """As kind names nodes, without the cluster's name: control-plane, control-plane2, worker, worker2."""
    counts: dict[str, int] = {}
    names = []
    for role in roles:
        counts[role] = counts.get(role, 0) + 1
        names.append(role if counts[role] == 1 else f"{role}{counts[role]}")
    return names


def default_config(nodes: int = 3) -> LabConfig:
    """A control plane and workers, everything else by default. Raises InputError unless nodes >= 1."""
    if nodes < 1:
        raise InputError("nodes", f"{nodes} is out of range", "1 or more")
    config = LabConfig(nodes=_nodes(("control-plane", *["worker"] * (nodes - 1))))
    validate(config)
    return config


def _nodes(roles: Iterable[str]) -> tuple[NodeConfig, ...]:
    roles = list(roles)
    return tuple(
        NodeConfig(n, "worker" if r == "worker" else "control-plane")
        for n, r in zip(node_names(roles), roles, strict=True)
    )


class _Reader:
    """Reads one document, placing errors and noting what has no effect. A null field is an absent one."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.ignored: list[str] = []

    def lab(self) -> LabFile:
        top = self.mapping(
            (), self.document.value, ("kind", "apiVersion", "name", "nodes", "networking", "mininetes"), _IGNORED_TOP
        )
        for key, wanted in (("kind", KIND), ("apiVersion", API_VERSION)):
            if top.get(key) != wanted:
                said = f"{show(top[key])} is no lab file's {key}" if key in top else f"{key} is missing"
                raise self.error((key,), said, wanted)
        path = ("mininetes",)
        own = self.mapping(path, top.get("mininetes"), _OWN)
        values: dict[str, Any] = {"nodes": self.nodes(top.get("nodes"))}
        values |= self.networking(top.get("networking"))
        values |= self.cni((*path, "cni"), own.get("cni"))
        values["fabric"] = self.fabric((*path, "fabric"), own.get("fabric"))
        values["proxy_options"] = plain(self.mapping((*path, "proxy"), own.get("proxy"), None))
        values["bgp"] = plain(self.mapping((*path, "bgp"), own.get("bgp"), None))
        if "name" in top:
            values["name"] = self.text(("name",), top["name"])
        for key, name, read in (
            ("nodeSubnet", "node_subnet", self.subnet),
            ("loadBalancerPool", "load_balancer_pool", self.subnet),
            ("nodeCIDRBits", "node_cidr_bits", self.integer),
            ("honourInitialDelay", "honour_initial_delay", self.boolean),
            ("ingress", "ingress", self.ingress),
            ("dns", "dns", self.boolean),
            ("dnsUpstream", "dns_upstream", self.text),
        ):
            if key in own:
                values[name] = read((*path, key), own[key])
        config = LabConfig(**values)
        for problem in problems(config):
            raise self.error(problem.path, problem.problem, problem.expected)
        return LabFile(config, self.manifests((*path, "manifests"), own.get("manifests")), tuple(self.ignored))

    def nodes(self, value: Any) -> tuple[NodeConfig, ...]:
        if value is None:
            return _nodes(("control-plane", "worker", "worker"))
        roles, labels = [], []
        for i, item in enumerate(self.items(("nodes",), value)):
            path = ("nodes", i)
            node = self.mapping(path, item, ("role", "labels"), _IGNORED_NODE)
            role = self.text((*path, "role"), node.get("role", "control-plane"))  # kind's default
            if role not in ROLES:
                raise self.error((*path, "role"), f"unknown role {show(role)}", " or ".join(ROLES))
            roles.append(role)
            own = self.mapping((*path, "labels"), node.get("labels"), None)
            labels.append({k: self.text((*path, "labels", k), v) for k, v in own.items()})
        return tuple(replace(node, labels=own) for node, own in zip(_nodes(roles), labels, strict=True))

    def networking(self, value: Any) -> dict[str, Any]:
        path = ("networking",)
        known = ("ipFamily", "podSubnet", "serviceSubnet", "kubeProxyMode")
        given = self.mapping(path, value, known, _IGNORED_NETWORKING)
        if given.get("ipFamily", "ipv4") != "ipv4":
            raise self.error((*path, "ipFamily"), f"{show(given['ipFamily'])} is not there: labs are IPv4 only", "ipv4")
        out: dict[str, Any] = {}
        for key, name in (("podSubnet", "pod_subnet"), ("serviceSubnet", "service_subnet")):
            if key in given:
                out[name] = self.subnet((*path, key), given[key])
        if "kubeProxyMode" in given:
            out["proxy_mode"] = self.text((*path, "kubeProxyMode"), given["kubeProxyMode"])
            if not out["proxy_mode"]:
                raise self.error((*path, "kubeProxyMode"), "the name is empty", "a name, or no such field")
        return out

    def cni(self, path: _Path, value: Any) -> dict[str, Any]:
        if value is None:
            return {}
        if isinstance(value, str):
            return {"cni": value}
        if not isinstance(value, Map):
            raise self.error(path, f"{show(value)} is wrong", "a CNI's name, or a mapping of name and options")
        options = plain(self.mapping(path, value, None))
        if "name" not in options:
            raise self.error((*path, "name"), "the field is missing", "the CNI's name")
        return {"cni": self.text((*path, "name"), options.pop("name")), "cni_options": self.placed(options)}

    def placed(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options of a CNI with the paths among them as seen from the working directory, as manifests' are."""
        folder = Path(self.document.name).parent
        for name in set(_CNI_PATHS) & set(options):
            value = options[name]
            if isinstance(value, list):
                options[name] = [str(folder / one) if isinstance(one, str) else one for one in value]
            elif isinstance(value, str):
                options[name] = str(folder / value)
        return options

    def fabric(self, path: _Path, value: Any) -> FabricConfig:
        given = self.mapping(path, value, ("shape", "leaves", "spines", "routing", "link", "links"))
        out: dict[str, Any] = {k: self.integer((*path, k), given[k]) for k in ("leaves", "spines") if k in given}
        out |= {k: self.text((*path, k), given[k]) for k in ("shape", "routing") if k in given}
        link = self.link((*path, "link"), given.get("link"), LinkConfig())
        links = self.mapping((*path, "links"), given.get("links"), None, keep_null=True)
        whole = FabricConfig(**out, link=link)
        each = {
            name: self.link((*path, "links", name), own, default_link(whole, *name.partition("--")[::2]))
            for name, own in links.items()
        }
        return replace(whole, links=each)

    def link(self, path: _Path, value: Any, base: LinkConfig) -> LinkConfig:
        """The base with what is given; a null there is "not limited", so that one link can be freed of a limit."""
        given = self.mapping(path, value, ("bandwidth", "delay", "loss", "mtu"), keep_null=True)
        out: dict[str, Any] = {}
        for name, units, expected in _QUANTITIES:
            if name in given:
                out[name] = None if given[name] is None else self.quantity((*path, name), given[name], units, expected)
        if given.get("mtu") is not None:
            out["mtu"] = self.integer((*path, "mtu"), given["mtu"])
        return replace(base, **out)

    def ingress(self, path: _Path, value: Any) -> bool:
        """Whether the one Ingress controller there is was asked for, by its name."""
        if self.text(path, value) != "nginx":
            raise self.error(path, f"there is no Ingress controller {show(value)}", "nginx")
        return True

    def manifests(self, path: _Path, value: Any) -> tuple[Path, ...]:
        if value is None:
            return ()
        folder = Path(self.document.name).parent
        return tuple(folder / self.text((*path, i), v) for i, v in enumerate(self.items(path, value)))

    # What any field may be.

    def error(self, path: _Path, problem: str, expected: str) -> InputError:
        place = f"{self.document.name}:{self.document.line_of(path)}"
        return InputError(f"{place}: {field_path(path)}" if path else place, problem, expected)

    def mapping(
        self,
        path: _Path,
        value: Any,
        known: tuple[str, ...] | None,
        ignored: tuple[str, ...] = (),
        keep_null: bool = False,
    ) -> dict[str, Any]:
        """The fields that are not null; {} for null. known: all names there may be; ignored: those of no effect."""
        if value is None:
            return {}
        if not isinstance(value, Map):
            raise self.error(path, f"{show(value)} is wrong", "a mapping")
        for key in value if known is not None else ():
            if key in ignored:
                self.ignored.append(field_path((*path, key)))
            elif key not in (known or ()):
                raise self.error((*path, key), f"unknown field {show(key)}", nearest(key, (*(known or ()), *ignored)))
        return {k: v for k, v in value.items() if k not in ignored and (v is not None or keep_null)}

    def items(self, path: _Path, value: Any) -> list[Any]:
        """A list."""
        return list(self.typed(path, value, list, "a list"))

    def text(self, path: _Path, value: Any) -> str:
        """A string; a number or a boolean is told to stand in quotes."""
        return str(self.typed(path, value, str, "a string" if isinstance(value, Map | Seq) else "a string (in quotes)"))

    def boolean(self, path: _Path, value: Any) -> bool:
        """true or false."""
        return bool(self.typed(path, value, bool, "true or false"))

    def integer(self, path: _Path, value: Any) -> int:
        """An integer; true is none."""
        return int(self.typed(path, str(value) if isinstance(value, bool) else value, int, "an integer"))

    def typed(self, path: _Path, value: Any, kind: type, expected: str) -> Any:
        """The value, which must be of this type."""
        if not isinstance(value, kind):
            raise self.error(path, f"{show(value)} is wrong", expected)
        return value

    def subnet(self, path: _Path, value: Any) -> IPv4Network:
        """An IPv4 subnet, whose address must have no host bits."""
        text = self.text(path, value)
        address, _, prefix = text.partition("/")
        try:
            network: IPv4Network | None = IPv4Network(text, strict=False)
        except ValueError:
            network = None
        if network is None or not prefix.isdecimal():
            raise self.error(path, f"{show(text)} is no IPv4 subnet", "ADDRESS/PREFIX, as 10.244.0.0/16")
        if address != str(network.network_address):
            raise self.error(path, f"{show(text)} has bits beyond its prefix", str(network))
        return network

    def quantity(self, path: _Path, value: Any, units: Mapping[str, float], expected: str) -> float:
        """A number, or a text of number and unit."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(str(value))  # float() of a huge int raises, of its text is infinite
        match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
        if match is None or (match[2] and match[2] not in units):
            raise self.error(path, f"{show(value)} is wrong", expected)
        return float(match[1]) * (units[match[2]] if match[2] else 1.0)

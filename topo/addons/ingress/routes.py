"""Which endpoints answer which host and path: a pure function of the cluster's objects.

Rules of the Kubernetes documentation ("Ingress"): the host decides first, then the longest path, then Exact before
Prefix; what no rule takes goes to a defaultBackend. Where that leaves a choice, the oldest Ingress wins, as with
ingress-nginx. ImplementationSpecific means Prefix here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from topo import ingress_rules
from topo.ingress_rules import CLASS_ANNOTATION, TLS

Object = dict[str, Any]
CONTROLLER = "k8s.io/ingress-nginx"
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
KINDS = ("Ingress", "IngressClass", "Service", "EndpointSlice", "Secret")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A Service's port and its ready endpoints as ADDRESS:PORT; none: whoever asks is told 503."""

    name: str
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Location:
    """One path, percent-decoded; a Prefix matches by whole elements and has no slash at its end, but for "/"."""

    path: str
    exact: bool
    upstream: Upstream

    def matches(self, path: str) -> bool:
        """Whether a request for this decoded path is the location's."""
        if self.exact or path == self.path:
            return path == self.path
        return path.startswith(self.path if self.path == "/" else f"{self.path}/")


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM texts of a chain and its private key."""

    chain: str
    key: str


@dataclass(frozen=True, slots=True)
class Server:
    """What one host is answered with; host "": every other one. Locations in matching order, the first match counts."""

    host: str
    locations: tuple[Location, ...]
    certificate: Certificate | None

    def match(self, path: str) -> Location | None:
        """The location of a decoded path, or None: 404."""
        return next((x for x in self.locations if x.matches(path)), None)


@dataclass(frozen=True, slots=True)
class Routes:
    """Servers by host, the one of every other host first; served: (namespace, name) of each Ingress in it."""

    servers: tuple[Server, ...]
    served: tuple[tuple[str, str], ...]

    def upstreams(self) -> list[Upstream]:
        """Every upstream once, by name."""
        found = {x.upstream.name: x.upstream for server in self.servers for x in server.locations}
        return [found[name] for name in sorted(found)]


def build(objects: Iterable[Object]) -> Routes:
    """The routes that these objects of KINDS ask for."""
    by_kind: dict[str, list[Object]] = {kind: [] for kind in KINDS}
    for thing in objects:
        if thing["kind"] in by_kind:
            by_kind[thing["kind"]].append(thing)
    ours = sorted(served(by_kind["Ingress"], by_kind["IngressClass"]), key=_age)
    backends = _Backends(by_kind["Service"], by_kind["EndpointSlice"])
    hosts: dict[str, list[tuple[Object, Object]]] = {"": []}  # host -> rules with their Ingress, the oldest first
    for ingress in ours:
        for rule in ingress["spec"].get("rules") or ():
            if ingress_rules.is_host(rule.get("host") or "any"):
                hosts.setdefault(rule.get("host") or "", []).append((ingress, rule))
    certificates = _certificates(ours, by_kind["Secret"])
    locations = {host: _locations(host, rules, ours, backends) for host, rules in hosts.items()}
    for host in set(certificates) - set(hosts):
        # A certificate of its own needs a server of its own, which answers as the one that had the host before.
        locations[host] = locations[wildcard if (wildcard := _wildcard(host)) in hosts else ""]
    servers = [
        Server(h, locations[h], certificates.get(h) or certificates.get(_wildcard(h))) for h in sorted(locations)
    ]
    return Routes(tuple(servers), tuple((i["metadata"]["namespace"], i["metadata"]["name"]) for i in ours))


def served(ingresses: Iterable[Object], classes: Iterable[Object]) -> Iterator[Object]:
    """The Ingresses whose class names this controller.

    Kubernetes, "Ingress: default IngressClass": of several defaults none is taken.
    """
    classes = list(classes)
    names = {c["metadata"]["name"] for c in classes if c.get("spec", {}).get("controller") == CONTROLLER}
    defaults = [c for c in classes if (c["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"]
    default = defaults[0]["metadata"]["name"] if len(defaults) == 1 else None
    for ingress in ingresses:
        legacy = (ingress["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
        if (ingress["spec"].get("ingressClassName") or legacy or default) in names:
            yield ingress


def _age(thing: Object) -> tuple[str, str, str]:
    meta = thing["metadata"]
    return meta.get("creationTimestamp", ""), meta["namespace"], meta["name"]


def _wildcard(host: str) -> str:
    """The rule that covers the host if no other does: a wildcard stands for one label."""
    return f"*.{host.partition('.')[2]}" if host else ""


def _locations(
    host: str, rules: list[tuple[Object, Object]], ours: list[Object], backends: _Backends
) -> tuple[Location, ...]:
    found: list[tuple[str, Location]] = []
    for ingress, rule in rules:
        for path in (rule.get("http") or {}).get("paths") or ():
            text, kind = path.get("path") or "/", path["pathType"]
            if not ingress_rules.is_path(text, kind):
                continue  # refused where it was applied; never in a configuration
            text, upstream = unquote(text), backends.upstream(ingress, path["backend"])
            exact = kind == "Exact"
            found.append((text, Location(text if exact else text.rstrip("/") or "/", exact, upstream)))
    default = _default(host, [ingress for ingress, _ in rules], ours)
    if default is not None:
        found.append(("/", Location("/", False, backends.upstream(default, default["spec"]["defaultBackend"]))))
    # Stable, so that of equals the oldest Ingress stays first. Of /a and /a/, one path as Prefix, the longer wins.
    found.sort(key=lambda one: (-len(one[0]), not one[1].exact))
    first: dict[tuple[str, bool], Location] = {}
    for _, location in found:
        first.setdefault((location.path, location.exact), location)
    return tuple(sorted(first.values(), key=lambda x: (-len(x.path), x.path, not x.exact)))


def _default(host: str, of_host: list[Object], ours: list[Object]) -> Object | None:
    """The Ingress whose defaultBackend takes what no rule of the host takes.

    An Ingress without rules is one for every host ("Ingress: default backend"). A host that no rule names is no rule's
    business, so that any Ingress's default takes it.
    """
    have = [i for i in ours if i["spec"].get("defaultBackend")]
    mine = [i for i in have if i in of_host]
    every = [i for i in have if not i["spec"].get("rules")]
    return next(iter(mine + every + ([] if host else have)), None)


class _Backends:
    """Looks a backend's endpoints up."""

    def __init__(self, services: Iterable[Object], slices: Iterable[Object]) -> None:
        self._services = {(s["metadata"]["namespace"], s["metadata"]["name"]): s for s in services}
        self._slices: dict[tuple[str, str], list[Object]] = {}
        for one in slices:
            name = (one["metadata"].get("labels") or {}).get("kubernetes.io/service-name", "")
            self._slices.setdefault((one["metadata"]["namespace"], name), []).append(one)

    def upstream(self, ingress: Object, backend: Mapping[str, Any]) -> Upstream:
        """The upstream of a backend. One of another kind than Service, which nginx cannot ask, has no endpoints."""
        service = backend.get("service")
        namespace = ingress["metadata"]["namespace"]
        if service is None:
            resource = backend.get("resource") or {}
            return Upstream(f"{namespace}/{resource.get('kind')}/{resource.get('name')}", ())
        port = service.get("port") or {}
        name = f"{namespace}/{service['name']}:{port.get('name') or port.get('number')}"
        return Upstream(name, tuple(self._endpoints((namespace, service["name"]), port)))

    def _endpoints(self, key: tuple[str, str], port: Mapping[str, Any]) -> list[str]:
        ports = (self._services[key]["spec"].get("ports") or ()) if key in self._services else ()
        field, value = ("name", port["name"]) if port.get("name") else ("port", port.get("number"))
        named = next((p.get("name") or "" for p in ports if p.get(field) == value and _is_tcp(p)), None)
        found = {
            (address, number["port"])
            for one in self._slices.get(key, ())
            for number in one.get("ports") or ()
            if one["addressType"] == "IPv4" and (number.get("name") or "") == named and _is_tcp(number)
            for endpoint in one.get("endpoints") or ()
            # Kubernetes, "EndpointSlices: conditions": unknown is to be taken as ready.
            if (endpoint.get("conditions") or {}).get("ready") is not False
            for address in endpoint["addresses"][:1]
        }
        return [f"{address}:{number}" for address, number in sorted(found)]


def _is_tcp(port: Mapping[str, Any]) -> bool:
    return (port.get("protocol") or "TCP") == "TCP"


def _certificates(ours: Iterable[Object], secrets: Iterable[Object]) -> dict[str, Certificate]:
    """Certificate by host, the oldest Ingress's first; without hosts an entry is for those of its Ingress's rules."""
    by_name = {(s["metadata"]["namespace"], s["metadata"]["name"]): s for s in secrets}
    found: dict[str, Certificate] = {}
    for ingress in ours:
        spec = ingress["spec"]
        for tls in spec.get("tls") or ():
            secret = by_name.get((ingress["metadata"]["namespace"], tls.get("secretName") or ""))
            certificate = None if secret is None else _certificate(secret)
            hosts = tls.get("hosts") or [rule.get("host") or "" for rule in spec.get("rules") or [dict[str, str]()]]
            for host in hosts if certificate is not None else ():
                if not host or ingress_rules.is_host(host):
                    found.setdefault(host, certificate)  # type: ignore[arg-type]
    return found


def _certificate(secret: Object) -> Certificate | None:
    """The Secret's pair, or None if it is not one that can be served."""
    data = secret.get("data") or {}
    chain, key = (ingress_rules.decoded(data.get(name, "")) or b"" for name in ("tls.crt", "tls.key"))
    if secret.get("type") != TLS or ingress_rules.pem_problem(chain, key):
        return None
    # Outside its blocks a PEM file may hold anything, which nobody reads.
    return Certificate(chain.decode(errors="replace"), key.decode(errors="replace"))

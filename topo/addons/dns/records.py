"""What the cluster's DNS answers, as a function of its objects: nothing here sends or receives.

Rules: kubernetes/dns, docs/specification.md, schema 1.1.0 ("the specification" below); where it leaves a choice, or
where programs have come to rely on more, CoreDNS' plugin kubernetes as kubeadm sets it up (`pods insecure`, reverse
zones that fall through to the upstream). Names are lower case and end in a dot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

Object = dict[str, Any]
# Names below a Service's own ("" for that itself) -> type -> data. A name without types has names below it only.
Names = dict[str, dict[str, dict[str, None]]]

KINDS = ("Namespace", "Service", "EndpointSlice")
DOMAIN, SCHEMA = "cluster.local", "1.1.0"
SERVICE = "kube-system", "kube-dns"
_SLICE_OF = "kubernetes.io/service-name"
_REVERSE = (".in-addr.arpa.", ".ip6.arpa.")
# CNAMEs followed before a chain is taken for a loop.
_CHAIN = 8
# Seconds; CoreDNS, plugin/kubernetes: "ttl [...] the default is 5 seconds". Also how long a name's absence is kept.
TTL = 5


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record of class IN; data as in a zone file."""

    name: str
    kind: str
    data: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An authoritative answer. elsewhere: where a chain of CNAMEs leaves the zone, the name to ask for in its stead."""

    rcode: str = "NOERROR"
    records: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    elsewhere: str = ""


class Zone:
    """The cluster's objects and what they answer. What a change concerns is worked out anew at the next question."""

    def __init__(self, domain: str = DOMAIN, service: tuple[str, str] = SERVICE) -> None:
        """service: namespace and name of the one that leads to this server, for the zone's NS record."""
        self.domain, self.service = f"{domain}.", service
        self.revision = 0
        self._namespaces = {"default"}  # which no manifest has to bring
        self._services: dict[tuple[str, str], Object] = {}
        self._slices: dict[tuple[str, str], Object] = {}
        self._slices_of: dict[tuple[str, str], set[tuple[str, str]]] = {}
        self._names: dict[tuple[str, str], Names] = {}
        self._pointers: dict[str, tuple[str, ...]] | None = None

    def take(self, events: Iterable[tuple[str, Object]], revision: int = 0) -> None:
        """Note changes: (ADDED, MODIFIED or DELETED; object). revision: becomes the zone's serial number."""
        for event, thing in events:
            there, meta = event != "DELETED", thing["metadata"]
            key = meta.get("namespace", ""), meta["name"]
            if thing["kind"] == "Namespace":
                (self._namespaces.add if there else self._namespaces.discard)(meta["name"])
            elif thing["kind"] == "Service":
                _put(self._services, key, thing if there else None)
                self._names.pop(key, None)
                self._pointers = None
            elif thing["kind"] == "EndpointSlice":
                self._take_slice(key, thing if there else None)
        self.revision = revision & 0xFFFFFFFF

    def _take_slice(self, key: tuple[str, str], thing: Object | None) -> None:
        for version in (self._slices.get(key), thing):
            if version is not None:
                owner = key[0], (version["metadata"].get("labels") or {}).get(_SLICE_OF, "")
                members = self._slices_of.setdefault(owner, set())
                (members.discard if version is not thing else members.add)(key)
                self._names.pop(owner, None)
        _put(self._slices, key, thing)
        self._pointers = None

    def lookup(self, name: str, kind: str) -> Answer | None:
        """The answer to a question; None if the name is none of ours and the upstream should be asked."""
        if name.endswith(_REVERSE):
            found = self._reverse().get(name, ()) if kind in ("PTR", "ANY") else ()
            return Answer(records=tuple(Record(name, "PTR", target) for target in found)) if found else None
        if not self._is_ours(name):
            return None
        chain: list[Record] = []
        while (have := self._at(name)) is not None:
            if "CNAME" not in have or kind in ("CNAME", "ANY"):
                kinds = have if kind == "ANY" else (kind,)
                records = (Record(name, k, data) for k in kinds for data in have.get(k, ()))
                return self._finish(Answer(records=(*chain, *records)), bool(chain))
            target = next(iter(have["CNAME"]))
            chain.append(Record(name, "CNAME", target))
            name = target.lower()
            if not self._is_ours(name):
                return Answer(records=tuple(chain), elsewhere=target)
            if len(chain) == _CHAIN:
                return Answer(rcode="SERVFAIL")
        # RFC 6604, 3: the last name of a chain decides whether it is NXDOMAIN.
        return Answer("NXDOMAIN", tuple(chain), (self._soa(),))

    def _finish(self, answer: Answer, chained: bool) -> Answer:
        """With the SOA if there is nothing (RFC 2308, 2.2), with addresses of what SRV records lead to."""
        if not answer.records or (chained and answer.records[-1].kind == "CNAME"):
            return replace(answer, authority=(self._soa(),))
        targets = dict.fromkeys(r.data.split()[-1] for r in answer.records if r.kind in ("SRV", "NS"))
        return replace(answer, additional=tuple(r for target in targets for r in self._addresses(target)))

    def _is_ours(self, name: str) -> bool:
        return name == self.domain or name.endswith(f".{self.domain}")

    def _soa(self) -> Record:
        return Record(self.domain, "SOA", next(iter((self._at(self.domain) or {})["SOA"])))

    def _addresses(self, name: str) -> Iterator[Record]:
        have = self._at(name) or {}
        return (Record(name, kind, data) for kind in ("A", "AAAA") for data in have.get(kind, ()))

    def _at(self, name: str) -> Mapping[str, Iterable[str]] | None:
        """Everything that one of the zone's names has, by type; None if there is neither it nor a name below it."""
        labels = name[: -len(self.domain)].split(".")[-2::-1]
        match labels:
            case []:
                times = f"7200 1800 86400 {TTL}"
                soa = f"ns.dns.{self.domain} hostmaster.{self.domain} {self.revision} {times}"
                return {"SOA": (soa,), "NS": (f"ns.dns.{self.domain}",)}
            case ["dns-version"]:
                return {"TXT": (f'"{SCHEMA}"',)}
            case ["dns", *rest]:
                own = self._names_of(self.service).get("")
                if own is not None and rest in ([], ["ns"]):
                    return {kind: own[kind] for kind in ("A", "AAAA") if rest and kind in own}
            case ["svc" | "pod"]:
                return {}
            case ["svc" | "pod", namespace] if self._has(namespace):
                return {}
            case ["pod", namespace, address] if self._has(namespace):
                return _pod(address)
            case ["svc", namespace, service, *rest]:
                return self._names_of((namespace, service)).get(".".join(reversed(rest)))
        return None

    def _has(self, namespace: str) -> bool:
        """A lab takes objects of a namespace that no manifest declares; it is there all the same."""
        return namespace in self._namespaces or any(where == namespace for where, _ in self._services)

    def _names_of(self, key: tuple[str, str]) -> Names:
        names = self._names.get(key)
        if names is None:
            service = self._services.get(key)
            if service is None:
                return {}
            slices = (self._slices[name] for name in sorted(self._slices_of.get(key, ())))
            names = self._names[key] = service_names(service, slices, self.domain)
        return names

    def _reverse(self) -> Mapping[str, tuple[str, ...]]:
        """PTR name -> names: a ClusterIP's Service, else the endpoints that have the address.

        As the specification says for headless Services; for others as CoreDNS, endpoints with a hostname only.
        """
        if self._pointers is None:
            services: dict[str, dict[str, None]] = {}
            endpoints: dict[str, dict[str, None]] = {}
            for key, service in sorted(self._services.items()):
                base, headless = f"{key[1]}.{key[0]}.svc.{self.domain}", _is_headless(service)
                for prefix, have in self._names_of(key).items():
                    for address in (*have.get("A", ()), *have.get("AAAA", ())):
                        if not prefix and not headless:
                            services.setdefault(pointer(address), {})[base] = None
                        elif prefix and (headless or prefix != dashed(address)):
                            endpoints.setdefault(pointer(address), {})[f"{prefix}.{base}"] = None
            self._pointers = {name: tuple(targets) for name, targets in (endpoints | services).items()}
        return self._pointers


def service_names(service: Object, slices: Iterable[Object], domain: str) -> Names:
    """Every name of one Service, {} if it has none (yet): specification, 2.3 to 2.5."""
    spec, meta = service["spec"], service["metadata"]
    base = f"{meta['name']}.{meta['namespace']}.svc.{domain}"
    names: Names = {}
    if spec.get("type") == "ExternalName":
        target = str(spec.get("externalName", "")).rstrip(".")
        if target and not is_address(target):  # a name of digits is looked up nowhere (CoreDNS has none either)
            _add(names, "", "CNAME", f"{target}.")
        return names
    always = bool(spec.get("publishNotReadyAddresses"))
    endpoints = list(_endpoints(slices, always))
    for address, host, _ in endpoints:
        # Beyond the specification for a Service with a ClusterIP, but CoreDNS has them.
        _add(names, host, kind_of(address), address)
    if _is_headless(service):
        found = [(host, ports) for _, host, ports in endpoints]
        for address, _, _ in endpoints:
            _add(names, "", kind_of(address), address)
        targets = [(name, proto, port, f"{host}.{base}") for host, ports in found for name, proto, port in ports]
    else:
        addresses = [a for a in spec.get("clusterIPs") or [spec.get("clusterIP")] if a]
        if not addresses:
            return {}
        for address in addresses:
            _add(names, "", kind_of(address), address)
        targets = [(*_port(port), base) for port in spec.get("ports") or () for _ in addresses]
    _services(names, targets)
    return names


def _services(names: Names, targets: list[tuple[str, str, int, str]]) -> None:
    """SRV records. The specification wants them for named ports; CoreDNS has all of them at the Service's name too.

    Priority and weight are free; these are CoreDNS' (RFC 2782's weights, shared out of 100).
    """
    for name, protocol, port, target in targets:
        _add(names, "", "SRV", f"0 {max(1, 100 // len(targets))} {port} {target}")
        if name:
            alike = sum(other[:2] == (name, protocol) for other in targets)
            _add(names, f"_{name}._{protocol}", "SRV", f"0 {max(1, 100 // alike)} {port} {target}")
            names.setdefault(f"_{protocol}", {})  # RFC 8020: NXDOMAIN would deny the names below it


def _endpoints(slices: Iterable[Object], always: bool) -> Iterator[tuple[str, str, list[tuple[str, str, int]]]]:
    """(address, hostname, its ports) of each ready endpoint. always: those that are not ready too.

    No condition means ready (EndpointConditions, discovery.k8s.io/v1).
    """
    for one in slices:
        if one.get("addressType", "IPv4") not in ("IPv4", "IPv6"):
            continue
        ports = [_port(port) for port in one.get("ports") or () if port.get("port") is not None]
        for endpoint in one.get("endpoints") or ():
            if always or (endpoint.get("conditions") or {}).get("ready") is not False:
                for address in endpoint["addresses"]:
                    yield address, (endpoint.get("hostname") or dashed(address)).lower(), ports


def _port(port: Object) -> tuple[str, str, int]:
    return (port.get("name") or "").lower(), port.get("protocol", "TCP").lower(), port["port"]


def _pod(text: str) -> Mapping[str, Iterable[str]] | None:
    """A pod's name, whether there is such a pod or not (specification, 2.6; CoreDNS: pods insecure)."""
    for address in (text.replace("-", "."), text.replace("-", ":")):
        if is_address(address):
            return {kind_of(address): (str(ip_address(address)),)}
    return None


def pointer(address: str) -> str:
    """The name of an address's PTR record."""
    return f"{ip_address(address).reverse_pointer}."


def dashed(address: str) -> str:
    """CoreDNS' name for an endpoint without a hostname: its address with dashes."""
    return address.replace(".", "-").replace(":", "-")


def kind_of(address: str) -> str:
    """The type of an address's record."""
    return "AAAA" if ":" in address else "A"


def is_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address."""
    for kind in (IPv4Address, IPv6Address):
        try:
            kind(text)
        except ValueError:
            continue
        return True
    return False


def _is_headless(service: Object) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")


def _add(names: Names, name: str, kind: str, data: str) -> None:
    names.setdefault(name, {}).setdefault(kind, {})[data] = None


def _put(where: dict[tuple[str, str], Object], key: tuple[str, str], thing: Object | None) -> None:
    if thing is None:
        where.pop(key, None)
    else:
        where[key] = thing

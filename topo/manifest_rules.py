"""What Kubernetes refuses although its schemas allow it: names, labels, ports, selectors and Service types.

Every rule is one that the API server has too (pkg/apis/{core,apps,batch,discovery}/validation of Kubernetes); those
that have no bearing on the network (volumes, resources, security contexts) are left out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from topo.cluster.labels import matches
from topo.yaml_source import show

Path = tuple[str | int, ...]
Object = dict[str, Any]


class Problem(NamedTuple):
    """One thing that is wrong: where in the object, what, and what would be right (may be empty)."""

    path: Path
    problem: str
    expected: str = ""


_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?=[a-z0-9-]{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_PROTOCOLS = ("TCP", "UDP", "SCTP")

DNS_LABEL = "at most 63 of a-z, 0-9 and '-', with a letter or digit at both ends (RFC 1123 label)"
_DNS_LABEL_1035 = "at most 63 of a-z, 0-9 and '-', a letter first, a letter or digit last (RFC 1035 label)"
_DNS_SUBDOMAIN = "at most 253 of a-z, 0-9, '-' and '.', with a letter or digit at both ends (RFC 1123 subdomain)"
_PORT_NAME_RULE = "at most 15 of a-z, 0-9 and single '-' between them, with one letter at least (RFC 6335 service name)"
# Kubernetes, "Object Names and IDs": other kinds take a subdomain.
_LABEL_KINDS = ("Namespace", "StatefulSet")
_CLUSTER_KINDS = (
    *("Namespace", "Node", "IngressClass", "IPAddress", "ServiceCIDR"),
    *("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "GlobalNetworkPolicy", "GlobalNetworkSet"),
)
_WORKLOADS = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job")


def is_label(text: str) -> bool:
    """Whether the text is a DNS label (RFC 1123)."""
    return _LABEL.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Whether the text is a DNS subdomain (RFC 1123), as Kubernetes understands it."""
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None


def namespaced(kind: str) -> bool:
    """Whether objects of this supported kind live in a namespace."""
    return kind not in _CLUSTER_KINDS


def labels(path: Path, values: Mapping[str, str]) -> Iterator[Problem]:
    """Keys and values of labels or of a selector by equality."""
    for key, value in values.items():
        yield from _label_key((*path, key), key)
        if value and not _QUALIFIED.fullmatch(value):
            expected = "at most 63 of A-Z, a-z, 0-9, '-', '_' and '.', with a letter or digit at both ends, or ''"
            yield Problem((*path, key), f"{show(value)} is no label value", expected)


def problems(thing: Object) -> Iterator[Problem]:
    """Everything the rules find in one object that fits its schema, with defaults filled in."""
    kind, spec = thing["kind"], thing.get("spec", {})
    yield from _metadata(kind, thing.get("metadata", {}))
    match kind:
        case "Service":
            yield from _service(spec)
        case "Pod":
            yield from _pod(("spec",), spec)
        case kind if kind in _WORKLOADS:
            yield from _workload(kind, spec)
        case "EndpointSlice":
            yield from _endpoint_slice(thing)
        case "Node":
            yield from _node(spec)


def fill_defaults(thing: Object) -> None:
    """Fill in, in place, what the API server would: namespace, Service type, protocols, target ports, hostPorts."""
    kind, spec = thing["kind"], thing.get("spec", {})
    if namespaced(kind) and not thing["metadata"].get("namespace"):
        thing["metadata"]["namespace"] = "default"
    if kind == "Service":
        spec["type"] = spec.get("type") or "ClusterIP"
        for port in spec.get("ports", ()):
            port["protocol"] = port.get("protocol") or "TCP"
            port["targetPort"] = port.get("targetPort") or port["port"]
    elif kind == "EndpointSlice":
        for port in thing.get("ports", ()):
            port["protocol"] = port.get("protocol") or "TCP"
    pod = spec if kind == "Pod" else spec.get("template", {}).get("spec", {}) if kind in _WORKLOADS else {}
    for container in pod.get("initContainers", []) + pod.get("containers", []):
        for port in container.get("ports", ()):
            port["protocol"] = port.get("protocol") or "TCP"
            if pod.get("hostNetwork"):
                port["hostPort"] = port.get("hostPort") or port["containerPort"]


def _metadata(kind: str, meta: Object) -> Iterator[Problem]:
    name, where = meta.get("name", ""), ("metadata", "name")
    if not name:
        made = "generateName makes up no name here" if meta.get("generateName") else f"the {kind} has no name"
        yield Problem(where, made, f"a name: every {kind} in a file is known by its own")
    elif kind == "Service":
        if not _LABEL_1035.fullmatch(name):
            yield Problem(where, f"{show(name)} is no name for a Service", _DNS_LABEL_1035)
    elif kind in _LABEL_KINDS:
        if not is_label(name):
            yield Problem(where, f"{show(name)} is no name for a {kind}", DNS_LABEL)
    elif not is_subdomain(name):
        yield Problem(where, f"{show(name)} is no name for a {kind}", _DNS_SUBDOMAIN)
    namespace = meta.get("namespace", "")
    if not namespaced(kind) and namespace:
        yield Problem(("metadata", "namespace"), f"a {kind} is in no namespace", "no such field")
    elif namespace and not is_label(namespace):
        yield Problem(("metadata", "namespace"), f"{show(namespace)} is no namespace's name", DNS_LABEL)
    yield from labels(("metadata", "labels"), meta.get("labels", {}))
    for key in meta.get("annotations", {}):
        yield from _label_key(("metadata", "annotations", key), key.lower())  # their case is free


def _service(spec: Object) -> Iterator[Problem]:
    kind, ports, address = spec.get("type", "ClusterIP"), spec.get("ports", []), spec.get("clusterIP", "")
    yield from _choices(("spec",), spec, _SERVICE_CHOICES)
    if kind == "ExternalName":
        if not is_subdomain(spec.get("externalName", "").removesuffix(".")):
            yield Problem(
                ("spec", "externalName"), f"{show(spec.get('externalName', ''))} is no DNS name", _DNS_SUBDOMAIN
            )
        if address:
            yield Problem(("spec", "clusterIP"), "an ExternalName Service has no cluster IP", "no such field")
    elif not ports and address != "None":
        yield Problem(("spec", "ports"), "the Service has no ports", 'one at least, or clusterIP: "None"')
    if address == "None":
        if kind in ("NodePort", "LoadBalancer"):
            yield Problem(
                ("spec", "clusterIP"), f"a {kind} Service cannot be headless", "an IPv4 address or no such field"
            )
    elif address:
        yield from _address(("spec", "clusterIP"), address, 'an IPv4 address, "None" or ""')
    if spec.get("clusterIPs") and spec["clusterIPs"][0] != address:
        yield Problem(("spec", "clusterIPs", 0), f"{show(spec['clusterIPs'][0])} differs from clusterIP", "the same")
    for i, external in enumerate(spec.get("externalIPs", ())):
        yield from _address(("spec", "externalIPs", i), external)
    for i, source in enumerate(spec.get("loadBalancerSourceRanges", ())):
        yield from _cidr(("spec", "loadBalancerSourceRanges", i), source)
    yield from labels(("spec", "selector"), spec.get("selector", {}))
    timeout = spec.get("sessionAffinityConfig", {}).get("clientIP", {}).get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= 86400:
        path = ("spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds")
        yield Problem(path, f"{timeout} is out of range", "1 to 86400 seconds")
    for i, port in enumerate(ports):
        yield from _service_port(("spec", "ports", i), port, kind, named=len(ports) > 1)
    at = ("spec", "ports")
    yield from _unique(at, ports, lambda p: p.get("name"), "the name", ("name",))
    yield from _unique(at, ports, lambda p: f"{p['port']}/{p['protocol']}", "the port", ("port",))
    node_port = lambda p: f"{p['nodePort']}/{p['protocol']}" if p.get("nodePort") else None  # noqa: E731
    yield from _unique(at, ports, node_port, "the node port", ("nodePort",))


def _service_port(path: Path, port: Object, kind: str, named: bool) -> Iterator[Problem]:
    name = port.get("name", "")
    if not name and named:
        yield Problem((*path, "name"), "the port has no name", "a name for each of several ports")
    if name and not is_label(name):
        yield Problem((*path, "name"), f"{show(name)} is no port's name", DNS_LABEL)
    yield from port_number((*path, "port"), port["port"])
    yield from port_number((*path, "targetPort"), port["targetPort"], name_allowed=True)
    yield from _choices(path, port, {"protocol": _PROTOCOLS})
    if number := port.get("nodePort"):
        if kind not in ("NodePort", "LoadBalancer"):
            yield Problem((*path, "nodePort"), f"a {kind} Service has no node ports", "type NodePort or LoadBalancer")
        if not 30000 <= number <= 32767:
            yield Problem((*path, "nodePort"), f"{show(number)} is out of range", "30000 to 32767")


def _workload(kind: str, spec: Object) -> Iterator[Problem]:
    for name in ("replicas", "parallelism", "completions", "minReadySeconds", "backoffLimit"):
        if spec.get(name, 0) < 0:
            yield Problem(("spec", name), f"{spec[name]} is negative", "0 or more")
    if "strategy" in spec:
        yield from _choices(("spec", "strategy"), spec["strategy"], {"type": ("Recreate", "RollingUpdate")})
    if "updateStrategy" in spec:
        yield from _choices(("spec", "updateStrategy"), spec["updateStrategy"], {"type": ("OnDelete", "RollingUpdate")})
    yield from _choices(("spec",), spec, {"podManagementPolicy": ("OrderedReady", "Parallel")})
    if spec.get("serviceName") and not is_label(spec["serviceName"]):  # its pods would have it as their subdomain
        yield Problem(("spec", "serviceName"), f"{show(spec['serviceName'])} is no Service's name", DNS_LABEL)
    template = spec.get("template", {})
    own = template.get("metadata", {}).get("labels", {})
    yield from labels(("spec", "template", "metadata", "labels"), own)
    selector = spec.get("selector", {})
    yield from label_selector(("spec", "selector"), selector)
    if kind != "Job":  # a Job's controller makes selector and labels
        if not any(selector.values()):
            yield Problem(("spec", "selector"), f"the {kind} selects no labels", "matchLabels or matchExpressions")
        elif not matches(selector, own):
            wanted = "the labels that spec.selector wants"
            yield Problem(
                ("spec", "template", "metadata", "labels"), "spec.selector does not match the template", wanted
            )
    pod = template.get("spec", {})
    policy, allowed = pod.get("restartPolicy", "Always"), ("Never", "OnFailure") if kind == "Job" else ("Always",)
    yield from _pod(("spec", "template", "spec"), pod)
    if policy not in allowed:
        path = ("spec", "template", "spec", "restartPolicy")
        yield Problem(path, f"{show(policy)} cannot be the policy of a {kind}", " or ".join(allowed))


def _pod(path: Path, spec: Object) -> Iterator[Problem]:
    yield from _choices(path, spec, _POD_CHOICES)
    for name in ("hostname", "subdomain"):
        if spec.get(name) and not is_label(spec[name]):
            yield Problem((*path, name), f"{show(spec[name])} is no {name}", DNS_LABEL)
    yield from labels((*path, "nodeSelector"), spec.get("nodeSelector", {}))
    for i, toleration in enumerate(spec.get("tolerations", ())):
        yield from _choices((*path, "tolerations", i), toleration, _TOLERATION_CHOICES)
    for i, alias in enumerate(spec.get("hostAliases", ())):
        yield from _address((*path, "hostAliases", i, "ip"), alias["ip"], any_family=True)
    if not spec.get("containers"):
        yield Problem((*path, "containers"), "there are no containers", "one container at least")
    found = [
        ((*path, group, i), c) for group in ("initContainers", "containers") for i, c in enumerate(spec.get(group, ()))
    ]
    names: set[str] = set()
    host_ports: set[str] = set()
    for where, container in found:
        name = container["name"]
        if not is_label(name):
            yield Problem((*where, "name"), f"{show(name)} is no container's name", DNS_LABEL)
        if name in names:
            yield Problem((*where, "name"), f"the name {show(name)} is taken", "a name of its own for each container")
        names.add(name)
        yield from _container(where, container, bool(spec.get("hostNetwork")))
        for i, port in enumerate(container.get("ports", ())) if where[-2] == "containers" else ():
            key = f"{port.get('hostIP', '')}:{port.get('hostPort')}/{port['protocol']}"
            if port.get("hostPort") and key in host_ports:
                yield Problem((*where, "ports", i, "hostPort"), f"host port {key.lstrip(':')} is taken", "another port")
            host_ports.add(key)


def _container(path: Path, container: Object, host_network: bool) -> Iterator[Problem]:
    ports = container.get("ports", [])
    for i, port in enumerate(ports):
        at = (*path, "ports", i)
        if port.get("name") and not _PORT_NAME.fullmatch(port["name"]):
            yield Problem((*at, "name"), f"{show(port['name'])} is no port's name", _PORT_NAME_RULE)
        yield from port_number((*at, "containerPort"), port["containerPort"])
        if port.get("hostPort"):
            yield from port_number((*at, "hostPort"), port["hostPort"])
            if host_network and port["hostPort"] != port["containerPort"]:
                yield Problem((*at, "hostPort"), "differs from containerPort on the host's network", "the same")
        if port.get("hostIP"):
            yield from _address((*at, "hostIP"), port["hostIP"], any_family=True)
        yield from _choices(at, port, {"protocol": _PROTOCOLS})
    yield from _unique((*path, "ports"), ports, lambda p: p.get("name"), "the name", ("name",))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            yield from _probe((*path, name), container[name])


def _probe(path: Path, probe: Object) -> Iterator[Problem]:
    handlers = [h for h in ("exec", "httpGet", "tcpSocket", "grpc") if h in probe]
    if len(handlers) != 1:
        said = " and ".join(handlers) or "no handler"
        yield Problem(path, f"the probe has {said}", "one of exec, httpGet, tcpSocket and grpc")
    for handler in handlers:
        if handler != "exec":
            yield from port_number((*path, handler, "port"), probe[handler]["port"], name_allowed=handler != "grpc")
    if "httpGet" in probe:
        yield from _choices((*path, "httpGet"), probe["httpGet"], {"scheme": ("HTTP", "HTTPS")})
    for name in ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold"):
        if probe.get(name, 0) < 0:
            yield Problem((*path, name), f"{probe[name]} is negative", "0 or more")


def _endpoint_slice(thing: Object) -> Iterator[Problem]:
    family, ports = thing["addressType"], thing.get("ports", [])
    yield from _choices((), thing, {"addressType": ("IPv4", "IPv6", "FQDN")})
    for i, endpoint in enumerate(thing.get("endpoints", ())):
        at = ("endpoints", i, "addresses")
        if not 1 <= len(endpoint["addresses"]) <= 100:
            yield Problem(at, f"{len(endpoint['addresses'])} addresses", "1 to 100")
        for j, address in enumerate(endpoint["addresses"]):
            if family == "FQDN" and not is_subdomain(address):
                yield Problem((*at, j), f"{show(address)} is no DNS name", _DNS_SUBDOMAIN)
            elif family in ("IPv4", "IPv6") and _parsed(ipaddress.ip_address, address, int(family[-1])) is None:
                yield Problem((*at, j), f"{show(address)} is no {family} address", f"an {family} address")
    for i, port in enumerate(ports):
        if port.get("name") and not is_label(port["name"]):
            yield Problem(("ports", i, "name"), f"{show(port['name'])} is no port's name", DNS_LABEL)
        if "port" in port:
            yield from port_number(("ports", i, "port"), port["port"])
        yield from _choices(("ports", i), port, {"protocol": _PROTOCOLS})
    yield from _unique(("ports",), ports, lambda p: p.get("name", ""), "the name", ("name",))


def _node(spec: Object) -> Iterator[Problem]:
    if spec.get("podCIDR"):
        yield from _cidr(("spec", "podCIDR"), spec["podCIDR"])
    for i, taint in enumerate(spec.get("taints", ())):
        yield from _label_key(("spec", "taints", i, "key"), taint["key"])
        yield from _choices(("spec", "taints", i), taint, {"effect": _EFFECTS})


def label_selector(path: Path, selector: Object) -> Iterator[Problem]:
    """A label selector: keys, values and operators."""
    yield from labels((*path, "matchLabels"), selector.get("matchLabels", {}))
    for i, term in enumerate(selector.get("matchExpressions", ())):
        at = (*path, "matchExpressions", i)
        yield from _label_key((*at, "key"), term["key"])
        yield from _choices(at, term, {"operator": ("In", "NotIn", "Exists", "DoesNotExist")})
        if (term["operator"] in ("In", "NotIn")) != bool(term.get("values")):
            wanted = "one value at least" if term["operator"] in ("In", "NotIn") else "no values"
            yield Problem((*at, "values"), f"does not fit operator {show(term['operator'])}", wanted)


_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_SERVICE_CHOICES = {
    "type": ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
    "sessionAffinity": ("None", "ClientIP"),
    "externalTrafficPolicy": ("Cluster", "Local"),
    "internalTrafficPolicy": ("Cluster", "Local"),
    "trafficDistribution": ("PreferClose", "PreferSameZone", "PreferSameNode"),
}
_POD_CHOICES = {
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
}
_TOLERATION_CHOICES = {"operator": ("Equal", "Exists", "Lt", "Gt"), "effect": _EFFECTS}


def _choices(path: Path, thing: Object, allowed: Mapping[str, tuple[str, ...]]) -> Iterator[Problem]:
    """Fields that may have only a few values. An empty one is absent."""
    for name, values in allowed.items():
        if thing.get(name) and thing[name] not in values:
            yield Problem((*path, name), f"unknown {name} {show(thing[name])}", f"one of {', '.join(values)}")


def _unique(
    path: Path, things: Iterable[Object], key: Callable[[Object], str | None], what: str, field: Path
) -> Iterator[Problem]:
    """No two things with one key; None has none."""
    seen: dict[str, int] = {}
    for i, thing in enumerate(things):
        value = key(thing)
        if value is not None and seen.setdefault(value, i) != i:
            first = seen[value]
            yield Problem((*path, i, *field), f"{what} {show(value)} is taken by {path[-1]}[{first}]", "another one")


def port_number(path: Path, value: object, name_allowed: bool = False) -> Iterator[Problem]:
    """A port by number, or by a container port's name."""
    if isinstance(value, str) and name_allowed:
        if not _PORT_NAME.fullmatch(value):
            yield Problem(path, f"{show(value)} is no port's name", f"1 to 65535, or {_PORT_NAME_RULE}")
    elif not isinstance(value, int) or not 1 <= value <= 65535:
        yield Problem(path, f"{show(value)} is no port", "1 to 65535")


def _label_key(path: Path, key: str) -> Iterator[Problem]:
    prefix, slash, name = key.rpartition("/")
    if not _QUALIFIED.fullmatch(name) or (slash and not is_subdomain(prefix)):
        expected = "[PREFIX/]NAME: NAME at most 63 of A-Z, a-z, 0-9, '-', '_', '.'; PREFIX a DNS subdomain"
        yield Problem(path, f"{show(key)} is no key", expected)


def _address(path: Path, text: str, expected: str = "", any_family: bool = False) -> Iterator[Problem]:
    if _parsed(ipaddress.ip_address, text, 0 if any_family else 4) is None:
        default = "an IP address" if any_family else "an IPv4 address"
        yield Problem(path, f"{show(text)} is no {default[3:]}", expected or default)


def _cidr(path: Path, text: str) -> Iterator[Problem]:
    if "/" not in text or _parsed(lambda t: ipaddress.ip_network(t, strict=False), text.strip(), 0) is None:
        yield Problem(path, f"{show(text)} is no CIDR", "ADDRESS/PREFIX, as 10.0.0.0/8")


def _parsed(parse: Callable[[str], Any], text: str, version: int) -> Any:
    """The parsed value, or None if it cannot be or is of another IP version (0: any)."""
    try:
        value = parse(text)
    except ValueError:
        return None
    return value if version in (0, value.version) else None

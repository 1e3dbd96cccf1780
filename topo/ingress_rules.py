"""What Kubernetes refuses of an Ingress, an IngressClass and a Secret although its schemas allow it.

Sources: the Kubernetes documentation ("Ingress", "Secrets") and the API server's rules of networking/v1 and core/v1.
Ours alone: a TLS Secret must hold a certificate and its key (the API server takes any bytes, and then nobody learns why
they are not served), and a path has a greatest length, which is nginx's.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote_to_bytes

from topo.manifest_rules import Object, Path, Problem, is_label, is_subdomain
from topo.yaml_source import show

TLS = "kubernetes.io/tls"
PATH_TYPES = ("Exact", "Prefix", "ImplementationSpecific")
# nginx reads a word of its configuration into 4096 bytes; each byte may need a backslash.
MAX_PATH = 1024
CLASS_ANNOTATION = "kubernetes.io/ingress.class"

_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_PORT_NAME = re.compile(r"(?=[a-z0-9-]{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_SECRET_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_HOST = "a DNS name (a-z, 0-9, '-' and '.'), or one with '*.' in front"


def problems(thing: Object, written: Object) -> Iterator[Problem]:
    """Everything the rules find in one of the three kinds that fits its schema; nothing for other kinds.

    written: the object as it stands in the file, before stringData became data.
    """
    match thing["kind"]:
        case "Ingress":
            yield from _ingress(thing)
        case "IngressClass":
            yield from _ingress_class(thing.get("spec", {}))
        case "Secret":
            yield from _secret(thing, written.get("stringData") or {})


def fill_defaults(thing: Object) -> None:
    """Fill in, in place, what the API server would: a Secret's type, and its stringData as data."""
    if thing["kind"] == "Secret":
        thing["type"] = thing.get("type") or "Opaque"
        plain = {k: base64.b64encode(v.encode()).decode() for k, v in thing.pop("stringData", {}).items()}
        if plain:  # it wins over data of the same key
            thing["data"] = {**thing.get("data", {}), **plain}


def unheeded(thing: Object) -> list[str]:
    """Annotations by which ingress-nginx would be told something that this lab's controller does not do."""
    notes = thing["metadata"].get("annotations", {}) if thing["kind"] == "Ingress" else {}
    return [key for key in notes if key.startswith("nginx.ingress.kubernetes.io/")]


def is_host(text: str) -> bool:
    """Whether a rule may have this host: a DNS name, or one whose first label is '*'; no address."""
    name = text.removeprefix("*.")
    return is_subdomain(name) and len(text) <= 253 and not _is_address(name)


def is_path(text: str, kind: str) -> bool:
    """Whether a path of this pathType is one that requests can have."""
    return not list(_path((), text, kind))


def decoded(data: object) -> bytes | None:
    """A value of a Secret's data, base64 as the API reads it (it passes over line breaks); None if it is none."""
    try:
        return base64.b64decode(re.sub(r"[\r\n]", "", str(data)), validate=True)
    except (binascii.Error, ValueError):
        return None


def pem_problem(certificate: bytes, key: bytes) -> tuple[str, str, str] | None:
    """What makes this pair unfit for TLS, as (tls.crt or tls.key, problem, expected), or None.

    OpenSSL is asked, which nginx asks too: a pair that it refuses would keep nginx from serving anything new.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=certificate.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        return "tls.crt", "holds no certificate", "a PEM text -----BEGIN CERTIFICATE-----"
    with _in_memory(certificate) as certificate_file, _in_memory(key) as key_file:
        try:
            # Without a password OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(certificate_file, key_file, password=lambda: "")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                wanted = "the key the certificate was made with"
                return "tls.key", "is not the key of the certificate in tls.crt", wanted
            if error.reason and "TOO_" in error.reason:  # EE_KEY_TOO_SMALL, CA_MD_TOO_WEAK
                said = error.reason.lower().replace("_", " ")
                return "tls.crt", f"OpenSSL refuses the certificate: {said}", "2048 bits of RSA or more, SHA-256"
            return "tls.key", "holds no private key", "a PEM text -----BEGIN PRIVATE KEY-----, not encrypted"
    return None


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """The path of a file that is on no disk: a private key has no business there."""
    with os.fdopen(os.memfd_create("pem"), "wb", buffering=0) as file:
        file.write(data)
        yield f"/proc/self/fd/{file.fileno()}"


def _ingress(thing: Object) -> Iterator[Problem]:
    if "spec" not in thing:
        yield Problem(("spec",), "the field is missing", "rules or a defaultBackend")
        return
    spec, annotations = thing["spec"], thing["metadata"].get("annotations", {})
    if not spec.get("rules") and "defaultBackend" not in spec:
        yield Problem(("spec",), "the Ingress has neither rules nor a defaultBackend", "one of them at least")
    if name := spec.get("ingressClassName"):
        if not is_subdomain(name):
            yield Problem(("spec", "ingressClassName"), f"{show(name)} is no IngressClass's name", "a DNS subdomain")
        if CLASS_ANNOTATION in annotations:
            path = ("metadata", "annotations", CLASS_ANNOTATION)
            yield Problem(path, "is there beside spec.ingressClassName", "one of them, better the field")
    if "defaultBackend" in spec:
        yield from _backend(("spec", "defaultBackend"), spec["defaultBackend"])
    for i, rule in enumerate(spec.get("rules", ())):
        at: Path = ("spec", "rules", i)
        if rule.get("host"):
            yield from _host((*at, "host"), rule["host"])
        if "http" in rule:
            yield from _http((*at, "http", "paths"), rule["http"]["paths"])
    for i, tls in enumerate(spec.get("tls", ())):
        at = ("spec", "tls", i)
        for j, host in enumerate(tls.get("hosts", ())):
            yield from _host((*at, "hosts", j), host)
        if tls.get("secretName") and not is_subdomain(tls["secretName"]):
            problem = f"{show(tls['secretName'])} is no Secret's name"
            yield Problem((*at, "secretName"), problem, "a DNS subdomain")


def _http(at: Path, paths: list[Object]) -> Iterator[Problem]:
    if not paths:
        yield Problem(at, "the rule has no paths", "one at least, or no http")
    for i, path in enumerate(paths):
        kind = path["pathType"]
        if kind not in PATH_TYPES:
            yield Problem((*at, i, "pathType"), f"unknown pathType {show(kind)}", f"one of {', '.join(PATH_TYPES)}")
        else:
            yield from _path((*at, i, "path"), path.get("path", ""), kind)
        yield from _backend((*at, i, "backend"), path["backend"])


def _host(at: Path, host: str) -> Iterator[Problem]:
    if _is_address(host):
        yield Problem(at, f"{show(host)} is an address", "a DNS name; a rule without host answers every address")
    elif not is_host(host):
        yield Problem(at, f"{show(host)} is no host", _HOST)


def _path(at: Path, path: str, kind: str) -> Iterator[Problem]:
    """Kubernetes, "Ingress: path types"; the sequences are those a normalised request cannot have."""
    if not path and kind == "ImplementationSpecific":
        return
    bad = [part for part in ("//", "/./", "/../", "%2f", "%2F") if part in path]
    bad += [end for end in ("/.", "/..") if path.endswith(end)]
    if not path.startswith("/"):
        yield Problem(at, f"{show(path)} does not begin with '/'" if path else "the path is empty", "a path as /shop")
    elif bad and kind != "ImplementationSpecific":
        yield Problem(at, f"{show(path)} has {show(bad[0])}", "a path without //, /./, /../ and %2F")
    elif _CONTROL.search(unquote_to_bytes(path)):
        yield Problem(at, f"{show(path)} has a control character", "none")
    elif len(path.encode()) > MAX_PATH:
        yield Problem(at, f"the path has {len(path.encode())} bytes", f"at most {MAX_PATH}")


def _backend(at: Path, backend: Object) -> Iterator[Problem]:
    if ("service" in backend) == ("resource" in backend):
        said = "service and resource" if "service" in backend else "neither service nor resource"
        yield Problem(at, f"the backend has {said}", "one of them")
    if "service" not in backend:
        return
    at = (*at, "service")
    service = backend["service"]
    port = service.get("port", {})
    if not _SERVICE_NAME.fullmatch(service["name"]):
        yield Problem((*at, "name"), f"{show(service['name'])} is no Service's name", "a label as RFC 1035 has it")
    name, number = port.get("name"), port.get("number")
    if bool(name) == bool(number):
        said = "name and number" if name else "neither name nor number"
        yield Problem((*at, "port"), f"the port has {said}", "one of them")
    elif name and not _PORT_NAME.fullmatch(name):
        yield Problem((*at, "port", "name"), f"{show(name)} is no port's name", "at most 15 of a-z, 0-9 and '-'")
    elif number and not 1 <= number <= 65535:
        yield Problem((*at, "port", "number"), f"{number} is no port", "1 to 65535")


def _ingress_class(spec: Object) -> Iterator[Problem]:
    controller, parameters = spec.get("controller", ""), spec.get("parameters", {})
    domain, slash, path = controller.partition("/")
    if not slash or not path or not is_subdomain(domain) or len(controller) > 250:
        said = f"{show(controller)} is no controller's name"
        yield Problem(("spec", "controller"), said, "DOMAIN/PATH, as k8s.io/ingress-nginx")
    at: Path = ("spec", "parameters")
    scope, namespace = parameters.get("scope", "Cluster"), parameters.get("namespace", "")
    if scope not in ("Cluster", "Namespace"):
        yield Problem((*at, "scope"), f"unknown scope {show(scope)}", "Cluster or Namespace")
    elif (scope == "Namespace") != bool(namespace):
        yield Problem((*at, "namespace"), "does not fit the scope", "a namespace for scope Namespace, none for Cluster")
    elif namespace and not is_label(namespace):
        yield Problem((*at, "namespace"), f"{show(namespace)} is no namespace's name", "a DNS label")


def _secret(thing: Object, plain: Object) -> Iterator[Problem]:
    def at(key: str) -> Path:
        return "stringData" if key in plain else "data", key

    data = thing.get("data", {})
    values = {key: decoded(text) for key, text in data.items()}
    for key, value in values.items():
        if not _SECRET_KEY.fullmatch(key):
            yield Problem(at(key), f"{show(key)} is no key", "at most 253 of a-z, A-Z, 0-9, '-', '_' and '.'")
        if value is None:
            yield Problem(at(key), "the value is no base64", "base64, or plain text under stringData")
    if thing["type"] != TLS:
        return
    for key in ("tls.crt", "tls.key"):
        if key not in data:
            yield Problem(
                at(key), "the field is missing", f"a PEM text in each of tls.crt and tls.key of a {TLS} Secret"
            )
    certificate, private = values.get("tls.crt"), values.get("tls.key")
    if certificate is not None and private is not None and (wrong := pem_problem(certificate, private)):
        yield Problem(at(wrong[0]), wrong[1], wrong[2])


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

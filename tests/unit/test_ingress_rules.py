"""Ingress, IngressClass and Secret manifests: what is taken, what is filled in, and one clear line for each mistake."""

from __future__ import annotations

import base64
import copy
import subprocess
from typing import Any

import pytest
import yaml
from ingress_cases import backend, ingress, rule

from topo import labfile, manifests
from topo.addons.ingress.certificate import self_signed
from topo.cluster.errors import InputError
from topo.ingress_rules import is_host, unheeded

PAIR, OTHER = self_signed("x.test", ("x.test",)), self_signed("y.test", ("y.test",))
Object = dict[str, Any]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def secret(crt: str = PAIR.chain, key: str = PAIR.key) -> Object:
    data = {"tls.crt": encoded(crt), "tls.key": encoded(key)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "kubernetes.io/tls", "data": data}


def loaded(thing: Object) -> Object:
    return manifests.load_text(yaml.safe_dump(thing), "f.yaml").objects[0]


def error(thing: Object) -> str:
    """The one line, less the file; it must have a place."""
    with pytest.raises(InputError) as caught:
        loaded(thing)
    text = str(caught.value)
    assert "\n" not in text
    place, _, rest = text.partition(": document 1, ")
    assert place.startswith("f.yaml:") and int(place[7:]) >= 1
    return rest


def edited(thing: Object, path: str, value: Any) -> Object:
    """A copy with a field set (or removed, for None); path: keys and indices with dots between."""
    new = at = copy.deepcopy(thing)
    *steps, last = [int(s) if s.isdigit() else s for s in path.split("/")]
    for step in steps:
        at = at[step]  # type: ignore[index]
    if value is None:
        del at[last]  # type: ignore[arg-type]
    else:
        at[last] = value  # type: ignore[index]
    return new


GOOD = ingress(
    "web",
    rule("x.test", ("Prefix", "/", "a"), ("Exact", "/a", "a"), ("ImplementationSpecific", "", "a")),
    rule(None, ("Prefix", "/", "a")),
    {"host": "*.x.test"},
    ingressClassName="nginx",
    defaultBackend=backend("a", "http"),
    tls=[{"hosts": ["x.test", "*.x.test"], "secretName": "s"}, {}],
)
PATH = "spec/rules/0/http/paths/0"
PORT = f"{PATH}/backend/service/port"


def test_a_good_ingress_stays_as_it_is() -> None:
    assert loaded(GOOD) == GOOD


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec", None, "spec: the field is missing; expected rules or a defaultBackend"),
        ("spec", {}, "spec: the Ingress has neither rules nor a defaultBackend; expected one of them at least"),
        (f"{PATH}/pathType", None, "pathType: the field is missing"),
        (
            f"{PATH}/pathType",
            "exact",
            "unknown pathType 'exact'; expected one of Exact, Prefix, ImplementationSpecific",
        ),
        (f"{PATH}/path", "shop", "spec.rules[0].http.paths[0].path: 'shop' does not begin with '/'"),
        (f"{PATH}/path", None, "path: the path is empty; expected a path as /shop"),
        (f"{PATH}/path", "/a//b", "path: '/a//b' has '//'"),
        (f"{PATH}/path", "/a/./b", "path: '/a/./b' has '/./'"),
        (f"{PATH}/path", "/a/..", "path: '/a/..' has '/..'"),
        (f"{PATH}/path", "/a%2fb", "path: '/a%2fb' has '%2f'"),
        (f"{PATH}/path", "/a\nb", "path: '/a\\nb' has a control character; expected none"),
        (f"{PATH}/path", "/a%0Ab", "path: '/a%0Ab' has a control character"),
        (f"{PATH}/path", "/" + "é" * 600, "path: the path has 1201 bytes; expected at most 1024"),
        ("spec/rules/0/http/paths", [], "spec.rules[0].http.paths: the rule has no paths"),
        (f"{PATH}/backend", {}, "backend: the backend has neither service nor resource; expected one of them"),
        (f"{PATH}/backend/resource", {"kind": "K", "name": "one"}, "backend: the backend has service and resource"),
        (f"{PATH}/backend/service/name", "1a", "service.name: '1a' is no Service's name"),
        (PORT, {}, "service.port: the port has neither name nor number; expected one of them"),
        (PORT, {"name": "a", "number": 1}, "service.port: the port has name and number"),
        (PORT, {"number": 70000}, "service.port.number: 70000 is no port; expected 1 to 65535"),
        (PORT, {"number": "80"}, "service.port.number: '80' is wrong; expected an integer"),
        (PORT, {"name": "Http"}, "service.port.name: 'Http' is no port's name"),
        ("spec/defaultBackend/service/port", {}, "spec.defaultBackend.service.port: the port has neither"),
        ("spec/rules/0/host", "X.test", "spec.rules[0].host: 'X.test' is no host; expected a DNS name"),
        ("spec/rules/0/host", "a.*.test", "host: 'a.*.test' is no host"),
        ("spec/rules/0/host", "*", "host: '*' is no host"),
        ("spec/rules/0/host", "10.0.0.1", "host: '10.0.0.1' is an address; expected a DNS name; a rule without host"),
        ("spec/rules/0/host", "x.test:80", "host: 'x.test:80' is no host"),
        ("spec/tls/0/hosts/1", "*.*.x", "spec.tls[0].hosts[1]: '*.*.x' is no host"),
        ("spec/tls/0/secretName", "S", "spec.tls[0].secretName: 'S' is no Secret's name"),
        ("spec/ingressClassName", "no_name", "spec.ingressClassName: 'no_name' is no IngressClass's name"),
        ("metadata/annotations", {"kubernetes.io/ingress.class": "x"}, "is there beside spec.ingressClassName"),
        ("spec/rules/0/http/pathz", [], "unknown field 'pathz'; expected paths"),
    ],
)
def test_a_mistake_in_an_ingress_is_named(path: str, value: Any, said: str) -> None:
    assert said in error(edited(GOOD, path, value))


@pytest.mark.parametrize("version", ["networking.k8s.io/v1beta1", "extensions/v1beta1"])
def test_an_old_version_is_named(version: str) -> None:
    thing = edited(GOOD, "apiVersion", version)
    assert error(thing) == f"apiVersion: {version!r} has no Ingress; expected networking.k8s.io/v1"


def test_what_implementation_specific_may_have() -> None:
    for path in ("/a//b", "/x/../y", "/a%2Fb"):
        assert loaded(edited(edited(GOOD, f"{PATH}/path", path), f"{PATH}/pathType", "ImplementationSpecific"))


@pytest.mark.parametrize(
    ("host", "good"), [("a", True), ("*.a.b", True), ("a.b-c", True), ("*a.b", False), ("", False)]
)
def test_hosts(host: str, good: bool) -> None:
    assert is_host(host) is good


def test_annotations_that_have_no_effect_are_told() -> None:
    notes = {"nginx.ingress.kubernetes.io/rewrite-target": "/", "example.com/other": "x"}
    assert unheeded(edited(GOOD, "metadata/annotations", notes)) == ["nginx.ingress.kubernetes.io/rewrite-target"]
    assert unheeded(GOOD) == []


CLASS: Object = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "IngressClass",
    "metadata": {"name": "nginx"},
    "spec": {"controller": "k8s.io/ingress-nginx"},
}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec/controller", "nginx", "spec.controller: 'nginx' is no controller's name; expected DOMAIN/PATH"),
        ("spec", {}, "spec.controller: '' is no controller's name"),
        ("metadata/namespace", "default", "metadata.namespace: a IngressClass is in no namespace"),
        (
            "spec/parameters",
            {"kind": "K", "name": "one", "scope": "All"},
            "unknown scope 'All'; expected Cluster or Name",
        ),
        ("spec/parameters", {"kind": "K", "name": "one", "scope": "Namespace"}, "parameters.namespace: does not fit"),
    ],
)
def test_a_mistake_in_an_ingress_class_is_named(path: str, value: Any, said: str) -> None:
    assert loaded(CLASS) == CLASS
    assert said in error(edited(CLASS, path, value))


def test_string_data_becomes_data_and_wins() -> None:
    thing = secret(OTHER.chain)
    thing["stringData"] = {"tls.crt": PAIR.chain, "note": "ä"}
    got = loaded(thing)
    assert "stringData" not in got and got["metadata"]["namespace"] == "default"
    assert got["data"] == {"tls.crt": encoded(PAIR.chain), "tls.key": encoded(PAIR.key), "note": encoded("ä")}


def test_a_secret_of_another_type_may_hold_anything() -> None:
    thing: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": encoded("b")}}
    assert loaded(thing)["type"] == "Opaque"
    assert "data.a: the value is no base64; expected base64" in error(edited(thing, "data/a", "plain text"))
    assert "is no key; expected at most 253" in error(edited(thing, "data", {"a b": ""}))


def test_base64_may_be_broken_into_lines() -> None:
    thing = secret()
    text = thing["data"]["tls.crt"]
    thing["data"]["tls.crt"] = "\n".join(text[i : i + 64] for i in range(0, len(text), 64)) + "\n"
    assert loaded(thing)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            "data/tls.key",
            None,
            "data[tls.key]: the field is missing; expected a PEM text in each of tls.crt and tls.key",
        ),
        ("data/tls.crt", "%%", "data[tls.crt]: the value is no base64"),
        ("data/tls.crt", encoded("nothing"), "data[tls.crt]: holds no certificate"),
        ("data/tls.key", encoded("nothing"), "data[tls.key]: holds no private key"),
        ("data/tls.key", encoded(OTHER.key), "data[tls.key]: is not the key of the certificate in tls.crt"),
        ("stringData", {"tls.key": OTHER.key}, "stringData[tls.key]: is not the key of the certificate in tls.crt"),
    ],
)
def test_a_mistake_in_a_tls_secret_is_named_and_no_secret_shown(path: str, value: Any, said: str) -> None:
    text = error(edited(secret(), path, value))
    assert said in text
    assert "PRIVATE KEY-----\n" not in text and secret()["data"]["tls.key"][:20] not in text


def test_a_pair_that_openssl_would_refuse_to_nginx_is_refused() -> None:
    def made(*options: str) -> Object:
        command = ["openssl", "req", "-x509", "-subj", "/CN=x", "-keyout", "/dev/stdout", *options]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        split = text.index("-----BEGIN CERTIFICATE")
        return secret(text[split:], text[:split])

    assert loaded(made("-newkey", "rsa:2048", "-nodes"))
    assert "data[tls.crt]: OpenSSL refuses the certificate: ee key too small" in error(
        made("-newkey", "rsa:512", "-nodes")
    )
    assert "data[tls.key]: holds no private key" in error(made("-newkey", "rsa:2048", "-passout", "pass:long"))


def test_a_chain_may_have_comments_and_further_certificates() -> None:
    assert loaded(secret(f"subject=ä\n{PAIR.chain}\nissuer=b\n{OTHER.chain}"))


def test_a_lab_file_may_ask_for_the_controller() -> None:
    head = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nmininetes: {ingress: "
    assert labfile.parse(f"{head}nginx}}", "lab.yaml").config.ingress
    assert not labfile.parse(f"{head}null}}", "lab.yaml").config.ingress
    for value, said in (
        ("traefik", "there is no Ingress controller 'traefik'; expected nginx"),
        ("true", "True is wrong"),
    ):
        with pytest.raises(InputError, match=f"lab.yaml:3: mininetes.ingress: {said}"):
            labfile.parse(f"{head}{value}}}", "lab.yaml")

"""Which backend answers which request: the outside cases, and every rule of which there is more than one reading."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import pytest
import yaml
from ingress_cases import PORTS, Case, Request, all_cases, backend, ingress, rule

from topo import manifests
from topo.addons.ingress import objects, routes, status
from topo.addons.ingress.certificate import self_signed
from topo.addons.ingress.routes import CONTROLLER, DEFAULT_CLASS, Routes, Server

Object = dict[str, Any]


def klass(name: str = "nginx", controller: str = CONTROLLER, default: bool = True) -> Object:
    notes = {DEFAULT_CLASS: "true"} if default else {}
    return {
        "kind": "IngressClass",
        "metadata": {"name": name, "annotations": notes},
        "spec": {"controller": controller},
    }


def service(name: str, namespace: str = "default") -> Object:
    ports = [{"name": port, "port": number, "protocol": "TCP"} for number, port in PORTS.items()]
    return {"kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": {"ports": ports}}


def endpoints(name: str, *addresses: str, namespace: str = "default", ready: bool | None = True) -> Object:
    """A slice whose pods listen on the Service's port + 1000."""
    return {
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-0", "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": port, "protocol": "TCP", "port": number + 1000} for number, port in PORTS.items()],
        "endpoints": [{"addresses": [a], "conditions": {} if ready is None else {"ready": ready}} for a in addresses],
    }


def secret(name: str, host: str, namespace: str = "default") -> Object:
    pair = self_signed(host, (host,))
    data = {"tls.crt": pair.chain, "tls.key": pair.key}
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "kubernetes.io/tls", "data": encoded}


def aged(thing: Object, second: int) -> Object:
    thing["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:{second:02}Z"
    return thing


def build(*things: Object, services: Iterable[str] = ("a", "b", "c"), classes: Iterable[Object] = (klass(),)) -> Routes:
    """Routes of these, beside Services of one ready endpoint each."""
    there = [x for name in services for x in (service(name), endpoints(name, "10.0.0.1"))]
    return routes.build([*classes, *there, *things])


def server_of(found: Routes, host: str) -> Server:
    """The server that nginx takes for a Host: the one of that name, of its wildcard, or the one of every other."""
    by_host = {s.host: s for s in found.servers}
    return by_host.get(host) or by_host.get(f"*.{host.partition('.')[2]}") or by_host[""]


def answer(found: Routes, host: str, path: str) -> str:
    """The Service that answers, "404", or "503 SERVICE"."""
    location = server_of(found, host).match(path)
    if location is None:
        return "404"
    name = location.upstream.name.partition("/")[2].partition(":")[0]
    return name if location.upstream.endpoints else f"503 {name}"


CASES = all_cases()


def test_no_outside_case_is_missing() -> None:
    assert len(CASES) == 17
    assert sum(len(case.requests) for case in CASES) == 22 + 6 + 18 + 29


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outside_case(case: Case) -> None:
    secrets = {name: secret(name, host) for name, host in case.secrets.items()}
    text = yaml.safe_dump_all([*case.ingresses, *secrets.values()])
    found = build(*manifests.load_text(text, case.name).objects, services=case.services())
    assert bool(found.served) == case.is_served
    for request in case.requests:
        assert (request, answer(found, request.host, request.path)) == (request, request.answer)
        if request.certificate:
            certificate = server_of(found, request.host).certificate
            data = secrets[request.certificate]["data"]
            assert certificate and base64.b64decode(data["tls.crt"]).decode() == certificate.chain


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_order_of_objects_changes_nothing(case: Case) -> None:
    services = [x for name in sorted(case.services()) for x in (service(name), endpoints(name, "10.0.0.1"))]
    things = [klass(), *services, *manifests.load_text(yaml.safe_dump_all(case.ingresses), case.name).objects]
    assert routes.build(things) == routes.build(things[::-1])


def test_nothing_gives_only_the_server_of_every_host() -> None:
    assert routes.build([]) == Routes((Server("", (), None),), ())
    assert answer(build(), "any", "/") == "404"


def test_a_backend_is_found_by_the_ports_name_and_by_its_number() -> None:
    for port in (8080, "http"):
        found = build(ingress("i", defaultBackend=backend("a", port)))
        assert [u.endpoints for u in found.upstreams()] == [("10.0.0.1:9080",)]


@pytest.mark.parametrize("port", [81, "no-such"])
def test_a_port_the_service_has_not_is_answered_by_503(port: int | str) -> None:
    assert answer(build(ingress("i", defaultBackend=backend("a", port))), "x", "/") == "503 a"


def test_a_missing_service_and_one_without_ready_endpoints_are_answered_by_503() -> None:
    both = ingress("i", rule("x", ("Prefix", "/gone", "gone"), ("Prefix", "/idle", "idle")))
    found = build(both, service("idle"), endpoints("idle", "10.0.0.9", ready=False))
    assert answer(found, "x", "/gone") == "503 gone"
    assert answer(found, "x", "/idle") == "503 idle"


def test_endpoints_of_unknown_readiness_are_ready() -> None:
    found = build(ingress("i", defaultBackend=backend("x")), service("x"), endpoints("x", "10.0.0.9", ready=None))
    assert found.upstreams()[0].endpoints == ("10.0.0.9:1080",)


def test_a_resource_as_backend_is_answered_by_503() -> None:
    found = build(ingress("i", defaultBackend={"resource": {"kind": "StorageBucket", "name": "static"}}))
    assert answer(found, "x", "/") == "503 StorageBucket/static"


def test_a_backend_is_of_the_ingresss_own_namespace() -> None:
    mine = ingress("i", defaultBackend=backend("a"))
    mine["metadata"]["namespace"] = "other"
    assert answer(build(mine), "x", "/") == "503 a"
    assert answer(build(mine, service("a", "other"), endpoints("a", "10.0.0.2", namespace="other")), "x", "/") == "a"


def test_ingresses_of_one_host_are_merged_and_the_oldest_wins() -> None:
    old = aged(ingress("z-old", rule("x", ("Prefix", "/one", "a"), ("Prefix", "/", "a"))), 1)
    new = aged(ingress("a-new", rule("x", ("Prefix", "/one", "b"), ("Prefix", "/two", "b"))), 2)
    for found in (build(old, new), build(new, old)):
        assert [answer(found, "x", path) for path in ("/one", "/two", "/three")] == ["a", "b", "a"]


def test_of_two_spellings_of_one_prefix_the_longer_wins() -> None:
    found = build(ingress("i", rule("x", ("Prefix", "/one", "a"), ("Prefix", "/one/", "b"))))
    assert [answer(found, "x", path) for path in ("/one", "/one/", "/one/two")] == ["b", "b", "b"]


def test_implementation_specific_is_prefix_and_may_be_empty() -> None:
    found = build(ingress("i", rule("x", ("ImplementationSpecific", "/one", "a"), ("ImplementationSpecific", "", "b"))))
    assert [answer(found, "x", path) for path in ("/one/two", "/onetwo", "/")] == ["a", "b", "b"]


def test_paths_are_compared_decoded() -> None:
    assert answer(build(ingress("i", rule("x", ("Exact", "/caf%C3%A9%20au", "a")))), "x", "/café au") == "a"


def test_a_host_of_its_own_wins_over_a_wildcard_and_that_over_no_host_even_where_no_path_fits() -> None:
    rules = rule("y.x", ("Prefix", "/y", "a")), rule("*.x", ("Prefix", "/", "b")), rule(None, ("Prefix", "/", "c"))
    found = build(ingress("i", *rules))
    asked = [("y.x", "/y"), ("y.x", "/"), ("z.x", "/"), ("x", "/"), ("a.b.x", "/")]
    assert [answer(found, *one) for one in asked] == ["a", "404", "b", "c", "c"]


def test_a_default_backend_takes_what_no_rule_takes() -> None:
    own = aged(ingress("own", rule("x", ("Prefix", "/x", "a")), defaultBackend=backend("b")), 1)
    found = build(own, aged(ingress("other", rule("y", ("Prefix", "/y", "a"))), 2))
    asked = [("x", "/x"), ("x", "/"), ("unknown", "/"), ("y", "/y"), ("y", "/")]
    assert [answer(found, *one) for one in asked] == ["a", "b", "b", "a", "404"]
    every = aged(ingress("every", defaultBackend=backend("c")), 3)
    found = build(own, every, aged(ingress("other", rule("y", ("Prefix", "/y", "a"))), 2))
    assert [answer(found, *one) for one in asked] == ["a", "b", "c", "a", "c"]


def test_a_rule_without_paths_sends_its_host_to_the_default_backend() -> None:
    found = build(ingress("i", {"host": "x"}, defaultBackend=backend("b")))
    assert answer(found, "x", "/any") == "b"


# Which Ingresses are ours


def is_served(thing: Object, *classes: Object) -> bool:
    return bool(routes.build([thing, *classes]).served)


def test_the_class_decides_whose_an_ingress_is() -> None:
    ours, theirs = klass(default=False), klass("other", "example.com/other", default=False)
    named = {
        name: ingress("i", defaultBackend=backend("a"), ingressClassName=name) for name in ("nginx", "other", "no")
    }
    assert [is_served(thing, ours, theirs) for thing in named.values()] == [True, False, False]
    assert not is_served(named["nginx"])


def test_without_a_class_the_default_one_takes_an_ingress() -> None:
    mine = ingress("i", defaultBackend=backend("a"))
    assert is_served(mine, klass())
    assert not is_served(mine, klass(default=False))
    assert not is_served(mine, klass(default=False), klass("other", "example.com/other"))
    assert not is_served(mine, klass(), klass("other", "example.com/other"))  # of two defaults none


def test_the_old_annotation_names_a_class_too() -> None:
    mine = ingress("i", defaultBackend=backend("a"))
    mine["metadata"]["annotations"] = {"kubernetes.io/ingress.class": "nginx"}
    assert is_served(mine, klass(default=False))
    mine["metadata"]["annotations"] = {"kubernetes.io/ingress.class": "traefik"}
    assert not is_served(mine, klass())


# Certificates


def test_certificates_by_host_wildcard_and_for_a_host_without_rules() -> None:
    tls = [{"hosts": ["x", "*.w", "y.v", "only.tls"], "secretName": "s"}]
    rules = [rule(host, ("Prefix", "/", "a")) for host in ("x", "z.w", "*.v", "plain")]
    found = build(ingress("i", *rules, rule(None, ("Prefix", "/", "b")), tls=tls), secret("s", "x"))
    has = {s.host: s.certificate is not None for s in found.servers}
    assert has == {
        "": False,
        "x": True,
        "z.w": True,
        "*.v": False,
        "y.v": True,
        "plain": False,
        "*.w": True,
        "only.tls": True,
    }
    assert answer(found, "y.v", "/") == "a"  # its rule is the wildcard's
    assert answer(found, "only.tls", "/") == "b"


def test_tls_without_hosts_is_for_the_hosts_of_the_rules() -> None:
    found = build(ingress("i", rule("x", ("Prefix", "/", "a")), tls=[{"secretName": "s"}]), secret("s", "x"))
    assert server_of(found, "x").certificate is not None and server_of(found, "").certificate is None
    found = build(ingress("i", defaultBackend=backend("a"), tls=[{"secretName": "s"}]), secret("s", "x"))
    assert server_of(found, "").certificate is not None


@pytest.mark.parametrize("harm", ["missing", "type", "certificate", "other namespace"])
def test_a_secret_that_cannot_be_served_leaves_the_default_certificate(harm: str) -> None:
    one = secret("s", "x", "other" if harm == "other namespace" else "default")
    if harm == "type":
        one["type"] = "Opaque"
    if harm == "certificate":
        one["data"]["tls.crt"] = one["data"]["tls.key"]
    mine = ingress("i", rule("x", ("Prefix", "/", "a")), tls=[{"hosts": ["x"], "secretName": "s"}])
    found = build(mine, *([] if harm == "missing" else [one]))
    assert server_of(found, "x").certificate is None and answer(found, "x", "/") == "a"


# What no manifest can hold, for it is refused there, but somebody may put into the store


@pytest.mark.parametrize("host", ["a b", 'a"; }', "*", "*.*.a", "1.2.3.4", "A", "a\nb"])
def test_a_host_that_is_none_is_left_out(host: str) -> None:
    assert [s.host for s in build(ingress("i", rule(host, ("Prefix", "/", "a")))).servers] == [""]


@pytest.mark.parametrize("path", ["no-slash", "/a\nb", "/%00", "/" + "a" * 2000, "/a//b"])
def test_a_path_that_is_none_is_left_out(path: str) -> None:
    assert server_of(build(ingress("i", rule("x", ("Prefix", path, "a")))), "x").locations == ()


# Status

SERVICE = (objects.NAMESPACE, objects.NAME)


def node(name: str, ip: str) -> Object:
    addresses = [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]
    return {"kind": "Node", "metadata": {"name": name}, "status": {"addresses": addresses}}


def test_the_address_is_the_load_balancers_or_that_of_the_controllers_node() -> None:
    own, slice_ = service(SERVICE[1], SERVICE[0]), endpoints(SERVICE[1], "10.0.0.3", namespace=SERVICE[0])
    slice_["endpoints"][0]["nodeName"] = "two"
    there = [own, slice_, node("one", "172.18.0.2"), node("two", "172.18.0.3")]
    assert status.addresses(there, SERVICE) == [{"ip": "172.18.0.3"}]
    own["status"] = {"loadBalancer": {"ingress": [{"ip": "172.18.200.1", "ipMode": "VIP"}]}}
    assert status.addresses(there, SERVICE) == [{"ip": "172.18.200.1"}]
    slice_["endpoints"][0]["conditions"]["ready"] = False
    del own["status"]
    assert status.addresses(there, SERVICE) == []


def test_only_what_is_out_of_date_is_written() -> None:
    here = [{"ip": "1.1.1.1"}]
    fresh, done, theirs, lost = (ingress(n, defaultBackend=backend("a")) for n in ("fresh", "done", "theirs", "lost"))
    for one in (done, theirs, lost):
        one["status"] = {"loadBalancer": {"ingress": here}}
    served, told = {("default", "fresh"), ("default", "done")}, {("default", "lost"), ("default", "done")}
    assert list(status.changes([fresh, done, theirs, lost], served, told, here)) == [
        (("default", "fresh"), {"loadBalancer": {"ingress": here}}),
        (("default", "lost"), {"loadBalancer": {}}),
    ]


# The controller's own objects


def test_the_controllers_objects_are_what_their_manifest_would_be() -> None:
    text = yaml.safe_dump_all(objects.objects())
    assert list(manifests.load_text(text, "controller").objects) == objects.objects()


def test_the_controller_comes_with_an_ingress_that_it_would_serve() -> None:
    mine, other = (ingress("i", defaultBackend=backend("a")) for _ in range(2))
    other["spec"]["ingressClassName"] = "other"
    assert objects.is_wanted([mine])
    assert not objects.is_wanted([other]) and not objects.is_wanted([service("a")])
    assert not objects.is_wanted([mine, {"apiVersion": "networking.k8s.io/v1"} | klass("other", "example.com/other")])


def test_what_the_user_brings_is_left_to_the_user() -> None:
    theirs = klass() | {"apiVersion": "networking.k8s.io/v1"}
    assert [o["kind"] for o in objects.missing([theirs])] == ["Namespace", "Deployment", "Service"]


def test_requests_of_every_method_are_in_the_cases() -> None:
    assert {r.method for case in CASES for r in case.requests} == {"GET", "POST", "PUT", "DELETE", "PATCH"}
    assert any(isinstance(r, Request) and r.scheme == "https" for case in CASES for r in case.requests)

"""The outside Ingress cases (tests/data/ingress) in one shape: Ingresses to apply, requests, and what must answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).parents[1] / "data" / "ingress"
# Ports at which the cases ask Services; the name of port 8080 is the conformance suite's.
PORTS = {80: "web", 4200: "other", 8080: "http"}
Object = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One request. answer: the Service that must answer, or "404". certificate: name of the Secret served with."""

    host: str
    path: str
    answer: str
    method: str = "GET"
    scheme: str = "http"
    certificate: str = ""
    repeat: int = 1
    expect: Object = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Ingresses that belong together. secrets: name -> host of each TLS Secret they need."""

    name: str
    ingresses: list[Object]
    requests: list[Request]
    secrets: dict[str, str] = field(default_factory=dict)
    is_served: bool = True

    def services(self) -> set[str]:
        """Every Service that an Ingress names."""
        return {s["name"] for s in _found(self.ingresses, "service")}


def ingress(name: str, *rules: Object, **spec: Any) -> Object:
    """An Ingress."""
    spec |= {"rules": list(rules)} if rules else {}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec}


def rule(host: str | None, *paths: tuple[str, str, str]) -> Object:
    """A rule. paths: (pathType, path, Service), asked at port 80."""
    found = [{"pathType": kind, "path": path, "backend": backend(service)} for kind, path, service in paths]
    return ({"host": host} if host else {}) | {"http": {"paths": found}}


def backend(service: str, port: int | str = 80) -> Object:
    """A backend, its port by number or name."""
    return {"service": {"name": service, "port": {"name" if isinstance(port, str) else "number": port}}}


def all_cases() -> list[Case]:
    """Every outside case."""
    return [_paths(), *_hosts(), *_documentation(), *_conformance()]


def _read(name: str) -> Any:
    return yaml.safe_load((DATA / name).read_text())


def _paths() -> Case:
    """All path cases at once, each under a host of its own; the Service of a case's i-th path is path-i."""
    ingresses, requests = [], []
    for i, case in enumerate(_read("cases.yaml")["path_cases"]):
        host, wanted = f"case-{i}.paths.test", case["match"]
        paths = [next(iter(p.items())) if isinstance(p, dict) else (case["kind"], p) for p in case["paths"]]
        spec = {"defaultBackend": backend("fallback")} if wanted == "default_backend" else {}
        named = [(kind, path, f"path-{j}") for j, (kind, path) in enumerate(paths)]
        ingresses.append(ingress(f"paths-{i}", rule(host, *named), **spec))
        match = next(iter(wanted.items())) if isinstance(wanted, dict) else (case["kind"], wanted)
        answers = {"default_backend": "fallback", None: "404"}
        answer = answers[match[1]] if match[1] in answers else f"path-{paths.index(match)}"
        requests.append(Request(host, case["request"], answer))
    return Case("path-cases", ingresses, requests)


def _hosts() -> list[Case]:
    cases = []
    for i, case in enumerate(_read("cases.yaml")["host_cases"]):
        hosts = case["rules"] if "rules" in case else [case["rule"]]
        rules = [rule(host, ("Prefix", "/", f"path-{j}")) for j, host in enumerate(hosts)]
        wanted = case["match"]
        answer = "404" if wanted is False else f"path-{0 if wanted is True else hosts.index(wanted)}"
        cases.append(Case(f"host-case-{i}", [ingress(f"hosts-{i}", *rules)], [Request(case["request"], "/", answer)]))
    return cases


def _documentation() -> list[Case]:
    cases = []
    for case in _read("k8s-docs/cases.yaml"):
        requests, secrets = [], {}
        for host, path, said in case["requests"]:
            answer, _, rest = said.partition(" with the certificate of ")
            scheme, _, name = host.rpartition("://")
            # A node's address as the host is no host at all.
            requests.append(
                Request("" if "<" in name else name, path, answer, scheme=scheme or "http", certificate=rest)
            )
            secrets |= {rest: name} if rest else {}
        cases.append(Case(case["source"], [case["ingress"]], requests, secrets))
    return cases


def _conformance() -> list[Case]:
    cases = []
    for case in _read("conformance/cases.yaml"):
        secrets = {s["name"]: s["self_signed_for"] for s in case.get("secrets", ())}
        by_host = {host: name for name, host in secrets.items()}
        requests = []
        for asked in case["requests"]:
            expect = asked["expect"]
            if "status" not in expect:
                continue
            requests.append(
                Request(
                    asked["host"],
                    asked["path"],
                    expect.get("service") or ("404" if expect["status"] == 404 else "echo-service"),
                    asked["method"],
                    asked["scheme"],
                    by_host[expect["tls_certificate_for"]] if "tls_certificate_for" in expect else "",
                    asked.get("repeat", 1),
                    expect,
                )
            )
        ignored = any(r["expect"].get("status_load_balancer_empty") for r in case["requests"])
        name = f"conformance-{case['feature']}"
        cases.append(Case(name, [case["ingress"]], requests, secrets, is_served=not ignored))
    return cases


def _found(value: Any, key: str) -> list[Any]:
    """Every value of this key, at any depth."""
    if isinstance(value, list):
        return [x for item in value for x in _found(item, key)]
    if not isinstance(value, dict):
        return []
    return [x for k, v in value.items() for x in ([v] if k == key else _found(v, key))]

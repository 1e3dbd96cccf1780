"""Routes as files for nginx, its configuration and certificates: a pure function, the same text for the same routes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from topo.addons.ingress.routes import Certificate, Location, Routes, Server, Upstream

HEALTH_PORT = 10254  # ingress-nginx's
# Tries and the forwarded headers are ingress-nginx's defaults (its documentation, "ConfigMap"). But a pod ends at once
# here, with no time of grace: no connection to it is kept for later requests, and if it takes no new one for 2 s, time
# enough for a second SYN (ingress-nginx: 5 s), the next pod is asked.
_HEAD = """\
user root;
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
worker_shutdown_timeout 240s;
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    server_tokens off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server_names_hash_bucket_size 512;
    server_names_hash_max_size 8192;
    ssl_protocols TLSv1.2 TLSv1.3;
    map $http_upgrade $connection_to_backend {{
        default upgrade;
        "" close;
    }}
    map $http_host $asked_host {{
        default $http_host;
        "" $host;
    }}
    proxy_http_version 1.1;
    proxy_connect_timeout 2s;
    proxy_next_upstream error timeout;
    proxy_next_upstream_tries 3;
    proxy_set_header Host $asked_host;
    proxy_set_header Connection $connection_to_backend;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Request-ID $request_id;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Host $asked_host;
    proxy_set_header X-Forwarded-Port $server_port;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Scheme $scheme;
    proxy_set_header X-Scheme $scheme;
"""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Files:
    """generation: what nginx answers on HEALTH_PORT under /generation while this is its configuration.

    certificates: file name -> chain and key, one after the other.
    """

    configuration: str
    generation: str
    certificates: Mapping[str, str]


def render(routes: Routes, default: Certificate, folder: Path) -> Files:
    """Everything nginx reads. default: served where no certificate is for the host; folder: nginx's own."""
    certificates = {_file(default): default}
    certificates |= {_file(s.certificate): s.certificate for s in routes.servers if s.certificate}
    names = {upstream: f"backend-{i}" for i, upstream in enumerate(routes.upstreams())}
    lines = [_HEAD.format(folder=folder).rstrip("\n")]
    for upstream, name in names.items():
        lines += _indent(1, _upstream(upstream, name))
    for server in routes.servers:
        lines += _indent(1, _server(server, names, folder / _file(server.certificate or default)))
    generation = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    lines += _indent(1, _health(generation))
    texts = {name: f"{one.chain.rstrip()}\n{one.key.rstrip()}\n" for name, one in certificates.items()}
    return Files("\n".join([*lines, "}", ""]), generation, texts)


def quoted(text: str) -> str:
    """A word of nginx's configuration that is just this text. Raises ValueError for control characters.

    Between double quotes nginx heeds only the backslash and the quote (and, in directives that know variables, the
    dollar; no text of a manifest gets into one of those).
    """
    if _CONTROL.search(text):
        raise ValueError(f"{text!r} has a control character")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _upstream(upstream: Upstream, name: str) -> Iterator[str]:
    comment = re.sub(r"[^\w./:-]", "?", upstream.name, flags=re.ASCII)
    if not upstream.endpoints:
        yield f"# {name}: {comment} has no ready endpoints"
        return
    yield f"upstream {name} {{ # {comment}"
    for endpoint in upstream.endpoints:
        yield f"    server {quoted(endpoint)} max_fails=0;"
    yield "}"


def _server(server: Server, names: Mapping[Upstream, str], certificate: Path) -> Iterator[str]:
    default = "" if server.host else " default_server"
    yield "server {"
    yield f"    listen 80{default};"
    yield f"    listen 443 ssl{default};"
    if server.host:
        yield f"    server_name {quoted(_server_name(server.host))};"
    yield f"    ssl_certificate {certificate};"
    yield f"    ssl_certificate_key {certificate};"
    for (modifier, path), location in _nginx_locations(server).items():
        action = _action(location, names)
        yield f"    location {modifier}{quoted(path)} {{ {action}; }}"
    yield "}"


def _server_name(host: str) -> str:
    """A wildcard stands for exactly one label, which only an expression says: nginx's own "*." takes several."""
    return f"~^[^.]+{re.escape(host[1:])}$" if host.startswith("*.") else host


def _nginx_locations(server: Server) -> dict[tuple[str, str], Location | None]:
    """nginx's own locations ("= " for a whole path, "" for a beginning), of which it takes the longest that fits."""
    found: dict[tuple[str, str], Location | None] = {}
    for one in server.locations:
        if one.exact or one.path != "/":
            found.setdefault(("= ", one.path), one)
        if not one.exact:
            found[("", one.path if one.path == "/" else f"{one.path}/")] = one
    for _, path in list(found):
        # Else nginx would redirect /a to a location /a/ (ngx_http_core_module, "location").
        if len(path) > 1 and path.endswith("/") and ("= ", path[:-1]) not in found:
            found[("= ", path[:-1])] = server.match(path[:-1])
    found.setdefault(("", "/"), None)
    return found


def _action(location: Location | None, names: Mapping[Upstream, str]) -> str:
    if location is None:
        return "return 404"
    return f"proxy_pass http://{names[location.upstream]}" if location.upstream.endpoints else "return 503"


def _health(generation: str) -> Iterator[str]:
    yield "server {"
    yield f"    listen {HEALTH_PORT};"
    yield "    location = /healthz { return 200; }"
    yield f'    location = /generation {{ return 200 "{generation}"; }}'
    yield "    location / { return 404; }"
    yield "}"


def _file(certificate: Certificate) -> str:
    text = f"{certificate.chain}\0{certificate.key}"
    return f"certificate-{hashlib.sha256(text.encode()).hexdigest()[:16]}.pem"


def _indent(depth: int, lines: Iterator[str]) -> list[str]:
    return [f"{'    ' * depth}{line}" for line in lines]

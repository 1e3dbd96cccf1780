"""nginx's configuration: as text against a kept file, never more than the manifests mean, and accepted by nginx.

MININETES_GOLDEN=write rewrites the kept file.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingress_cases import DATA, all_cases, backend, ingress, rule
from test_golden import assert_kept
from test_ingress_routes import build, endpoints, secret, service

from topo.addons.ingress.certificate import self_signed
from topo.addons.ingress.nginx import Files, quoted, render
from topo.addons.ingress.process import Nginx, NginxError
from topo.addons.ingress.routes import Certificate, Location, Routes, Server, Upstream

DEFAULT = Certificate("-----BEGIN CERTIFICATE-----\nchain\n", "-----BEGIN PRIVATE KEY-----\nkey\n")
FOLDER = Path("/run/mininetes/ingress-10.244.1.2")
NEEDS_NGINX = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


def test_the_whole_configuration() -> None:
    rules = [
        rule(
            "shop.test", ("Prefix", "/", "a"), ("Exact", "/cart", "b"), ("Prefix", "/cart", "c"), ("Exact", "/x/", "b")
        ),
        rule("*.wild.test", ("Prefix", "/a b", "idle"), ("Exact", "/", "gone")),
    ]
    idle = (service("idle"), endpoints("idle", "10.0.0.8", ready=False))
    two = (service("two"), endpoints("two", "10.0.0.3", "10.0.0.10"))
    found = build(ingress("i", *rules), ingress("j", defaultBackend=backend("two")), *idle, *two)
    assert_kept(DATA / "nginx.conf", render(found, DEFAULT, FOLDER).configuration)


def test_the_generation_is_the_contents() -> None:
    one = build(ingress("i", defaultBackend=backend("a")))
    two = build(ingress("i", defaultBackend=backend("b")))
    assert render(one, DEFAULT, FOLDER) == render(one, DEFAULT, FOLDER)
    assert render(one, DEFAULT, FOLDER).generation != render(two, DEFAULT, FOLDER).generation
    other = Certificate(DEFAULT.chain, "another key")
    assert render(one, DEFAULT, FOLDER).generation != render(one, other, FOLDER).generation


def test_a_certificate_is_a_file_of_its_own_and_a_key_is_in_no_configuration() -> None:
    mine = ingress("i", rule("x", ("Prefix", "/", "a")), tls=[{"hosts": ["x"], "secretName": "s"}])
    files = render(build(mine, secret("s", "x")), DEFAULT, FOLDER)
    assert len(files.certificates) == 2
    assert all(f"{FOLDER}/{name};" in files.configuration for name in files.certificates)
    assert "PRIVATE" not in files.configuration


# What somebody writes into a manifest stays one word.


def words(text: str) -> list[str]:
    """nginx's own way to read a configuration (ngx_conf_read_token): words, the quoted with a quote in front, ; { }."""
    found: list[str] = []
    i = 0
    while i < len(text):
        char = text[i]
        if char.isspace():
            i += 1
        elif char == "#":
            i = text.index("\n", i)
        elif char in ";{}":
            found.append(char)
            i += 1
        elif char == '"':
            word, i = "", i + 1
            while text[i] != '"':
                if text[i] == "\\" and text[i + 1] in "\"'\\":
                    i += 1
                word, i = word + text[i], i + 1
            assert text[i + 1] in " ;{"
            found.append(f"'{word}")
            i += 1
        else:
            start = i
            while text[i] not in ' ;"' and not text[i].isspace():
                i += 1
            found.append(text[start:i])
    return found


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40)


@given(TEXT)
@settings(max_examples=200, deadline=None)
def test_a_quoted_text_is_one_word(text: str) -> None:
    assert words(f"location {quoted(text)} {{ }}\n") == ["location", f"'{text}", "{", "}"]


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\0", "\x7f", "\t"])
def test_a_control_character_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        quoted(text)


@given(TEXT, TEXT)
@settings(max_examples=100, deadline=None)
def test_no_path_and_no_name_makes_a_directive(path: str, name: str) -> None:
    def shape(text: str, upstream: str) -> list[str]:
        location = Location(f"/{text}", True, Upstream(upstream, ("10.0.0.1:80",)))
        found = render(Routes((Server("", (location,), None),), ()), DEFAULT, FOLDER).configuration
        return [word for word in words(found) if not word.startswith("'")]

    if not path.endswith("/"):  # that has one more location, against a redirect
        assert shape(path, name) == shape("x", "default/web:80")


EVIL = [
    '/"; } location / { return 200 pwned; } #',
    "/'; return 200 pwned; '",
    "/$host$request_uri${uri}",
    "/{}",
    "/};",
    "/\\",
    '/\\"',
    "/#comment",
    "/= /x",
    "/~ .*",
    "/a b;c",
    "/%7B%22%3B",
    "/include /etc/passwd;",
    "/@named",
    "/é☃",
    "/" + "\\" * 1000,
]


def check(files: Files, folder: Path) -> None:
    """Let nginx read the configuration, without serving it."""
    for name, text in files.certificates.items():
        (folder / name).write_text(text)
    (folder / "new.conf").write_text(files.configuration)
    command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "new.conf"), "-t", "-q"]
    done = subprocess.run(["unshare", "--net", "--map-root-user", *command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


@NEEDS_NGINX
def test_nginx_takes_every_case_and_every_hostile_path(tmp_path: Path) -> None:
    default = self_signed("default", ("x.test",))
    long_host = ".".join(["a" * 60] * 4)
    every = [i for case in all_cases() for i in case.ingresses]
    for one in every:
        one["metadata"]["namespace"] = "default"
    paths = [(kind, path, "a") for path in EVIL for kind in ("Exact", "Prefix")]
    found = build(
        *every, ingress("evil", rule("evil.test", *paths), rule(long_host, *paths), rule(f"*.{long_host[7:]}"))
    )
    evil = next(s for s in found.servers if s.host == "evil.test")
    assert len(evil.locations) == 2 * len(EVIL) + 1  # and the default backend of one of the cases
    check(render(found, default, tmp_path), tmp_path)


@NEEDS_NGINX
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, min_size=20, max_size=60, unique=True))
def test_nginx_takes_any_path(tmp_path: Path, texts: list[str]) -> None:
    found = build(ingress("i", rule("x", *((kind, f"/{text}", "a") for text in texts for kind in ("Exact", "Prefix")))))
    check(render(found, self_signed("default", ("x.test",)), tmp_path), tmp_path)


@NEEDS_NGINX
def test_files_that_nginx_refuses_leave_the_old_ones(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text("old")
    with pytest.raises(NginxError, match="no_such_directive"):
        Nginx(tmp_path).load(Files("no_such_directive;", "0", {}))
    assert (tmp_path / "nginx.conf").read_text() == "old"

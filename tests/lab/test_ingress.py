"""What real requests through a real nginx meet: the outside Ingress cases, TLS, reloads under load, and failures."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import COMMAND, ROOT, RunningLab, StartLab, as_ordinary_user, mininetes

from scenarios.lab.socket import ask
from topo import manifests
from topo.addons.ingress.certificate import DEFAULT_NAME, self_signed
from topo.addons.ingress.routes import Certificate

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
Object = dict[str, Any]

_spec = importlib.util.spec_from_file_location("ingress_cases", ROOT / "tests" / "unit" / "ingress_cases.py")
assert _spec and _spec.loader
cases = sys.modules["ingress_cases"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)
CASES = cases.all_cases()
SERVICES = sorted({name for case in CASES for name in case.services()})
CLIENT_ADDRESS = "172.18.0.1"  # of the machine outside the cluster
CLIENT = (sys.executable, str(ROOT / "tests" / "lab" / "ingress_client.py"))


def backend_pods() -> str:
    """A pod or, for the Service that the suite scales, a Deployment for every Service of the cases."""
    container = {"name": "c", "image": "x", "ports": [{"containerPort": 3000}]}
    things: list[Object] = []
    for name in SERVICES:
        labels = {"app": name}
        ports = [{"name": port, "port": number, "targetPort": 3000} for number, port in cases.PORTS.items()]
        spec = {"selector": labels, "ports": ports}
        things.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
        things.append(_deployment(name, 10) if name == "echo-service" else _pod(name, labels, container))
    return yaml.safe_dump_all(things)


def _pod(name: str, labels: Object, container: Object, **notes: str) -> Object:
    meta = {"name": name, "labels": labels, "annotations": notes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}


def _deployment(name: str, replicas: int) -> Object:
    labels, container = {"app": name}, {"name": "c", "image": "x", "ports": [{"containerPort": 3000}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


@dataclass
class Front:
    """The lab's Ingress controller as its clients see it."""

    lab: RunningLab

    def place(self) -> tuple[str, str]:
        """Where clients are, outside the cluster, and the address they ask."""
        found = ask(self.lab.name, {"verb": "get", "kind": "Service"})
        own = next(s for s in found if s["metadata"]["name"] == "ingress-nginx-controller")
        return "client", own["status"]["loadBalancer"]["ingress"][0]["ip"]

    def ask(self, requests: Iterable[Any]) -> list[Object]:
        """Send requests (of ingress_cases), all in one go."""
        machine, address = self.place()
        names = ("host", "path", "method", "scheme", "repeat")
        asked = [{"address": address} | {name: getattr(r, name) for name in names} for r in requests]
        command = ("exec", "--lab", self.lab.name, machine, "--", *CLIENT, "ask")
        done = mininetes(*command, input=json.dumps(asked))
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    def answers(self, *asked: tuple[str, str]) -> list[str]:
        """Who answers each (host, path): the pod's name without what its owner added, or the status."""
        return [self.who(a) for a in self.ask([cases.Request(host, path, "") for host, path in asked])]

    def who(self, answer: Object) -> str:
        """The Service whose pod answered, or the status."""
        if answer["status"] != 200:
            return str(answer["status"])
        return next(
            n for n in reversed(SERVICES) if answer["body"]["pod"] == n or answer["body"]["pod"].startswith(f"{n}-")
        )

    def client(self, *words: str) -> Any:
        """One of the client's other works."""
        machine, _ = self.place()
        return json.loads(self.lab.exec(machine, *CLIENT, *words))

    def store(self, things: Sequence[Object], wait: float = 0) -> None:
        """Apply objects."""
        loaded = manifests.load_text(yaml.safe_dump_all(things), "test").objects
        ask(self.lab.name, {"verb": "apply", "objects": list(loaded), "wait": wait})

    def addresses(self, name: str) -> list[Object]:
        """The addresses in an Ingress's status."""
        found = [i for i in ask(self.lab.name, {"verb": "get", "kind": "Ingress"}) if i["metadata"]["name"] == name]
        return list(found[0].get("status", {}).get("loadBalancer", {}).get("ingress", ()))

    @contextmanager
    def applied(self, ingresses: Sequence[Object], *others: Object, served: bool = True) -> Iterator[None]:
        """With these Ingresses (and what they need) in the lab, served as their status says."""
        self.store([*others, *ingresses])
        try:
            for one in ingresses if served else ():
                self.lab.eventually(lambda name=one["metadata"]["name"]: bool(self.addresses(name)))
            yield
        finally:
            keys = [[t["kind"], "default", t["metadata"]["name"]] for t in (*ingresses, *others)]
            ask(self.lab.name, {"verb": "delete", "keys": keys})


@pytest.fixture(scope="module")
def front(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Front:
    """One lab with every backend of the cases."""
    file = tmp_path_factory.mktemp("ingress") / "backends.yaml"
    file.write_text(backend_pods())
    lab = start_lab("--ingress", str(file))
    spec = ask(lab.name, {"verb": "get", "kind": "Lab"})[0]["spec"]
    found = ask(lab.name, {"verb": "get", "kind": "Service"})
    own = next(s for s in found if s["metadata"]["name"] == "ingress-nginx-controller")
    if not own.get("status"):  # nobody gave it an address of the pool; so the test does
        value = {"loadBalancer": {"ingress": [{"ip": str(IPv4Network(spec["load_balancer_pool"])[1])}]}}
        words = ("Service", own["metadata"]["namespace"], own["metadata"]["name"], value)
        program = f"from topo.cluster.client import set_status; set_status(*{words!r})"
        lab.exec("worker", sys.executable, "-c", program)
    return Front(lab)


def secret(name: str, host: str) -> tuple[Object, Certificate]:
    """A TLS Secret, and what is in it."""
    pair = self_signed(host, (host,))
    text = {"tls.crt": pair.chain, "tls.key": pair.key}
    meta = {"name": name, "namespace": "default"}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta,
        "type": "kubernetes.io/tls",
        "stringData": text,
    }, pair


def common_name(pem: str) -> str:
    """Whom a certificate names."""
    command = ["openssl", "x509", "-noout", "-subject", "-nameopt", "multiline"]
    shown = subprocess.run(command, input=pem, capture_output=True, text=True, check=True).stdout
    return shown.partition("commonName")[2].partition("=")[2].strip()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outside_case(front: Front, case: Any) -> None:
    made = {name: secret(name, host) for name, host in case.secrets.items()}
    with front.applied(case.ingresses, *(thing for thing, _ in made.values()), served=case.is_served):
        answers = front.ask(case.requests)
        if not case.is_served:
            assert front.addresses(case.ingresses[0]["metadata"]["name"]) == []
    asked = [request for request in case.requests for _ in range(request.repeat)]
    assert len(asked) == len(answers)
    assert [front.who(a) for a in answers] == [r.answer for r in asked]
    for request, answer in zip(asked, answers, strict=True):
        if request.certificate:
            assert answer["certificate"].strip() == made[request.certificate][1].chain.strip()
        if answer["status"] == 200:
            check_seen(request, answer)
    distinct = [r.expect.get("distinct_pods") for r in case.requests if "distinct_pods" in r.expect]
    assert not distinct or len({a["body"]["pod"] for a in answers}) == distinct[0]


def check_seen(request: Any, answer: Object) -> None:
    """What the backend saw and what came back are as the case says."""
    body, sees = answer["body"], request.expect.get("backend_sees", {})
    wanted = {"method": request.method, "path": request.path, "proto": "HTTP/1.1", **sees}
    wanted.pop("host", None)
    assert {name: body[name] for name in wanted} == wanted
    if request.host:
        assert body["headers"]["host"] == sees.get("host", request.host)
    assert set(request.expect.get("response_headers_present", ())) <= set(answer["headers"])


def test_what_the_backend_learns_of_the_client(front: Front) -> None:
    mine = cases.ingress("learn", cases.rule("learn.test", ("Prefix", "/", "path-0")))
    with front.applied([mine]):
        plain, tls = front.ask([cases.Request("learn.test", "/a%20b?x=1", "", scheme=s) for s in ("http", "https")])
    for scheme, port, answer in (("http", "80", plain), ("https", "443", tls)):
        assert answer["body"]["path"] == "/a%20b?x=1"  # as it was asked
        wanted = {"for": CLIENT_ADDRESS, "host": "learn.test", "proto": scheme, "port": port}
        headers = answer["body"]["headers"]
        assert {name: headers[f"x-forwarded-{name}"] for name in wanted} == wanted
        assert headers["host"] == "learn.test" and headers["x-real-ip"] == CLIENT_ADDRESS


def test_certificates_by_the_name_that_is_asked_for(front: Front) -> None:
    (one, _), (wild, _) = secret("one", "one.tls.test"), secret("wild", "*.tls.test")
    rules = [cases.rule(host, ("Prefix", "/", "path-0")) for host in ("one.tls.test", "two.tls.test", "bare.test")]
    tls = [{"hosts": ["one.tls.test"], "secretName": "one"}, {"hosts": ["*.tls.test"], "secretName": "wild"}]
    names = ("one.tls.test", "two.tls.test", "bare.test", "unknown.test", "")
    with front.applied([cases.ingress("tls", *rules, tls=tls)], one, wild):
        answers = front.ask([cases.Request(name, "/", "", scheme="https") for name in names])
        got = [common_name(a["certificate"]) for a in answers]
        assert got == ["one.tls.test", "*.tls.test", DEFAULT_NAME, DEFAULT_NAME, DEFAULT_NAME]
        assert [front.who(a) for a in answers] == ["path-0", "path-0", "path-0", "404", "404"]
        # A new certificate is served without anybody's doing.
        changed, pair = secret("one", "one.tls.test")
        front.store([changed])
        asked = cases.Request("one.tls.test", "/", "", scheme="https")
        front.lab.eventually(lambda: front.ask([asked])[0]["certificate"].strip() == pair.chain.strip())


def test_backends_that_cannot_answer_and_ports_by_name_and_number(front: Front) -> None:
    rules = [
        ("/name", cases.backend("path-0", "http")),
        ("/number", cases.backend("path-1", 8080)),
        ("/wrong-port", cases.backend("path-0", 81)),
        ("/missing", cases.backend("missing")),
        ("/idle", cases.backend("idle")),
    ]
    paths = [{"path": path, "pathType": "Prefix", "backend": backend} for path, backend in rules]
    idle = {"selector": {"app": "nobody"}, "ports": [{"port": 80}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "idle"}, "spec": idle}
    with front.applied([cases.ingress("ports", {"host": "ports.test", "http": {"paths": paths}})], service):
        got = front.answers(*(("ports.test", path) for path, _ in rules), ("ports.test", "/"), ("nobody.test", "/"))
    assert got == ["path-0", "path-1", "503", "503", "503", "404", "404"]


def test_a_pod_that_is_not_ready_is_asked_nothing(front: Front) -> None:
    container = {"name": "c", "image": "x", "ports": [{"containerPort": 3000}]}
    container["readinessProbe"] = {"httpGet": {"path": "/", "port": 3000}, "periodSeconds": 1, "failureThreshold": 1}
    spec = {"selector": {"app": "path-sick"}, "ports": [{"port": 80, "targetPort": 3000}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "path-sick"}, "spec": spec}
    mine = cases.ingress("sick", cases.rule("sick.test", ("Prefix", "/", "path-sick")))
    pod = _pod("path-sick", {"app": "path-sick"}, container)
    with front.applied([mine], pod, service):
        status = lambda: [a["status"] for a in front.ask([cases.Request("sick.test", "/", "")])]  # noqa: E731
        front.lab.eventually(lambda: status() == [200])
        front.ask([cases.Request("sick.test", "/unhealthy", "", method="POST")])
        front.lab.eventually(
            lambda: front.ask([cases.Request("sick.test", "/", "")])[0]["body"] != {} and status() == [503]
        )


def test_the_status_is_the_address_that_clients_ask(front: Front) -> None:
    with front.applied([cases.ingress("told", cases.rule("told.test", ("Prefix", "/", "path-0")))]):
        front.lab.eventually(lambda: front.addresses("told") == [{"ip": front.place()[1]}])


def test_a_class_given_back_leaves_no_address(front: Front) -> None:
    mine = cases.ingress("class", cases.rule("class.test", ("Prefix", "/", "path-0")))
    with front.applied([mine]):
        assert front.answers(("class.test", "/")) == ["path-0"]
        front.store([cases.ingress("class", mine["spec"]["rules"][0], ingressClassName="other")])
        front.lab.eventually(lambda: front.addresses("class") == [])
        assert front.answers(("class.test", "/")) == ["404"]


def test_a_websocket_passes(front: Front) -> None:
    program = f"{sys.executable} {ROOT / 'tests' / 'lab' / 'websocket_backend.py'}"
    container = {"name": "c", "image": "x", "ports": [{"containerPort": 8080}]}
    container["readinessProbe"] = {"tcpSocket": {"port": 8080}}
    pod = _pod("chat", {"app": "chat"}, container, **{"mininetes.dev/command": program})
    spec = {"selector": {"app": "chat"}, "ports": [{"port": 80, "targetPort": 8080}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat"}, "spec": spec}
    front.store([pod, service], wait=20)
    with front.applied([cases.ingress("chat", cases.rule("chat.test", ("Prefix", "/", "chat")))], pod, service):
        got = front.client("websocket", front.place()[1], "chat.test")
    accept = hashlib.sha1(got["key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    assert got["head"].startswith("HTTP/1.1 101 ") and base64.b64encode(accept).decode() in got["head"]
    assert got["echo"] == "one two"


@pytest.mark.slow
def test_reloads_under_load_lose_no_request(front: Front) -> None:
    spec = {"selector": {"app": "busy"}, "ports": [{"port": 80, "targetPort": 3000}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "busy"}, "spec": spec}
    front.store([_deployment("busy", 2), service], wait=20)
    mine = cases.ingress("busy", cases.rule("busy.test", ("Prefix", "/", "busy")))
    result: Object = {}
    with front.applied([mine], service, _deployment("busy", 2)):
        _, address = front.place()
        before = generations(front)
        thread = threading.Thread(target=lambda: result.update(front.client("load", address, "busy.test", "6")))
        thread.start()
        for i, replicas in enumerate((4, 6, 8, 10)):  # fewer would show how pods end, which is not nginx's doing
            front.store([_deployment("busy", replicas)], wait=20)
            with front.applied([cases.ingress(f"more-{i}", cases.rule(f"more-{i}.test", ("Prefix", "/", "path-0")))]):
                pass
        thread.join()
        reloads = generations(front) - before
    assert reloads >= 8
    assert set(result["counts"]) == {"200"}, result
    assert result["counts"]["200"] > 100 and result["pods"] > 2


def generations(front: Front) -> int:
    """How many configurations the controller has served."""
    return front.lab.exec("worker", "sh", "-c", "cat /run/mininetes/ingress-*/controller.log").count(" serving ")


def test_nginx_comes_back_when_it_dies(front: Front) -> None:
    pid = lambda: front.lab.exec("worker", "sh", "-c", "cat /run/mininetes/ingress-*/nginx.pid")  # noqa: E731
    with front.applied([cases.ingress("back", cases.rule("back.test", ("Prefix", "/", "path-0")))]):
        killed = pid()
        front.lab.exec("worker", "kill", "-9", killed.strip())
        front.lab.eventually(lambda: pid() != killed)
        front.lab.eventually(lambda: code_on(front, "worker", "back.test") == "200")


def test_a_new_controller_takes_over(front: Front) -> None:
    with front.applied([cases.ingress("moved", cases.rule("moved.test", ("Prefix", "/", "path-0")))]):
        old = front.lab.pod("ingress-nginx-controller")["name"]
        ask(front.lab.name, {"verb": "delete", "keys": [["Pod", "ingress-nginx", old]]})
        front.lab.eventually(lambda: front.lab.pod("ingress-nginx-controller")["name"] != old)
        # Asked on a node: whom the address belongs to on the wire after a move is not the controller's business.
        front.lab.eventually(lambda: code_on(front, "worker", "moved.test") == "200")


def code_on(front: Front, machine: str, host: str) -> str:
    """The status of one request from this machine, 000 if none came within a second."""
    address = front.place()[1]
    options = ("-s", "-m", "1", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", f"{host}:80:{address}")
    return front.lab.exec(machine, "curl", *options, f"http://{host}/", ok=False)


def test_an_ordinary_user_has_an_ingress_too() -> None:
    ingress = cases.ingress("mine", cases.rule("mine.test", ("Prefix", "/", "frontend")))
    done = as_ordinary_user(
        "sh",
        "-ec",
        f"""
        m="{shlex.join(COMMAND)}"
        trap "$m down --lab ordinary-ingress" EXIT
        folder=$(mktemp -d)
        echo '{json.dumps(ingress)}' > $folder/ingress.json
        $m up --detach --lab ordinary-ingress --nodes 1 scenarios/data/manifests/guestbook.yaml $folder/ingress.json
        rm -r $folder
        address=$($m status --lab ordinary-ingress --json | {sys.executable} -c '
import json, sys
print(next(s["clusterIP"] for s in json.load(sys.stdin)["services"] if s["name"] == "ingress-nginx-controller"))')
        sleep 1
        $m exec --lab ordinary-ingress redis-master -- curl -sk -m 5 --resolve mine.test:443:$address https://mine.test/
        """,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert '"pod": "frontend-' in done.stdout and '"x-forwarded-proto": "https"' in done.stdout


def test_the_documented_example_works(start_lab: StartLab, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "ingress.md").read_text()
    (tmp_path / "shop.yaml").write_text(next(b for b in blocks(text, "yaml") if "# shop.yaml" in b))
    lab = start_lab(str(tmp_path / "shop.yaml"))
    lines = "".join(blocks(text, "")).splitlines()
    asked = shlex.split(next(line for line in lines if line.startswith("mininetes exec shop")))
    answer = json.loads(lab.exec("shop", *asked[4:]))
    assert answer["path"] == "/cart/7" and answer["headers"]["host"] == "shop.example"
    front = Front(lab)
    made = "".join(b for b in blocks(text, "") if b.startswith("openssl")).partition("mininetes apply")[0]
    subprocess.run(["sh", "-ec", made], cwd=tmp_path, check=True, capture_output=True)
    lab.ask("apply", "-f", str(tmp_path / "shop-tls.yaml"))
    thing = yaml.safe_load((tmp_path / "shop.yaml").read_text().split("---")[2])
    thing["spec"]["tls"] = [{"hosts": ["shop.example"], "secretName": "shop-tls"}]
    front.store([thing])
    options = ("--cacert", str(tmp_path / "shop.crt"), "--resolve", "shop.example:443:10.96.1.0")
    lab.eventually(
        lambda: "/cart/7" in lab.exec("shop", "curl", "-s", *options, "https://shop.example/cart/7", ok=False)
    )
    assert "serving" in lab.exec("worker", "sh", "-c", "cat /run/mininetes/ingress-*/controller.log")


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of this kind in a document."""
    return [part.partition("\n")[2] for part in text.split("```")[1::2] if part.partition("\n")[0] == kind]

"""What a runtime does with a list of plugins, and what a plugin's side of the protocol refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from topo.cni import conf
from topo.cni.cache import Cache
from topo.cni.errors import CniError, Code
from topo.cni.execute import Executor
from topo.cni.interface import VethPlugin
from topo.cni.ports import LinuxBridge
from topo.cni.protocol import Call, Plugin, serve
from topo.cni.request import Attachment
from topo.cni.result import Result, read
from topo.cni.runtime import Runtime, agree

pytestmark = pytest.mark.as_root  # setns(2): the plugin enters the node's network
ROOT = Path(__file__).parents[2]
ATTACHMENT = Attachment("c1", "/proc/1/ns/net", "eth0", {"A": "b"}, {"mac": "00:11:22:33:44:66", "unheard": 1})
LAST = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/proc/1/ns/net"}], "ips": [], "dns": {}}


@dataclass
class Recorder:
    """A plugin that writes down what it is asked; it fails where it is told to."""

    name: str
    log: list[tuple[str, str, Mapping[str, Any]]]
    fails: dict[str, int] = field(default_factory=dict)

    def _note(self, call: Call) -> None:
        self.log.append((call.command, self.name, call.config))
        if call.command in self.fails:
            raise CniError(self.fails[call.command], f"{self.name} fails")

    def add(self, call: Call) -> Result:
        self._note(call)
        before = call.previous or read({"interfaces": LAST["interfaces"]})
        return Result(before.interfaces, before.ips, before.routes, {"search": [self.name]})

    def delete(self, call: Call) -> None:
        self._note(call)

    check = status = collect = delete


class World:
    """A network of three recorders."""

    def __init__(self, folder: Path, version: str = "1.1.0", **more: Any) -> None:
        self.log: list[tuple[str, str, Mapping[str, Any]]] = []
        self.plugins = {name: Recorder(name, self.log) for name in ("one", "two", "three")}
        listed = [{"type": name, "capabilities": {"mac": name == "two"}, "own": name} for name in self.plugins]
        values = {"cniVersion": version, "name": "net", "plugins": listed, **more}
        self.network = conf.parse(json.dumps(values), "net.conflist")
        self.cache = Cache(folder)
        self.runtime = Runtime(self.network, version, Executor(("/nowhere",), dict(self.plugins)), self.cache)

    def asked(self, command: str) -> list[str]:
        return [name for what, name, _ in self.log if what == command]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.statement("runtime-first-no-prev", "add-prevresult")
def test_each_plugin_gets_the_result_of_the_one_before(world: World) -> None:
    result = world.runtime.add(ATTACHMENT)
    previous = [(config.get("prevResult") or {}).get("dns") for _, _, config in world.log]
    assert previous == [None, {"search": ["one"]}, {"search": ["two"]}]
    assert result.dns == {"search": ["three"]} and world.asked("ADD") == ["one", "two", "three"]


@pytest.mark.statement("runtime-caps")
def test_a_plugin_hears_the_capabilities_that_it_declares_and_no_others(world: World) -> None:
    world.runtime.add(ATTACHMENT)
    told = [config.get("runtimeConfig") for _, _, config in world.log]
    assert told == [None, {"mac": "00:11:22:33:44:66"}, None]
    assert all("capabilities" not in config and config["own"] for _, _, config in world.log)


@pytest.mark.statement("del-reverse", "check-prevresult", "check-ok")
def test_check_and_del_get_the_final_result_and_del_goes_backwards(world: World) -> None:
    world.runtime.add(ATTACHMENT)
    world.runtime.check(Attachment("c1", "/proc/1/ns/net", "eth0"))
    world.runtime.delete(Attachment("c1", "", "eth0"))
    assert world.asked("CHECK") == ["one", "two", "three"] and world.asked("DEL") == ["three", "two", "one"]
    later = [config for command, _, config in world.log if command != "ADD"]
    assert all(config["prevResult"]["dns"] == {"search": ["three"]} for config in later)
    assert [config.get("runtimeConfig") for config in later if config["own"] == "two"] == [
        {"mac": "00:11:22:33:44:66"}
    ] * 2, "what ADD was told is told again"
    world.runtime.delete(Attachment("c1", "", "eth0"))
    assert "prevResult" not in world.log[-1][2], "the result was forgotten"


@pytest.mark.statement("del-after-failed-add")
def test_a_failed_add_is_undone_by_those_that_were_tried(world: World) -> None:
    world.plugins["two"].fails = {"ADD": 11, "DEL": 7}
    with pytest.raises(CniError, match="two fails") as caught:
        world.runtime.add(ATTACHMENT)
    assert (caught.value.code, caught.value.plugin) == (11, "two")
    assert world.asked("ADD") == ["one", "two"] and world.asked("DEL") == ["two", "one"]
    assert not list(world.cache.attachments(world.network))


@pytest.mark.statement("runtime-unknown-type")
def test_a_type_that_is_not_there_is_an_error_and_undone(tmp_path: Path) -> None:
    world = World(tmp_path, plugins=[{"type": "one"}, {"type": "nobody"}])
    with pytest.raises(CniError, match="no executable 'nobody': looked in /nowhere"):
        world.runtime.add(ATTACHMENT)
    assert world.asked("DEL") == ["one"]


def test_an_attachment_that_is_there_is_left_alone(world: World) -> None:
    world.runtime.add(ATTACHMENT)
    with pytest.raises(CniError) as caught:
        world.runtime.add(ATTACHMENT)
    assert caught.value.code == Code.EXISTS and world.asked("DEL") == []


@pytest.mark.statement("check-disabled")
def test_with_disable_check_nobody_is_asked(tmp_path: Path) -> None:
    world = World(tmp_path, disableCheck=True)
    world.runtime.add(ATTACHMENT)
    world.plugins["one"].fails = {"CHECK": 7}
    world.runtime.check(ATTACHMENT)
    assert world.asked("CHECK") == []


def test_what_was_not_attached_cannot_be_checked(world: World) -> None:
    with pytest.raises(CniError) as caught:
        world.runtime.check(ATTACHMENT)
    assert caught.value.code == Code.UNKNOWN_CONTAINER and world.log == []


def test_a_check_that_fails_names_the_plugin(world: World) -> None:
    world.runtime.add(ATTACHMENT)
    world.plugins["two"].fails = {"CHECK": 101}
    with pytest.raises(CniError, match="plugin two: two fails"):
        world.runtime.check(ATTACHMENT)


@pytest.mark.statement("gc-continue")
def test_gc_goes_on_after_an_error_and_brings_back_all(world: World) -> None:
    world.runtime.add(ATTACHMENT)
    world.runtime.add(Attachment("c2", "/proc/1/ns/net", "eth0"))
    world.plugins["one"].fails, world.plugins["two"].fails = {"GC": 5}, {"GC": 7}
    errors = world.runtime.collect([("c2", "eth0")])
    assert [error.code for error in errors] == [5, 7] and world.asked("GC") == ["one", "two", "three"]
    assert world.asked("DEL") == ["three", "two", "one"], "c1 is detached, for it was never"
    assert [a.container for a in world.cache.attachments(world.network)] == ["c2"]


def test_gc_can_be_switched_off_and_is_younger_than_1_0_0(tmp_path: Path) -> None:
    off, old = World(tmp_path / "a", disableGC=True), World(tmp_path / "b", version="1.0.0")
    assert off.runtime.collect([]) == old.runtime.collect([]) == []
    assert off.log == old.log == []
    old.runtime.status()
    assert old.log == []


@pytest.mark.statement("status-ok")
def test_status_is_that_of_the_first_that_fails(world: World) -> None:
    world.runtime.status()
    world.plugins["two"].fails = {"STATUS": 50}
    with pytest.raises(CniError) as caught:
        world.runtime.status()
    assert caught.value.code == 50 and world.asked("STATUS") == ["one", "two", "three", "one", "two"]


def test_a_result_is_kept_as_libcni_keeps_it(world: World, tmp_path: Path) -> None:
    world.runtime.add(ATTACHMENT)
    kept = json.loads((tmp_path / "results" / "net-c1-eth0").read_text())
    assert (kept["kind"], kept["containerId"], kept["cniArgs"]) == ("cniCacheV1", "c1", [["A", "b"]])
    assert kept["result"]["cniVersion"] == "1.1.0" and kept["capabilityArgs"]["mac"]


def test_a_version_in_common_is_looked_for_among_plugins(world: World) -> None:
    executor = Executor(("/nowhere",), dict(world.plugins))
    assert agree(world.network, executor) == "1.1.0"
    older = conf.parse(json.dumps({"cniVersion": "0.2.0", "name": "n", "plugins": [{"type": "one"}]}), "f")
    with pytest.raises(CniError, match=r"the configuration speaks 0\.2\.0; this runtime speaks 0\.3\.0"):
        agree(older, executor)
    missing = conf.parse(json.dumps({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "nobody"}]}), "f")
    with pytest.raises(CniError, match="no executable 'nobody'"):
        agree(missing, executor)


def script(folder: Path, text: str) -> Executor:
    file = folder / "script"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return Executor((str(folder),), {})


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ('echo \'{"code": 7, "msg": "bad", "details": "subnet"}\'; exit 1', 7, "plugin script: bad: subnet (code 7)"),
        ("echo oh no >&2; exit 3", 999, "plugin script: ended with status 3: oh no (code 999)"),
        ("printf 'panic: nil\\n at x' >&2; exit 2", 999, "plugin script: ended with status 2: panic: nil (code 999)"),
        ("echo no JSON", 6, "plugin script: its answer is no JSON object: no JSON (code 6)"),
    ],
)
def test_what_a_program_says_becomes_an_error(tmp_path: Path, text: str, code: int, said: str) -> None:
    with pytest.raises(CniError) as caught:
        script(tmp_path, text).run("script", {"CNI_COMMAND": "ADD"}, {})
    assert (caught.value.code, str(caught.value)) == (code, said)


def test_a_program_gets_the_parameters_and_no_others_of_that_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNI_ARGS", "mine")
    program = script(
        tmp_path, 'printf \'{"env": "%s", "in": %s}\' "$(env | grep ^CNI_ | sort | tr "\\n" " ")" "$(cat)"'
    )
    said = program.run("script", ATTACHMENT.environment("ADD") | {"CNI_ARGS": "A=b"}, {"name": "n"})
    expected = "CNI_ARGS=A=b CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_IFNAME=eth0 CNI_NETNS=/proc/1/ns/net "
    assert said == {"env": f"{expected}CNI_PATH={tmp_path} ", "in": {"name": "n"}}


# The plugin's side.

CONFIG = {"cniVersion": "1.1.0", "name": "net"}
GIVEN = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0", "CNI_PATH": "/y"}


def call(environment: dict[str, str], config: Any = CONFIG, plugin: Plugin | None = None) -> tuple[int, Any]:
    text = config if isinstance(config, str) else json.dumps(config)
    status, said = serve(plugin or Recorder("p", []), environment, text)
    return status, json.loads(said) if said else None


@pytest.mark.statement("version")
def test_version_needs_no_other_parameter() -> None:
    status, said = call({"CNI_COMMAND": "VERSION"}, {"cniVersion": "1.0.0"})
    assert status == 0 and said["cniVersion"] == "1.0.0" and {"1.0.0", "1.1.0"} <= set(said["supportedVersions"])
    assert call({"CNI_COMMAND": "VERSION"}, "")[0] == 0


@pytest.mark.statement("err-env", "err-containerid", "err-shape")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CNI_COMMAND", ""),
        ("CNI_COMMAND", "UPDATE"),
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "-a"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_IFNAME", ""),
        ("CNI_IFNAME", "sixteencharacter"),
        ("CNI_IFNAME", "a b"),
        ("CNI_IFNAME", ".."),
        ("CNI_NETNS", ""),
        ("CNI_ARGS", "no pair"),
    ],
)
def test_a_wrong_parameter_is_named_with_code_4(name: str, value: str) -> None:
    status, said = call(GIVEN | {name: value})
    assert (status, said["code"], set(said)) == (1, 4, {"cniVersion", "code", "msg", "details"})
    assert name in said["msg"] and said["cniVersion"] == "1.1.0"


@pytest.mark.statement("err-version", "err-json", "err-conf")
@pytest.mark.parametrize(
    ("config", "command", "code"),
    [
        ({"cniVersion": "2.0.0", "name": "net"}, "ADD", 1),
        ({"cniVersion": "0.2.0", "name": "net"}, "DEL", 1),
        ({"name": "net"}, "ADD", 1),
        ({"cniVersion": "1.0.0", "name": "net"}, "GC", 1),
        ({"cniVersion": "1.0.0", "name": "net"}, "STATUS", 1),
        ({"cniVersion": "0.3.1", "name": "net"}, "CHECK", 1),
        ("{", "ADD", 6),
        ("[]", "VERSION", 6),
        ("[" * 100000, "DEL", 6),
        ({"cniVersion": "1.1.0"}, "ADD", 7),
        ({"cniVersion": "1.1.0", "name": "a/b"}, "STATUS", 7),
        ({**CONFIG, "prevResult": {"ips": [{"address": "x"}]}}, "ADD", 6),
    ],
)
def test_a_wrong_configuration_has_its_code(config: Any, command: str, code: int) -> None:
    status, said = call(GIVEN | {"CNI_COMMAND": command}, config)
    assert (status, said["code"]) == (1, code), said


@pytest.mark.parametrize(("redirection", "code"), [("<&-", 5), ("</dev/null", 6)])
def test_a_program_whose_input_cannot_be_read_says_so(redirection: str, code: int) -> None:
    program = f"{sys.executable} -c 'import topo.cni.ipam as i, sys; sys.exit(i.main())'"
    done = subprocess.run(["sh", "-c", f"{program} {redirection}"], env=GIVEN, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, json.loads(done.stdout)["code"], done.stderr) == (1, code, "")


def test_a_defect_of_a_plugin_is_an_error_object_too() -> None:
    class Broken(Recorder):
        def add(self, call: Call) -> Result:
            raise ZeroDivisionError("oops")

    status, said = call(GIVEN, plugin=Broken("p", []))
    assert (status, said["code"], said["details"]) == (1, 999, "oops")


@pytest.mark.statement("ipam-env", "gc-delegated")
def test_a_delegate_gets_the_same_environment_and_the_whole_configuration(tmp_path: Path) -> None:

    seen: list[Call] = []

    class Seeing(Recorder):
        def _note(self, call: Call) -> None:
            seen.append(call)

    def delegates() -> Executor:
        return Executor(("/z",), {"my-ipam": Seeing("i", [])})

    plugin = VethPlugin(lambda _: LinuxBridge("none"), delegates)
    config = {**CONFIG, "type": "mininetes-cni", "ipam": {"type": "my-ipam"}, "other": [1]}
    for command in ("GC", "DEL"):
        given = GIVEN | {"CNI_COMMAND": command, "CNI_ARGS": "K=V"}
        assert call(given, config, plugin) == (0, None)
        assert (seen[-1].command, seen[-1].config, seen[-1].environment) == (command, config, given)

"""Network configurations: what is read and refused, and the specification's own requests, word for word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from topo.cluster.errors import InputError
from topo.cni import conf, versions
from topo.cni.conf import Network, PluginConf
from topo.cni.request import Attachment, of_attachment, of_collection
from topo.cni.result import read

DATA = Path(__file__).parents[1] / "data" / "cni"
EXAMPLES = json.loads((DATA / "spec-1.1-examples.json").read_text())
DBNET = conf.parse(json.dumps(EXAMPLES["example_configuration"]), "dbnet.conflist")
APPENDIX = [one["json"] for one in EXAMPLES["appendix"]]
REQUESTS = [one for one in APPENDIX if "type" in one]
TOLD = {
    "mac": "00:11:22:33:44:66",
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    "bandwidth": {"ingressRate": 1},
}
ATTACHMENT = Attachment("c1", "/var/run/netns/blue", "eth0", {"argA": "foo"}, TOLD)
LEAST = {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}]}


def without_routes(request: dict[str, Any]) -> dict[str, Any]:
    """The appendix leaves out `ipam.routes`, which its own configuration has; a runtime passes it on unaltered."""
    ipam = {key: value for key, value in request["ipam"].items() if key != "routes"}
    return request | {"ipam": ipam}


@pytest.mark.statement("runtime-caps", "runtime-first-no-prev", "del-reverse", "check-prevresult")
@pytest.mark.parametrize("expected", REQUESTS, ids=lambda r: f"{r['type']}-{'prevResult' in r}")
def test_the_requests_of_the_appendix_are_derived_from_its_configuration(expected: dict[str, Any]) -> None:
    plugin = next(p for p in DBNET.plugins if p.type == expected["type"])
    made = of_attachment(DBNET, plugin, "1.1.0", ATTACHMENT, expected.get("prevResult"))
    assert (without_routes(made) if "ipam" in made else made) == expected


def test_the_results_of_the_appendix_are_read_and_written_back() -> None:
    found = [one for one in APPENDIX if "type" not in one]
    assert len(found) == 3 and len(REQUESTS) == 9
    for one in found:
        assert read(one).object("1.1.0") == {"cniVersion": "1.1.0", **one}


def test_the_environment_says_who_and_where() -> None:
    expected = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/var/run/netns/blue"}
    assert ATTACHMENT.environment("ADD") == expected | {"CNI_IFNAME": "eth0", "CNI_ARGS": "argA=foo"}
    assert "CNI_NETNS" not in Attachment("c1", "", "eth0").environment("DEL")


def test_gc_lists_what_is_still_valid() -> None:
    request = of_collection(DBNET, DBNET.plugins[1], "1.1.0", [("a", "eth0")])
    assert request["cni.dev/valid-attachments"] == [{"containerID": "a", "ifname": "eth0"}]
    assert "capabilities" not in request and "runtimeConfig" not in request


def test_before_1_0_0_an_address_says_its_family() -> None:
    result = read({"ips": [{"address": "10.1.0.5/16"}]})
    assert result.object("0.4.0")["ips"] == [{"address": "10.1.0.5/16", "version": "4"}]


@pytest.mark.parametrize(
    ("offered", "spoken", "highest"),
    [
        (("1.1.0",), [versions.SUPPORTED], "1.1.0"),
        (("0.3.1", "0.4.0", "1.0.0", "1.1.0"), [("0.4.0", "1.0.0"), versions.SUPPORTED], "1.0.0"),
        (("1.0.0", "0.4.0"), [], "1.0.0"),
        (("9.0.0", "1.0.0"), [], "1.0.0"),
        (("1.1.0",), [("1.0.0",)], None),
    ],
)
def test_the_highest_version_that_all_speak_is_taken(
    offered: tuple[str, ...], spoken: list[tuple[str, ...]], highest: str | None
) -> None:
    assert versions.highest(offered, spoken) == highest


def write(folder: Path, values: Any, name: str = "10-n.conflist") -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(values if isinstance(values, str) else json.dumps(values))
    return file


def test_the_first_file_of_a_folder_is_its_network(tmp_path: Path) -> None:
    for name in ("20-b.conflist", "10-a.conflist", "00-c.conf"):
        write(tmp_path, LEAST, name)
    assert conf.find(tmp_path).name == "10-a.conflist"


def test_plugins_of_the_sibling_folder_follow_unless_only_inlined_ones_count(tmp_path: Path) -> None:
    write(tmp_path / "n", {"type": "tuning"}, "20-t.conf")
    write(tmp_path / "n", {"type": "portmap"}, "10-p.conf")
    write(tmp_path / "n", {"type": "ignored"}, "00-not.json")

    def types(values: Any) -> list[str]:
        return [plugin.type for plugin in conf.load(write(tmp_path, values)).plugins]

    assert types(LEAST) == ["bridge", "portmap", "tuning"]
    assert types(LEAST | {"loadOnlyInlinedPlugins": True}) == ["bridge"]
    assert types({"cniVersion": "1.0.0", "name": "n"}) == ["portmap", "tuning"]


def test_fields_of_the_node_are_put_in(tmp_path: Path) -> None:
    text = json.dumps(
        {**LEAST, "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "{{ .PodCIDR }}"}}]}
    )
    text = text.replace('"type": "ptp"', '"type": "ptp", "mtu": {{.MTU}}')
    found = conf.load(write(tmp_path, text), {"PodCIDR": "10.244.1.0/24", "MTU": "1450"})
    assert found.plugins[0].values["mtu"] == 1450 and found.plugins[0].values["ipam"]["subnet"] == "10.244.1.0/24"


def bad(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in (LEAST | values).items() if value is not None}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("{", ":1: is no JSON: Expecting property name enclosed in double quotes; expected a JSON object"),
        ("[]", "10-n.conflist: [] is wrong; expected a JSON object"),
        (bad(name=None), "10-n.conflist: name: is missing; expected a letter or digit"),
        (bad(name="a/b"), '10-n.conflist: name: "a/b" is wrong'),
        (bad(cniVersion=None), "10-n.conflist: cniVersion: is missing; expected a version, as 1.0.0"),
        (bad(cniVersion="1"), '10-n.conflist: cniVersion: "1" is wrong'),
        (bad(cniVersions=["1.0.0", 2]), "10-n.conflist: cniVersions[1]: 2 is wrong"),
        (bad(disableCheck="yes"), '10-n.conflist: disableCheck: "yes" is wrong; expected true or false'),
        (bad(plugins=[]), "10-n.conflist: plugins: [] is wrong; expected a list of one plugin at least"),
        (bad(plugins=None), "10-n.conflist: names no plugins; expected a list `plugins`, or .conf files in"),
        (bad(plugins=None, loadOnlyInlinedPlugins=True), "loadOnlyInlinedPlugins: is true, but there is no `plugins`"),
        (bad(plugins=[{}]), "10-n.conflist: plugins[0].type: is missing; expected the name of a plugin's executable"),
        (bad(plugins=[{"type": "../x"}]), '10-n.conflist: plugins[0].type: "../x" is wrong'),
        (bad(plugins=[{"type": "x", "capabilities": ["mac"]}]), "10-n.conflist: plugins[0].capabilities: "),
        (bad(plugins=[{"type": "x", "runtimeConfig": {}}]), "plugins[0].runtimeConfig: is written by the runtime"),
        (bad(plugins=[{"type": "x", "cni.dev/y": 1}]), "plugins[0].cni.dev/y: is written by the runtime"),
        (bad(plugins=[{"type": "x", "ipam": 7}]), "10-n.conflist: plugins[0].ipam: 7 is wrong"),
        ('{"name": "{{.Nope}}"}', ":1: unknown field {{.Nope}}; expected one of {{.PodCIDR}}"),
    ],
)
def test_every_mistake_is_named_by_file_and_field(tmp_path: Path, values: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        conf.load(write(tmp_path, values), {"PodCIDR": "10.244.0.0/24"})
    assert said in str(caught.value) and str(caught.value).startswith(str(tmp_path))


def test_a_folder_without_a_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no network configuration; expected a \.conflist file"):
        conf.find(tmp_path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        conf.find(tmp_path / "none")


def test_a_network_is_a_plain_value() -> None:
    assert conf.parse(json.dumps(LEAST), "f") == Network(
        "n", ("1.0.0",), (PluginConf("bridge", {"type": "bridge"}, "f: plugins[0]"),), "f"
    )

"""Lab files: kind's own files load, our section sets every value, every kind of mistake is named with its place."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topo import labfile
from topo.cluster.errors import InputError
from topo.config import FabricConfig, LabConfig, LinkConfig, NodeConfig
from topo.config_rules import validate

HEAD = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"
FULL = f"""{HEAD}\
name: dev
featureGates: {{SomeGate: true}}
nodes:
- role: control-plane
  image: kindest/node:v1.30.0
- role: worker
  labels: {{zone: a}}
- role: worker
  extraMounts: [{{hostPath: /a, containerPath: /b}}]
networking:
  ipFamily: ipv4
  podSubnet: 10.1.0.0/16
  serviceSubnet: 10.2.0.0/20
  kubeProxyMode: ipvs
  disableDefaultCNI: true
mininetes:
  cni: {{name: calico, mode: bgp, asn: 64512}}
  proxy: {{scheduler: rr}}
  nodeSubnet: 192.168.0.0/24
  nodeCIDRBits: 25
  honourInitialDelay: true
  fabric:
    shape: leaf-spine
    leaves: 2
    spines: 1
    link: {{bandwidth: 1G, delay: 1ms, loss: 1%, mtu: 9000}}
    links:
      leaf-2--worker: {{delay: 10us, bandwidth: null}}
      spine-1--leaf-1: {{bandwidth: 0.5, loss: 0}}
  manifests: [shop.yaml, ../more]
"""


def parse(text: str) -> labfile.LabFile:
    return labfile.parse(text, "labs/f.yaml")


def error(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_everything_that_can_be_said() -> None:
    link = LinkConfig(bandwidth=1000, delay=1, loss=1, mtu=9000)
    assert parse(FULL) == labfile.LabFile(
        LabConfig(
            nodes=(
                NodeConfig("control-plane", "control-plane"),
                NodeConfig("worker", "worker", {"zone": "a"}),
                NodeConfig("worker2"),
            ),
            name="dev",
            pod_subnet=IPv4Network("10.1.0.0/16"),
            service_subnet=IPv4Network("10.2.0.0/20"),
            node_subnet=IPv4Network("192.168.0.0/24"),
            node_cidr_bits=25,
            proxy_mode="ipvs",
            proxy_options={"scheduler": "rr"},
            cni="calico",
            cni_options={"mode": "bgp", "asn": 64512},
            fabric=FabricConfig(
                "leaf-spine",
                2,
                1,
                link,
                {
                    "leaf-2--worker": replace(link, delay=0.01, bandwidth=None),
                    "spine-1--leaf-1": replace(link, bandwidth=0.5, loss=0),
                },
            ),
            honour_initial_delay=True,
        ),
        (Path("labs/shop.yaml"), Path("labs/../more")),
        ("featureGates", "nodes[0].image", "nodes[2].extraMounts", "networking.disableDefaultCNI"),
    )


def test_a_minimal_file_is_the_default_lab() -> None:
    assert parse(HEAD) == parse(f"---\n{HEAD}nodes:\nmininetes:\n") == labfile.LabFile(labfile.default_config(3))
    assert [n.name for n in labfile.default_config(3).nodes] == ["control-plane", "worker", "worker2"]
    assert [n.role for n in labfile.default_config(1).nodes] == ["control-plane"]
    with pytest.raises(InputError, match="0 is out of range"):
        labfile.default_config(0)
    with pytest.raises(InputError, match="room for 256 nodes of /24, the lab has 257"):
        labfile.default_config(257)


def test_every_key_of_kind_is_accepted() -> None:
    text = f"""{HEAD}
runtimeConfig: {{api/alpha: "false"}}
kubeadmConfigPatches: ["a"]
kubeadmConfigPatchesJSON6902: [{{patch: a}}]
containerdConfigPatches: ["a"]
containerdConfigPatchesJSON6902: ["a"]
networking: {{apiServerAddress: 127.0.0.1, apiServerPort: 6443, dnsSearch: [a]}}
nodes: [{{gpus: all, extraPortMappings: [], kubeadmConfigPatches: [], kubeadmConfigPatchesJSON6902: []}}]
"""
    found = parse(text)
    assert len(found.ignored) == 12
    assert "nodes[0].extraPortMappings" in found.ignored
    assert found.config == labfile.default_config(1)  # kind's role by default is control-plane


def test_names_are_kinds_without_the_cluster() -> None:
    roles = ["worker", "control-plane", "worker", "control-plane", "worker"]
    assert labfile.node_names(roles) == ["worker", "control-plane", "worker2", "control-plane2", "worker3"]


def test_switches_and_links() -> None:
    config = labfile.default_config(3)
    assert labfile.switch_names(config.fabric) == ("leaf-1", "leaf-2", "spine-1", "spine-2")
    assert labfile.fabric_links(config) == (
        ("control-plane", "leaf-1"), ("worker", "leaf-2"), ("worker2", "leaf-1"),
        ("leaf-1", "spine-1"), ("leaf-1", "spine-2"), ("leaf-2", "spine-1"), ("leaf-2", "spine-2"),
    )  # fmt: skip
    star = replace(config, fabric=FabricConfig("star"))
    assert labfile.switch_names(star.fabric) == ("switch-1",)
    assert labfile.fabric_links(star) == tuple((name, "switch-1") for name in ("control-plane", "worker", "worker2"))


def test_folders_of_a_cni_are_seen_from_the_lab_file() -> None:
    options = "confDir: net.d, binDirs: [/usr/lib/cni, ../bin], mtu: 1400"
    config = parse(f"{HEAD}mininetes: {{cni: {{name: conflist, {options}}}}}").config
    assert config.cni_options == {"confDir": "labs/net.d", "binDirs": ["/usr/lib/cni", "labs/../bin"], "mtu": 1400}


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("bandwidth: 100M", LinkConfig(bandwidth=100)), ("bandwidth: 64Kbit", LinkConfig(bandwidth=0.064)),
        ("bandwidth: 10", LinkConfig(bandwidth=10)), ('bandwidth: "10"', LinkConfig(bandwidth=10)),
        ("delay: 0.5s", LinkConfig(delay=500)), ("delay: 0", LinkConfig(delay=0)), ("loss: 0.1%", LinkConfig(loss=0.1)),
        ("mtu: 576", LinkConfig(mtu=576)), ("", LinkConfig()),
    ],
)  # fmt: skip
def test_quantities(text: str, link: LinkConfig) -> None:
    assert parse(f"{HEAD}mininetes: {{fabric: {{link: {{{text}}}}}}}").config.fabric.link == link


def test_load_reads_the_file(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(f"{HEAD}mininetes: {{cni: cilium, manifests: [a.yaml, /b.yaml]}}")
    found = labfile.load(tmp_path / "lab.yaml")
    assert (found.config.cni, found.config.cni_options) == ("cilium", {})
    assert found.manifests == (tmp_path / "a.yaml", Path("/b.yaml"))
    with pytest.raises(InputError, match="cannot be read: No such file"):
        labfile.load(tmp_path / "none.yaml")


# fmt: off
LINES = [
    ("nodez: []", "labs/f.yaml:3: nodez: unknown field 'nodez'; expected nodes"),
    ("nodes: {}", "nodes: {} is wrong; expected a list"),
    ("nodes: []", "nodes: the lab has no nodes"),
    ("nodes: [1]", "nodes[0]: 1 is wrong; expected a mapping"),
    ("nodes:\n- role: worker\n- role: master",
     "f.yaml:5: nodes[1].role: unknown role 'master'; expected control-plane or worker"),
    ("nodes: [{rolle: worker}]", "nodes[0].rolle: unknown field 'rolle'; expected role"),
    ("nodes: [{labels: {a: 1}}]", "nodes[0].labels.a: 1 is wrong; expected a string (in quotes)"),
    ("nodes: [{labels: {a: '-'}}]", "nodes[0].labels.a: '-' is no label value"),
    ("name: 1", "name: 1 is wrong; expected a string (in quotes)"),
    ("name: a_b", "'a_b' is no lab's name"),
    ("kind: Cluster", "key 'kind' appears twice, first in line 1"),
    ("networking: []", "networking: [] is wrong; expected a mapping"),
    ("networking: {ipFamily: dual}", "networking.ipFamily: 'dual' is not there: labs are IPv4 only; expected ipv4"),
    ("networking: {kubeProxyMode: ''}", "networking.kubeProxyMode: the name is empty"),
    ("networking: {podSubnet: 10.0.0.0}", "'10.0.0.0' is no IPv4 subnet; expected ADDRESS/PREFIX"),
    ("networking: {podSubnet: 10.0.0.0/255.0.0.0}", "is no IPv4 subnet"),
    ("networking: {podSubnet: 10.0.0.0/33}", "is no IPv4 subnet"),
    ("networking: {podSubnet: 'fd00::/64'}", "is no IPv4 subnet"),
    ("networking: {podSubnet: 10.0.0.1/8}", "'10.0.0.1/8' has bits beyond its prefix; expected 10.0.0.0/8"),
    ("networking: {podSubnet: 10.64.0.0/10}",
     "networking.serviceSubnet: 10.96.0.0/16 overlaps 10.64.0.0/10 of networking.podSubnet"),
    ("networking: {podSubnet: 172.18.3.0/24}", "mininetes.nodeSubnet: 172.18.0.0/16 overlaps"),
    ("networking: {serviceSubnet: 172.18.3.0/24}", "mininetes.nodeSubnet: 172.18.0.0/16 overlaps"),
    ("networking: {podSubnet: 127.0.0.0/16}", "127.0.0.0/16 is for loopback"),
    ("networking: {podSubnet: 239.0.0.0/16}", "is for multicast and reserved"),
    ("networking: {serviceSubnet: 10.1.0.0/29}",
     "10.1.0.0/29 has the wrong size; expected a prefix length of 12 to 28"),
    ("networking: {serviceSubnet: 11.0.0.0/8}", "11.0.0.0/8 has the wrong size"),
    ("networking: {podSubnet: 10.1.0.0/23}",
     "networking.podSubnet: 10.1.0.0/23 has room for 2 nodes of /24, the lab has 3"),
    ("networking: {podSubnet: 11.0.0.0/8}\nmininetes: {nodeCIDRBits: 25}",
     "/25 is too small a part of 11.0.0.0/8; expected 8 to 24"),
    ("mininetes: {nodeCIDRBits: 31}",
     "mininetes.nodeCIDRBits: /31 is no part of 10.244.0.0/16 that holds pods; expected 16 to 30"),
    ("mininetes: {nodeCIDRBits: 8}", "/8 is no part of"),
    ("mininetes: {nodeCIDRBits: true}", "expected an integer"),
    ("mininetes: {nodeSubnet: 172.18.0.0/30}", "172.18.0.0/30 has room for 1 nodes, the lab has 3"),
    ("mininetes: {honourInitialDelay: 1}", "1 is wrong; expected true or false"),
    ("mininetes: {cin: a}", "mininetes.cin: unknown field 'cin'; expected cni"),
    ("mininetes: {cni: 1}", "mininetes.cni: 1 is wrong; expected a CNI's name, or a mapping"),
    ("mininetes: {cni: ''}", "mininetes.cni: the name is empty"),
    ("mininetes: {cni: {mode: a}}", "mininetes.cni.name: the field is missing"),
    ("mininetes: {cni: {name: 1}}", "mininetes.cni.name: 1 is wrong; expected a string"),
    ("mininetes: {proxy: ipvs}", "mininetes.proxy: 'ipvs' is wrong; expected a mapping"),
    ("mininetes: {manifests: a.yaml}", "mininetes.manifests: 'a.yaml' is wrong; expected a list"),
    ("mininetes: {manifests: [1]}", "mininetes.manifests[0]: 1 is wrong; expected a string"),
    ("mininetes: {fabric: star}", "mininetes.fabric: 'star' is wrong; expected a mapping"),
    ("mininetes: {fabric: {shape: ring}}", "mininetes.fabric.shape: unknown shape 'ring'; expected star, leaf-spine,"),
    ("mininetes: {fabric: {routing: bgp}}", "mininetes.fabric.routing: unknown routing 'bgp'; expected l2 or l3"),
    ("mininetes: {fabric: {shape: star, routing: l3}}", "mininetes.fabric.routing: a star is one rack"),
    (
        "mininetes: {nodeSubnet: 172.18.0.0/28, fabric: {shape: two-racks}}",
        "mininetes.nodeSubnet: 172.18.0.0/28 has no parts for 2 racks; expected a larger subnet",
    ),
    ("mininetes: {fabric: {leaves: 0}}", "mininetes.fabric.leaves: 0 is out of range; expected 1 to 32"),
    ("mininetes: {fabric: {spines: 1000000000}}", "1000000000 is out of range; expected 1 to 32"),
    ("mininetes: {fabric: {leaves: 1.5}}", "1.5 is wrong; expected an integer"),
    ("mininetes: {fabric: {links: {worker--leaf-1: }}}", "there is no link 'worker--leaf-1'; expected"),
    ("mininetes: {fabric: {links: {worker--leaf-2: , leaf-2--worker: }}}",
     "'leaf-2--worker' is the link 'worker--leaf-2'"),
    ("mininetes: {fabric: {links: {worker--leaf-2: {mtu: 9}}}}",
     "mininetes.fabric.links.worker--leaf-2.mtu: 9 is out of range"),
    ("mininetes: {fabric: {link: {bandwith: 1}}}", "unknown field 'bandwith'; expected bandwidth"),
    ("mininetes: {fabric: {link: {bandwidth: 1X}}}", "'1X' is wrong; expected Mbit/s, or a text as 100M or 1G"),
    ("mininetes: {fabric: {link: {bandwidth: 0}}}", "0 Mbit/s is out of range; expected more than 0"),
    ("mininetes: {fabric: {link: {bandwidth: 1" + "0" * 390 + "}}}", "inf Mbit/s is out of range"),
    ("mininetes: {fabric: {link: {delay: 1m}}}", "'1m' is wrong; expected milliseconds, or a text as 10us, 1ms or 1s"),
    ("mininetes: {fabric: {link: {delay: -1}}}", "-1 ms is out of range; expected 0 or more"),
    ("mininetes: {fabric: {link: {loss: 101%}}}", "101 % is out of range; expected 0 to 100"),
    ("mininetes: {fabric: {link: {loss: true}}}", "True is wrong; expected percent"),
    ("mininetes: {fabric: {link: {mtu: 575}}}", "575 is out of range; expected 576 to 65000"),
    ("mininetes: {fabric: {link: {mtu: 65001}}}", "65001 is out of range"),
    ("---\n" + HEAD, "the file has 2 documents; expected one of kind Cluster"),
    ("\tname: a", "spaces, no tabs, as indentation"),
]
# fmt: on


@pytest.mark.parametrize(("line", "expected"), LINES, ids=[line[:50] for line, _ in LINES])
def test_errors(line: str, expected: str) -> None:
    assert expected in error(HEAD + line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "labs/f.yaml: the file has 0 documents"),
        ("[]", "labs/f.yaml:1: [] is wrong; expected a mapping"),
        ("kind: Cluster", "apiVersion: apiVersion is missing; expected kind.x-k8s.io/v1alpha4"),
        ("apiVersion: kind.x-k8s.io/v1alpha4", "kind is missing; expected Cluster"),
        (HEAD.replace("4", "3"), "labs/f.yaml:2: apiVersion: 'kind.x-k8s.io/v1alpha3' is no lab file's apiVersion"),
    ],
)
def test_errors_of_the_whole_file(text: str, expected: str) -> None:
    assert expected in error(text)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"nodes": ()}, "nodes: the lab has no nodes"),
        ({"nodes": (NodeConfig("a"), NodeConfig("a"))}, "nodes[1].name: 'a' is the name of another node"),
        ({"nodes": (NodeConfig("leaf-1"),)}, "nodes[0].name: 'leaf-1' is the name of a switch or the client"),
        ({"nodes": (NodeConfig("A"),)}, "nodes[0].name: 'A' is no node's name; expected at most 63"),
        ({"nodes": (NodeConfig("a" * 64),)}, "RFC 1123 label"),
        ({"nodes": (NodeConfig("a", "master"),)}, "unknown role 'master'"),  # type: ignore[arg-type]
        ({"fabric": FabricConfig(links={"a--b": LinkConfig()})}, "mininetes.fabric.links.a--b: there is no link"),
        ({"fabric": FabricConfig(link=LinkConfig(delay=float("nan")))}, "nan ms is out of range"),
    ],
)
def test_configs_made_in_python_are_checked_too(change: dict[str, Any], expected: str) -> None:
    validate(labfile.default_config(3))
    with pytest.raises(InputError) as caught:
        validate(replace(labfile.default_config(3), **change))
    assert expected in str(caught.value)


ODD = st.sampled_from(
    [None, "", "a b", -1, 0, 33, 2**64, 1.5, True, [], {}, [None], {"a": None}, "10.0.0.0/8", "1G", "1%", "é"]
)
JSON = st.recursive(
    ODD | st.integers() | st.text(max_size=8),
    lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=5), s),
)
NOISE = [
    "\t", "  ", ":", "- ", "&a ", "*a", "<<: ", "{", "[", "]", "!t ", "'", "---\n", "\x00", "\ud800", "\n", "9", "/",
]  # fmt: skip


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [spot for key in keys for spot in spots(value[key])]


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """A lab file with fields deleted, renamed and replaced, or with its text damaged."""
    if draw(st.booleans()):
        text = FULL
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(text)))
            text = text[:at] + draw(st.sampled_from(NOISE)) + text[at + draw(st.integers(0, 10)) :]
        return text
    thing = copy.deepcopy(yaml.safe_load(FULL))
    for _ in range(draw(st.integers(1, 4))):
        found = spots(thing)
        container, key = draw(st.sampled_from(found))
        if draw(st.booleans()):
            container[key] = copy.deepcopy(draw(JSON))  # a drawn value is shared between examples
        else:
            value = container.pop(key)
            if isinstance(container, dict) and draw(st.booleans()):
                container[draw(st.text(max_size=8))] = value
    return json.dumps(thing, ensure_ascii=False) if draw(st.booleans()) else str(yaml.safe_dump(thing))


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(mutants())
def test_a_damaged_lab_file_loads_or_is_an_input_error(text: str) -> None:
    try:
        found = parse(text)
    except InputError as caught:
        assert str(caught).startswith("labs/f.yaml")
    else:
        validate(found.config)
        assert labfile.fabric_links(found.config)

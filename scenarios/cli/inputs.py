"""What a lab is built from: the options that say so, the lab file and the manifests, read and checked."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scenarios.cli.common import lab_option
from scenarios.lab import assemble
from topo import labfile, manifests
from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.config import LabConfig
from topo.ingress_rules import unheeded
from topo.manifest_rules import is_subdomain


def build_options(parser: ArgumentParser) -> None:
    """What decides how a lab is built."""
    lab_option(parser)
    parser.add_argument("--nodes", type=int, metavar="N", help="number of nodes (default: the lab file's, else 3)")
    parser.add_argument("--cni", metavar="NAME", help="pod network (`mininetes list` names them)")
    parser.add_argument(
        "--cni-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the CNI (docs/cni.md); may repeat",
    )
    parser.add_argument("--proxy", metavar="MODE", help="Service implementation (`mininetes list` names them)")
    parser.add_argument("--ingress", action="store_true", help="an Ingress controller (nginx), manifests or not")
    parser.add_argument("--no-dns", action="store_true", help="without the cluster's DNS (two pods, a Service)")
    parser.add_argument(
        "--datapath", choices=("auto", "netdev", "system"), default="auto", help="Open vSwitch in userspace or kernel"
    )
    parser.add_argument(
        "--controller",
        action="append",
        metavar="APP",
        help="a file with your own Ryu application instead of ours; give `mininetes` too to run it beside ours",
    )
    parser.add_argument(
        "--plugins",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder with CNIs, proxy modes, scenarios",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of pod names and of whatever is random")


def configure(arguments: Namespace, config: LabConfig) -> LabConfig:
    """The configuration with the options over it, checked. Raises InputError."""
    if arguments.nodes is not None:
        if arguments.nodes < 1:
            raise InputError("--nodes", f"{arguments.nodes} is no number of nodes", "1 or more")
        config = replace(config, nodes=labfile.default_config(arguments.nodes).nodes)
    if arguments.cni:
        config = replace(config, cni=arguments.cni, cni_options={})
    options = dict(config.cni_options)
    for text in arguments.cni_option:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError(f"--cni-option {text}", "has no '='", "KEY=VALUE")
        options[key] = int(value) if value.isdigit() else {"true": True, "false": False}.get(value, value)
    config = replace(config, cni_options=options, proxy_mode=arguments.proxy or config.proxy_mode, name=arguments.lab)
    config = replace(config, ingress=config.ingress or arguments.ingress, dns=config.dns and not arguments.no_dns)
    if not is_subdomain(arguments.lab):
        raise InputError(f"--lab {arguments.lab}", "is no lab's name", "a-z, 0-9, '-' and '.', as dev-1")
    labfile.validate(config)
    return config


def read(paths: Sequence[Path]) -> tuple[LabConfig, tuple[Object, ...], list[str]]:
    """A lab file (at most one) and manifests, told apart by `kind: Cluster`; and what of them is ignored.

    Raises InputError.
    """
    config = labfile.default_config(3)
    files: list[Path] = []
    ignored: list[str] = []
    labs = [path for path in paths if _is_lab_file(path)]
    if len(labs) > 1:
        raise InputError(str(labs[1]), f"{labs[0]} is a lab file already", "one lab file")
    for path in labs:
        found = labfile.load(path)
        config = found.config
        files += found.manifests
        ignored += [f"{path}: {field}" for field in found.ignored]
    files += [path for path in paths if path not in labs]
    loaded = manifests.load(files) if files else manifests.Manifests((), ())
    ignored += [f"{i.where}: {i.kind} {i.name}" for i in loaded.ignored]
    ignored += [f"Ingress {o['metadata']['name']}: annotation {key}" for o in loaded.objects for key in unheeded(o)]
    return config, loaded.objects, ignored


def _is_lab_file(path: Path) -> bool:
    try:
        return path.is_file() and any(line.rstrip() == "kind: Cluster" for line in path.open(errors="replace"))
    except OSError:
        return False  # reading it as a manifest says what is wrong


def choices(arguments: Namespace) -> assemble.Choices:
    """The options that are not configuration."""
    apps = tuple(arguments.controller or (assemble.OURS,))
    return assemble.Choices(apps, arguments.datapath, arguments.seed)

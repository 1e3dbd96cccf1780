"""mininetes delete: removes objects from a running lab, by name or by manifest."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from scenarios.cli import Command
from scenarios.cli.common import json_option, lab_option, print_json
from scenarios.lab.socket import ask
from topo import manifests
from topo.cluster.errors import InputError
from topo.cluster.store import NAMESAKES, key_of

_KINDS = {kind.lower(): kind for kind in (*manifests.KINDS, *NAMESAKES)}
# As kubectl abbreviates them.
_SHORT = {
    "ns": "Namespace",
    "no": "Node",
    "po": "Pod",
    "deploy": "Deployment",
    "sts": "StatefulSet",
    "ds": "DaemonSet",
    "rs": "ReplicaSet",
    "svc": "Service",
    "ing": "Ingress",
    "netpol": "NetworkPolicy",
    "cnp": "NetworkPolicy.projectcalico.org",
    "gnp": "GlobalNetworkPolicy",
}


def _arguments(parser: ArgumentParser) -> None:
    lab_option(parser)
    json_option(parser)
    parser.add_argument(
        "what", nargs="*", metavar="KIND NAME", help="as in: pod frontend-0, or pod/frontend-0 node/worker"
    )
    parser.add_argument("-f", dest="files", type=Path, action="append", metavar="FILE", help="everything in a manifest")
    parser.add_argument(
        "--grace-period", type=int, metavar="SECONDS", help="for pods to end in (default: each one's own)"
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait until pods have ended")
    parser.add_argument("-n", "--namespace", default="default", help="of the named objects (default: %(default)s)")


def _run(arguments: Namespace) -> int:
    grace = arguments.grace_period
    if grace is not None and grace < 0:
        raise InputError("--grace-period", str(grace), "seconds, 0 for at once")
    if arguments.files:
        found = manifests.load(arguments.files).objects
        keys = [list(key_of(o)) for o in found]
    else:
        keys = [[*pair[:1], arguments.namespace, *pair[1:]] for pair in _pairs(arguments.what)]
    wanted = {"keys": keys, "grace": grace, "wait": not arguments.no_wait}
    done = ask(arguments.lab, {"verb": "delete", **wanted})
    if arguments.json:
        print_json(done)
    else:
        for one in done:
            print(f"{one['kind'].lower()}/{one['name']} {one['outcome']}")
    return 0


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    if words and all("/" in word for word in words):
        split = [word.split("/", 1) for word in words]
    elif len(words) >= 2:
        split = [[words[0], name] for name in words[1:]]
    else:
        raise InputError("delete", "names no object", "KIND NAME, KIND/NAME or -f FILE")
    out = []
    for kind, name in split:
        word = kind.lower()
        singular = (word, word.removesuffix("s"), word.removesuffix("es"), f"{word.removesuffix('ies')}y")
        known = _SHORT.get(word) or next((_KINDS[s] for s in singular if s in _KINDS), None)
        if known is None:
            raise InputError(f"delete {kind}", "unknown kind", f"one of: {', '.join(_KINDS)}")
        out.append((known, name))
    return out


COMMAND = Command("delete", "remove objects from a running lab", "mininetes delete node worker2", _arguments, _run)

"""mininetes status: a lab's nodes, pods, Services and warnings."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from rich.console import Console

from scenarios.cli import Command
from scenarios.cli.common import console, json_option, lab_option, print_json, table
from scenarios.cli.terminal import printable
from scenarios.lab.socket import ask


def _arguments(parser: ArgumentParser) -> None:
    lab_option(parser)
    json_option(parser)


def _run(arguments: Namespace) -> int:
    status = ask(arguments.lab, {"verb": "status"})
    if arguments.json:
        print_json(status)
    else:
        show(status, console())
    return 0


def show(status: dict[str, Any], out: Console) -> None:
    """Print a status for people."""
    fabric = status["fabric"]
    out.print(
        f"lab {status['lab']}: CNI {status['cni']}, proxy mode {status['proxy']}, "
        f"{status['datapath']} datapath, {fabric['shape']} fabric of {len(fabric['switches'])} switches"
    )
    nodes = table("nodes", "name", "state", "address", "pod CIDR", "pods", "attached to")
    for node in status["nodes"]:
        state = "Ready" if node["ready"] else "NotReady"
        nodes.add_row(node["name"], state, node["ip"], node["podCIDR"], str(node["pods"]), node["attached"])
    pods = table("pods", "namespace", "name", "node", "address", "state")
    for pod in status["pods"]:
        state = pod["phase"] if pod["ready"] or pod["phase"] != "Running" else "Running, not ready"
        pods.add_row(pod["namespace"], pod["name"], pod["node"], pod["ip"], state)
    services = table("services", "namespace", "name", "type", "cluster IP", "external", "ports", "ready endpoints")
    for service in status["services"]:
        ends = ", ".join(service["endpoints"]) or "none"
        services.add_row(
            service["namespace"],
            service["name"],
            service["type"],
            service["clusterIP"],
            " ".join(service["external"]),
            " ".join(service["ports"]),
            ends,
        )
    ingresses = table("ingresses", "namespace", "name", "class", "hosts", "address")
    for one in status["ingresses"]:
        hosts, addresses = " ".join(one["hosts"]), " ".join(one["addresses"])
        ingresses.add_row(one["namespace"], one["name"], one["class"], hosts, addresses or "served by nobody yet")
    for one in (nodes, pods, services, ingresses):
        if one.row_count:
            out.print()
            out.print(one)
    for node in status["nodes"]:
        for peer, relay in node["relays"].items():
            out.print(f"note: {node['name']} reaches {peer} through {relay}")
    for title in ("notes", "warnings", "waiting"):
        for text in status[title]:
            out.print(f"{title.rstrip('s')}: {printable(text)}")
    for text in status["controller"]["errors"]:
        out.print(f"controller: {printable(text)}")


COMMAND = Command(
    "status", "show a lab's nodes, pods, Services and warnings", "mininetes status --json", _arguments, _run
)

"""quickstart: a real application's manifests on three nodes, and what each path between pods costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from scenarios import Context, Outcome
from scenarios.measure import suite
from scenarios.measure.costs import costs
from scenarios.measure.place import Place
from scenarios.report.results import Measurement, Samples
from topo import manifests
from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.config import LabConfig

APPLICATION = Path(str(files("scenarios"))) / "data" / "manifests" / "online-boutique.yaml"
PORTS = suite.Ports()
CLIENT, SAME, OTHER = "measure-client", "measure-same-node", "measure-other-node"


class Quickstart:
    """The scenario object."""

    name = "quickstart"
    description = "Online Boutique on a leaf-spine fabric; latency and throughput of each path between pods"

    def plan(self, config: LabConfig) -> tuple[LabConfig, Sequence[Object]]:
        """The application, three measuring pods and a Service in front of the far one."""
        names = [node.name for node in config.nodes]
        if len(names) < 2:
            raise InputError("--nodes", "quickstart measures between two nodes", "2 or more")
        # The last two nodes hang on different leaves (or on the one switch of a star), so packets cross a spine.
        here, there = names[-2], names[-1]
        pods = [_pod(CLIENT, here), _pod(SAME, here), _pod(OTHER, there)]
        return config, [*manifests.load([APPLICATION]).objects, *pods, _service()]

    def run(self, context: Context) -> Outcome:
        """Baseline first, then each path, with what it cost in CPU and memory."""
        client, same, other = (context.place(f"default/{name}") for name in (CLIENT, SAME, OTHER))
        service = context.lab.store.get("Service", "default", "measure")
        assert service is not None
        address = service["spec"]["clusterIP"]
        # A throughput run takes a whole second, so there are fewer of them.
        how: dict[str, Any] = {
            "ports": PORTS,
            "repeats": context.repeats,
            "throughput_repeats": min(context.repeats, 2),
            "seconds": context.seconds,
            "progress": context.progress,
        }
        measurements, samples, note = suite.baseline(tx_off=context.lab.parts.datapath == "netdev", **how)
        paths: Mapping[str, tuple[Place, str | None]] = {
            "same pod": (Place(client.name, client.pid, "127.0.0.1"), None),
            "same node": (same, None),
            "other node": (other, None),
            "ClusterIP": (other, address),
        }
        all_measurements: list[Measurement] = list(measurements)
        all_samples: list[Samples] = list(samples)
        for name, (server, virtual) in paths.items():
            with costs(context.lab, name) as used:
                found, rows = suite.measure_path(name, client, server, address=virtual, **how)
            all_measurements += [*found, *used]
            all_samples += rows
        pods = len(context.lab.store.list("Pod"))
        return Outcome(all_measurements, all_samples, (note, f"{pods} pods ran on {len(context.lab.nodes)} nodes."))


SCENARIO = Quickstart()


def _pod(name: str, node: str) -> Object:
    """A pod without ports of its own: the measuring programs listen."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "measure", "image": "none"}]},
    }


def _service() -> Object:
    ports = [
        {"name": f"{name}-{protocol.lower()}", "port": number, "targetPort": number, "protocol": protocol}
        for name, number in (("iperf", PORTS.iperf), ("rr", PORTS.rr))
        for protocol in ("TCP", "UDP")
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "measure", "namespace": "default"},
        "spec": {"type": "ClusterIP", "selector": {"app": OTHER}, "ports": ports},
    }

"""cni-benchmark: the field's benchmark (InfraBuilder's k8s-bench-suite) on every CNI, in its labs and on two wires.

*shaped*: every link of the fabric carries less than the emulator could, so headers and MTU decide, as on a real wire;
*unshaped*: nothing is limited, so the emulator's own cost decides. In every lab each load is put on the nodes' own
network ("no CNI"), on the pod and on its Service in turn, and a score is the pod's share of that: so a machine that
changes from lab to lab changes no score. "bare" is a plain veth pair, limited as the links are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from time import sleep

from scenarios import Context, Outcome, Variant
from scenarios.lab import networks, options
from scenarios.measure import fileservers, footprint, limits, suite, trials, usage
from scenarios.measure.place import Place, ProgramError, run
from scenarios.measure.trials import KINDS, PORTS, Kind, Route, Setting
from scenarios.report import benchmark
from scenarios.report.benchmark import BARE, NO_CNI, NODES, POD, SERVICE, SHAPED, UNSHAPED
from scenarios.report.results import TextTable
from topo import fabric, manifests, platform, shaping
from topo.cluster.errors import InputError
from topo.config import FabricConfig, LabConfig, LinkConfig
from topo.lab import Lab

# Bytes that are downloaded from an unshaped lab; from a shaped one what takes so many seconds. Seconds of idling.
LARGE, TAKING, SECONDS_IDLE = 8 << 20, 0.6, 1.0
ETHERNET = 1500  # the MTU that goes without saying
# Weave Net's other mode has an encryption of its own, which the list of CNIs has only for its first.
_MORE: Mapping[str, tuple[str, dict[str, object]]] = {
    "weave sleeve password": ("weave", {"mode": "sleeve", "password": "of the lab"}),
}
_DEFAULT = (
    *("flannel", "calico bgp", "calico ipip", "calico wireguard", "canal", "cilium vxlan", "cilium encryption"),
    *("kube-router", "ovs geneve", "weave fastdp", "weave sleeve", "weave password"),
)
_PODS = """
apiVersion: v1
kind: Pod
metadata: {{name: one}}
spec: {{nodeName: {here}, containers: [{{name: idle, image: none}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: two, labels: {{app: two}}}}
spec: {{nodeName: {there}, containers: [{{name: idle, image: none}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: two}}
spec: {{selector: {{app: two}}, ports: [{ports}]}}
"""


class CniBenchmark:
    """The scenario object."""

    name = "cni-benchmark"
    description = "the published CNI benchmark on every CNI and encryption: streams, downloads, requests, CPU, memory"
    options: Mapping[str, str] = {
        "way": SHAPED,
        "cnis": ",".join(_DEFAULT),
        "tests": "all",
        "rate": "30",
        "mtu": "lab",
    }

    def variants(self, config: LabConfig) -> Sequence[Variant]:
        """For each way and MTU a lab without a CNI, and one a CNI."""
        names = [node.name for node in config.nodes]
        if len(names) < 2:
            raise InputError("--nodes", f"{self.name} measures between two nodes", "2 or more")
        if any(kind.server for kind in _kinds(config)):
            platform.require_downloads()
        protocols = ("TCP", "UDP", *(["SCTP"] if platform.sctp().there else []))
        listed = [(protocol, PORTS.iperf) for protocol in protocols] + [("TCP", PORTS.rr)]
        ports = ", ".join(f"{{name: p{n}, protocol: {p}, port: {at}}}" for n, (p, at) in enumerate(listed))
        objects = manifests.load_text(_PODS.format(here=names[-2], there=names[-1], ports=ports), self.name).objects
        found = []
        for condition, one in _conditions(config).items():
            alone = replace(one, cni="ovs", cni_options={}, proxy_mode="", proxy_options={})
            found.append(Variant(f"{NO_CNI}, {condition}", alone, ()))
            found += [
                Variant(f"{name}, {condition}", lab, objects)
                for name, lab in networks.chosen(one, "cnis", _MORE).items()
            ]
        return found

    def run(self, context: Context) -> Outcome:
        """Every load on every path in turn, then all again, so that a slow moment disturbs one repeat of each."""
        lab = context.lab
        if _has_pods(lab) and not networks.traits(lab.config).crosses:
            return Outcome([], [], ["its pods do not reach those of other nodes"])
        kinds, rate = _kinds(lab.config), _rate(lab.config)
        # Before anything that measures is started on a node.
        watched = footprint.groups(lab)
        folder = fileservers.prepare(lab.run / "benchmark", int(rate * TAKING / 8) or LARGE)
        bench = _Bench(lab, watched, Setting(rate, context.seconds, folder))
        with ExitStack() as stack:
            paths = list(_paths(context, stack))
            for program in dict.fromkeys(kind.server for kind in kinds if kind.server):
                for place in {path.server.pid: path.server for path in paths}.values():
                    stack.enter_context(fileservers.serving_files(program, place, folder))
            for path in paths:  # ARP, tunnels' sessions
                suite.ping(path.client, path.server.address, seconds=1e-6, count=2)
            for repeat in range(1, context.repeats + 1):
                context.progress(f"idle {repeat}/{context.repeats}")
                bench.idle()
                for kind in kinds:
                    for path in paths:
                        if path.name != SERVICE or kind.service:
                            context.progress(f"{kind.title}, {path.name} {repeat}/{context.repeats}")
                            bench.once(kind, path)
            notes = _offloads(paths)
        bench.note(benchmark.FLOWS, benchmark.IDLE, suite.Run((footprint.flows(lab),)))
        measured = [suite.combine(*key, runs) for key, runs in bench.taken.items()]
        said = TextTable("", benchmark.SAID, (_said(lab),))
        return Outcome([m for m, _ in measured], [row for _, rows in measured for row in rows], notes, [said])

    def compare(self, outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> Outcome:
        """Tables like the published ones, for each way of measuring and MTU."""
        found = benchmark.outcome(outcomes, missing)
        sctp = platform.sctp()
        lacking = [] if sctp.there else [f"SCTP is not measured: {sctp.detail.lower()} ({sctp.remedy})."]
        return replace(found, notes=[*found.notes, *lacking])


SCENARIO = CniBenchmark()


class _Bench:
    """One lab's figures, as they come. taken: runs by (name, path, unit)."""

    def __init__(self, lab: Lab, watched: Mapping[str, Sequence[int]], setting: Setting) -> None:
        self._lab, self._watched, self._setting = lab, watched, setting
        self.taken: dict[tuple[str, str, str], list[suite.Run]] = {}

    def note(self, name: str, path: str, one: suite.Run, unit: str = "") -> None:
        """Keep a run; a cost's unit goes without saying."""
        self.taken.setdefault((name, path, unit or benchmark.COSTS[name]), []).append(one)

    def idle(self) -> None:
        """What the nodes' processes use while nothing is asked of them."""
        with self._used() as used:
            sleep(SECONDS_IDLE)
        self._note_used(benchmark.IDLE, used[0])

    def once(self, kind: Kind, path: Route) -> None:
        """A load on a path, and how busy the CPU was; of TCP also what the nodes' processes took to carry it."""
        try:
            with limits.watched() as load, self._used() as used:
                found = kind.once(path, self._setting)
        except ProgramError as problem:
            self.note(kind.name, path.name, suite.Run(problem=str(problem)), kind.unit)
            return
        load.thread = max(load.thread, *(found.details.get(f"cpu_{end}_percent", 0.0) for end in ("client", "server")))
        found = replace(found, details={**found.details, **load.details})
        self.note(kind.name, path.name, found, kind.unit)
        if kind is trials.TCP and (carried := found.values[0] * suite.IPERF_SECONDS / 1e9):
            self._note_used(path.name, used[0])
            self.note(benchmark.COST, path.name, suite.Run((sum(used[0].seconds.values()) / carried,)))

    def _note_used(self, path: str, used: footprint.Footprint) -> None:
        self.note(benchmark.CPU, path, suite.Run((100 * sum(used.cpus.values()),)))
        by_kind = {f"{name}_mb": value for name, value in used.memory.items()}
        self.note(benchmark.MEMORY, path, suite.Run((sum(used.memory.values()),), details=by_kind))

    @contextmanager
    def _used(self) -> Iterator[list[footprint.Footprint]]:
        """Gives a list that has what was used when the block ends."""
        found: list[footprint.Footprint] = []
        before = usage.read(self._watched)
        yield found
        found.append(footprint.between(before, usage.read(self._watched), len(self._lab.nodes)))


def _kinds(config: LabConfig) -> tuple[Kind, ...]:
    """The loads that were asked for, but for SCTP where no program can have it. Raises InputError."""
    asked = options.names(config.scenario, "tests", [kind.option for kind in KINDS])
    return tuple(kind for kind in KINDS if kind.option in asked and (kind.option != "sctp" or platform.sctp().there))


def _conditions(config: LabConfig) -> dict[str, LabConfig]:
    """The labs to compare CNIs in, by how they are called. Raises InputError."""
    said = config.scenario
    if said["way"] not in (SHAPED, UNSHAPED, "both"):
        raise InputError(f"--option way={said['way']}", "there is no such way", f"{SHAPED}, {UNSHAPED} or both")
    (rate,) = options.numbers(said, "rate", 1)[:1]
    sizes = (fabric.mtu(config.fabric),) if said["mtu"] == "lab" else options.numbers(said, "mtu", 576)
    found = {}
    for way in (SHAPED, UNSHAPED) if said["way"] == "both" else (said["way"],):
        for size in sizes:
            name = way if size == ETHERNET else f"{way}, MTU {size}"
            links = _links(config.fabric, float(rate) if way == SHAPED else None, size)
            found[name] = replace(config, fabric=links, dns=False)
    return found


def _links(config: FabricConfig, bandwidth: float | None, mtu: int) -> FabricConfig:
    """Every link with this limit, whatever it was; delay and loss stay."""

    def like(link: LinkConfig) -> LinkConfig:
        return replace(link, bandwidth=bandwidth, mtu=mtu)

    # Of its own, the link between two sites would have a limit.
    named = {"site-1--site-2": config.link, **config.links} if config.shape == "two-sites" else config.links
    return replace(config, link=like(config.link), links={name: like(link) for name, link in named.items()})


def _rate(config: LabConfig) -> int:
    """Bit/s that each link carries, 0 for no limit."""
    return int((config.fabric.link.bandwidth or 0) * 1e6)


def _has_pods(lab: Lab) -> bool:
    return "default/one" in lab.kubelet.sandboxes


def _said(lab: Lab) -> tuple[str, str, str]:
    """MTU, and of its CNI which policies it enforces and whether it seals, as scenario cni-traits holds it to."""
    if not _has_pods(lab):
        return str(fabric.mtu(lab.config.fabric)), "none", "none"
    says = networks.traits(lab.config)
    able = " or ".join(says.encryption)
    sealed = f"on, {able}" if says.sealed else f"can, {able}" if able else "none"
    return str(lab.parts.network.mtu), " and ".join(says.policy) or "none", sealed


def _paths(context: Context, stack: ExitStack) -> Iterator[Route]:
    """The nodes' own network; and of a lab with a CNI the pod and its Service, of one without a plain wire."""
    lab = context.lab
    size = fabric.mtu(lab.config.fabric)
    here, there = (Place(n.name, n.machine.pid, str(n.ip)) for n in list(lab.nodes.values())[-2:])
    yield Route(NODES, here, there, there.address, size)
    if _has_pods(lab):
        one, two = context.place("default/one"), context.place("default/two")
        service = lab.store.get("Service", "default", "two")
        assert service is not None
        yield Route(POD, one, two, two.address, lab.parts.network.mtu)
        yield Route(SERVICE, one, two, service["spec"]["clusterIP"], lab.parts.network.mtu)
        return
    wire = stack.enter_context(suite.baseline_places(tx_off=lab.parts.datapath == "netdev"))
    for place in wire:
        run(place, ["ip", "link", "set", "dev", suite.DEVICE, "mtu", str(size)], 5)
        for _, arguments in shaping.commands(lab.config.fabric.link, suite.DEVICE):
            run(place, ["tc", *arguments], 5)
    yield Route(BARE, *wire, wire[1].address, size)


def _offloads(paths: Sequence[Route]) -> list[str]:
    """A sentence if the paths' ends do not leave the same work to their devices, for then that is compared as well."""
    features = ("tx-checksumming", "tx-tcp-segmentation")
    found: dict[str, dict[str, bool]] = {}
    for path in paths:
        device = "br-ex" if path.name == NODES else suite.DEVICE
        (said,) = json.loads(run(path.client, ["ethtool", "--json", "-k", device], 5))
        found[path.name] = {name: bool(said[name]["active"]) for name in features}
    if len({str(one) for one in found.values()}) == 1:
        return []
    told = [f"{path}: {', '.join(n for n, on in one.items() if on) or 'none'}" for path, one in found.items()]
    return [f"offloads differ between the paths: {'; '.join(told)}"]

"""online-boutique: the application's own call graph under its users' load, page by page, in each CNI and proxy mode."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from scenarios import Context, Outcome, Variant
from scenarios.lab import networks, options
from scenarios.measure import environment, stats, suite
from scenarios.measure.boutique import KEPT, NEW, WAYS
from scenarios.measure.place import Place, ProgramError, run, script, serving
from scenarios.proxy_modes import MODES
from scenarios.quickstart import APPLICATION
from scenarios.report import contrast
from scenarios.report.results import Measurement, Samples, TextTable
from topo import manifests
from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.cluster.wiring import COMMAND
from topo.config import LabConfig

PAGES = ("home", "product", "cart", "add to cart", "checkout", "set currency")
USERS, PATIENCE = 10, 60.0
# A lab's own graph in one namespace, by loopback: what the stand-ins cost by themselves.
LOOPBACK = "loopback"
_LOAD = "loadgenerator"
_LOADS = ("connections", "tasks/s asked", "pages/s answered", "errors", "CPUs busy (%)", "load late, p99 (ms)")
_ANSWERS = ("connections", "page", "loopback p50/p90/p99 (ms)", "lab", "ratio", "to the first lab")


@dataclass(frozen=True, slots=True)
class Loaded:
    """One repeat. rate: pages a second; busy: percent of the machine's CPUs; late: us, p99, of the load itself."""

    pages: Mapping[str, tuple[float, ...]]
    errors: Mapping[str, int]
    rate: float
    busy: float
    late: float

    def failed(self, page: str) -> int:
        """How often that page was not there."""
        return sum(count for text, count in self.errors.items() if text.startswith(f"{page}: "))


class OnlineBoutique:
    """The scenario object."""

    name = "online-boutique"
    description = "the application's call graph under its users' load: latency of each page by CNI and proxy mode"
    options: Mapping[str, str] = {
        "cnis": "flannel vxlan,calico bgp",
        "modes": "ovs,kernel-iptables",
        "connections": f"{KEPT},{NEW}",
        "rate": "8",
        "seconds": "6",
    }

    def variants(self, config: LabConfig) -> Sequence[Variant]:
        """Every CNI with every mode; pods are where they are in the others."""
        options.names(config.scenario, "connections", WAYS)
        for key in ("rate", "seconds"):
            options.number(config.scenario, key, 1)
        if not config.dns:
            raise InputError("--no-dns", f"{self.name}'s services find one another by name", "the cluster's DNS")
        objects = application([node.name for node in config.nodes])
        labs = networks.chosen(config, "cnis")
        for cni, lab in labs.items():
            if len(config.nodes) > 1 and not networks.traits(lab).crosses:
                problem = f"pods of {cni} do not reach those of other nodes"
                raise InputError(
                    f"--option cnis={config.scenario['cnis']}", problem, "CNIs whose pods do, or --nodes 1"
                )
        return [
            Variant(f"{cni}, {name}", replace(lab, proxy_mode=MODES[name][0], proxy_options=MODES[name][1]), objects)
            for cni, lab in labs.items()
            for name in options.names(config.scenario, "modes", MODES)
        ]

    def run(self, context: Context) -> Outcome:
        """The lab and the loopback graph in turn, so that a machine that is slow for a while disturbs both."""
        config = context.lab.config
        ways = options.names(config.scenario, "connections", WAYS)
        rate, seconds = (options.number(config.scenario, key, 1) for key in ("rate", "seconds"))
        users = next(key for key in context.lab.kubelet.sandboxes if key.startswith(f"default/{_LOAD}-"))
        taken: dict[tuple[str, str], list[Loaded]] = {}
        with loopback() as (alone, port):
            for repeat in range(1, context.repeats + 1):
                for way in ways:
                    ends = {LOOPBACK: (alone, alone.address, port), "lab": (context.place(users), "frontend", 80)}
                    for path, (place, host, number) in ends.items():
                        context.progress(f"{way} connections, {path} {repeat}/{context.repeats}")
                        try:
                            one = _load(place, host, number, way, rate, seconds, repeat)
                        except ProgramError as problem:
                            one = Loaded({}, {str(problem): 1}, 0.0, 0.0, 0.0)
                        taken.setdefault((path, way), []).append(one)
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        failed, rows = [], []
        for (path, way), runs in taken.items():
            for page in PAGES:
                found = [suite.Run(one.pages.get(page, ()), one.failed(page)) for one in runs]
                measurement, values = suite.combine(page, f"{path}, {way}", "us", found)
                measurements.append(measurement)
                samples += values
            rows.append((path, way, str(rate), *_load_cells(runs)))
            failed += sorted({f"{path}, {way}: {text}" for one in runs for text in one.errors})
        return Outcome(measurements, samples, tables=(TextTable("", _LOADS, tuple(rows)),), failed=failed)

    def compare(self, outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> Outcome:
        """Every lab's pages, and of each page the ratio to the same graph by loopback and to the first lab."""
        loads: list[tuple[str, ...]] = []
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        for name, outcome in outcomes.items():
            loads += [(name if row[0] == "lab" else f"{name}: {LOOPBACK}", *row[1:]) for row in outcome.tables[0].rows]
            measurements += [replace(m, path=f"{name}: {m.path}") for m in outcome.measurements]
            samples += [replace(s, path=f"{name}: {s.path}") for s in outcome.samples]
        answers = list(_answers(outcomes))
        answers += [(name, f"left out: {why}", *[""] * (len(_ANSWERS) - 1)) for name, why in missing.items()]
        tables = (
            TextTable("Online Boutique's pages", ("CNI, proxy mode", *_ANSWERS), tuple(answers)),
            TextTable("The load", ("CNI, proxy mode", *_LOADS), tuple(loads)),
        )
        notes = [
            "A stand-in makes its service's calls in the application's order, by HTTP/1.1 in place of gRPC, and "
            f"computes nothing. {LOOPBACK}: the same graph in one namespace: what stand-ins cost by themselves.",
            "Latency counts from when a page was to be asked for, whatever became of those before it (open loop).",
            "kept: connections are used again, as gRPC's are; new: one a call; looked-up: and its name looked up.",
            contrast.METHOD,
            *(f"{name} is left out: {why}" for name, why in missing.items()),
        ]
        notes += environment.cpu_bound({f"{row[0]}, {row[1]}": float(row[5]) for row in loads})
        failed = [f"{name}: {text}" for name, outcome in outcomes.items() for text in outcome.failed]
        return Outcome(measurements, samples, notes, tables, failed)


SCENARIO = OnlineBoutique()


def application(nodes: Sequence[str]) -> list[Object]:
    """The application's own objects; a small server in place of each image, and pods dealt out to nodes in turn."""
    found = copy.deepcopy(list(manifests.load([APPLICATION]).objects))
    for number, deployment in enumerate(d for d in found if d["kind"] == "Deployment"):
        template = deployment["spec"]["template"]
        template["spec"]["nodeName"] = nodes[number % len(nodes)]
        container = template["spec"]["containers"][0]
        for probe in ("readinessProbe", "livenessProbe"):
            container.get(probe, {}).pop("initialDelaySeconds", None)  # nothing boots here
        name = deployment["metadata"]["name"]
        if name != _LOAD:
            port = container["ports"][0]["containerPort"]
            command = script("boutique.py", "serve", name, "0.0.0.0", port, *_variables(container))
            notes = template["metadata"].setdefault("annotations", {})
            notes[COMMAND] = shlex.join(command)
    return found


def _variables(container: Object) -> list[str]:
    """Where it finds the services that it calls: VARIABLE=HOST:PORT."""
    return [f"{one['name']}={one['value']}" for one in container.get("env") or () if one["name"].endswith("_ADDR")]


@contextmanager
def loopback() -> Iterator[tuple[Place, int]]:
    """The whole graph in one namespace, every service at an address of its own; the place, and the frontend's port."""
    deployments = [d for d in manifests.load([APPLICATION]).objects if d["kind"] == "Deployment"]
    names = [d["metadata"]["name"] for d in deployments if d["metadata"]["name"] != _LOAD]
    where = {name: f"127.0.1.{number}:{8000 + number}" for number, name in enumerate(names, start=1)}
    with suite.namespace() as pid, ExitStack() as stack:
        place = Place(LOOPBACK, pid, where["frontend"].partition(":")[0])
        run(place, ["ip", "link", "set", "dev", "lo", "up"], 10)
        for deployment in deployments:
            name = deployment["metadata"]["name"]
            if name == _LOAD:
                continue
            variables = []
            for text in _variables(deployment["spec"]["template"]["spec"]["containers"][0]):
                variable, _, peer = text.partition("=")
                if peer.partition(":")[0] in where:  # not the assistant, which is a variant of the application
                    variables.append(f"{variable}={where[peer.partition(':')[0]]}")
            address, _, port = where[name].partition(":")
            command = script("boutique.py", "serve", name, address, port, *variables)
            stack.enter_context(serving(place, command, "ready", 20.0))
        yield place, int(where["frontend"].partition(":")[2])


def _load(place: Place, host: str, port: int, way: str, rate: int, seconds: int, seed: int) -> Loaded:
    before = environment.cpu_times_now()
    command = script("boutique.py", "load", host, port, way, rate, seconds, USERS, seed)
    found = json.loads(run(place, command, seconds + PATIENCE))
    busy, _ = environment.shares(before, environment.cpu_times_now())
    pages = {page: tuple(values) for page, values in found["pages"].items()}
    late = stats.percentile(found["late_us"] or [0.0], 99)
    return Loaded(pages, found["errors"], sum(map(len, pages.values())) / seconds, busy, late)


def _load_cells(runs: Sequence[Loaded]) -> tuple[str, ...]:
    rate, busy, late = (stats.median(values) for values in zip(*((r.rate, r.busy, r.late) for r in runs), strict=True))
    errors = sum(sum(one.errors.values()) for one in runs)
    return (f"{rate:.1f}", str(errors), f"{busy:.0f}", f"{late / 1e3:.1f}")


def _answers(outcomes: Mapping[str, Outcome]) -> Iterator[tuple[str, ...]]:
    """A row for each lab, way and page, with ratios to loopback in the same lab and to the first lab."""
    found = {(name, m.path, m.name): m for name, outcome in outcomes.items() for m in outcome.measurements}
    for way in dict.fromkeys(row[1] for outcome in outcomes.values() for row in outcome.tables[0].rows):
        for page in PAGES:
            labs = {name: found[name, f"lab, {way}", page] for name in outcomes}
            to_first = contrast.to_first({name: _medians(m) for name, m in labs.items()})
            for name, lab in labs.items():
                alone = found[name, f"{LOOPBACK}, {way}", page]
                ratio = contrast.to_first({LOOPBACK: _medians(alone), name: _medians(lab)}).get(name, "-")
                yield name, way, page, _percentiles(alone), _percentiles(lab), ratio, to_first.get(name, "-")


def _medians(one: Measurement) -> tuple[float, ...]:
    return tuple(repeat.p50 for repeat in one.repeats)


def _percentiles(one: Measurement) -> str:
    s = one.summary
    return f"{s.p50 / 1e3:.1f}/{s.p90 / 1e3:.1f}/{s.p99 / 1e3:.1f}" if s else "-"

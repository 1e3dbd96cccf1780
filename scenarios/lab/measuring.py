"""The verb `measure`: one path of a running lab in turn with another, or with a plain veth pair."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from scenarios.lab.socket import LabError
from scenarios.measure import suite
from scenarios.measure.place import Place, ProgramError
from scenarios.measure.stats import median
from topo.cluster.errors import InputError
from topo.lab import Lab
from topo.pods import Sandbox

_RR = {"tcp_rr": "tcp", "tcp_crr": "crr", "udp_rr": "udp"}
KINDS = (*_RR, "icmp_rtt", "tcp_throughput")
Find = Callable[[Lab, str], Sandbox]


def measure(lab: Lab, values: dict[str, Any], find: Find) -> dict[str, Any]:
    """Medians of each repeat on both paths. Raises InputError, LabError."""
    kind, repeats, seconds = values["kind"], int(values["repeats"]), float(values["seconds"])
    if kind not in KINDS:
        raise InputError(f"measure {kind}", "there is no such measurement", f"one of: {', '.join(KINDS)}")
    if repeats < 1 or seconds <= 0:
        raise InputError("measure", f"{repeats} repeats of {seconds:g} s", "1 or more, and more than 0")
    path = _ends(lab, values["path"], find)
    pairs: list[tuple[float, float]] = []
    problem = ""
    userspace = lab.parts.datapath == "netdev"
    with _other(lab, values["beside"], find, tx_off=userspace) as beside:
        for _ in range(repeats):
            try:
                pairs.append((_once(kind, *path, seconds), _once(kind, *beside, seconds)))
            except ProgramError as error:  # a moment at which a client got no CPU for seconds says nothing of either
                problem = str(error)
    if 2 * len(pairs) < repeats or not pairs:
        raise LabError(f"measure {kind}: {repeats - len(pairs)} of {repeats} repeats failed: {problem}")
    unit = "bit/s" if kind == "tcp_throughput" else "us"
    columns = zip(*pairs, strict=True)
    return {"unit": unit, "datapath": lab.parts.datapath, **dict(zip(("path", "beside"), columns, strict=True))}


def _ends(lab: Lab, names: Sequence[str], find: Find) -> tuple[Place, Place, str | None]:
    client, server, address = names
    boxes = [(name, find(lab, name)) for name in (client, server)]
    one, two = (Place(name, box.pid, str(box.ip)) for name, box in boxes)
    return one, two, address or None


@contextlib.contextmanager
def _other(
    lab: Lab, names: Sequence[str] | None, find: Find, *, tx_off: bool
) -> Iterator[tuple[Place, Place, str | None]]:
    if names is not None:
        yield _ends(lab, names, find)
        return
    with suite.baseline_places(tx_off=tx_off) as (client, server):
        yield client, server, None


def _once(kind: str, client: Place, server: Place, address: str | None, seconds: float) -> float:
    """The median of one repeat. Raises ProgramError, also if no transaction succeeded."""
    if kind in _RR:
        run = suite.request_response(client, server, _RR[kind], seconds=seconds, address=address)
    elif kind == "icmp_rtt":
        run = suite.ping(client, address or server.address, seconds=seconds)
    else:
        run = suite.iperf3(client, server, "tcp", address=address)
    if not run.values:
        raise ProgramError(f"from {client.name} to {server.name}: {run.problem or 'no transaction succeeded'}")
    return median(run.values)

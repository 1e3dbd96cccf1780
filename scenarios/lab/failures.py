"""What can go wrong in a lab's network, done and undone: links, switches, nodes, controller; and where packets go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from controllers.bgp import control
from topo import links
from topo.lab import Lab

# Seconds over which packets are counted to see which way they take, and until sessions must be there again.
_LOOK, _SETTLE = 0.2, 30.0


def sent(pid: int) -> dict[str, int]:
    """Packets sent so far by each interface of a namespace (proc(5), net/dev)."""
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    return {name.strip(): int(rest.split()[9]) for name, _, rest in (line.partition(":") for line in lines)}


def busiest(lab: Lab, machine: str, peers: set[str]) -> str:
    """Which of its neighbours a switch sends most to, just now; "" if to none of them."""
    ports = {f"eth{number}": peer for number, peer in _ports(lab, machine).items() if peer in peers}
    before = sent(lab.switches[machine].pid)
    time.sleep(_LOOK)
    after = sent(lab.switches[machine].pid)
    count, port = max((after[name] - before[name], name) for name in ports)
    # What keeps neighbours alive is less than a stream.
    return ports[port] if count > _LOOK * 500 else ""


def _ports(lab: Lab, switch: str) -> dict[int, str]:
    thing = lab.store.get("FabricSwitch", "", switch)
    assert thing is not None
    return {int(number): peer for number, peer in thing["spec"]["ports"].items()}


def port_to(lab: Lab, switch: str, peer: str) -> str:
    """The interface of a switch that leads to a neighbour."""
    return next(f"eth{number}" for number, name in _ports(lab, switch).items() if name == peer)


@contextmanager
def link_down(lab: Lab, switch: str, peer: str) -> Iterator[None]:
    """Both ends lose the carrier."""
    pid, name = lab.switches[switch].pid, port_to(lab, switch, peer)
    links.set_up(pid, name, False)
    yield
    links.set_up(pid, name, True)


@contextmanager
def link_silent(lab: Lab, switch: str, peer: str) -> Iterator[None]:
    """What comes from the peer is lost, with the carrier there; only where the switch's kernel routes."""
    host, name = lab.switches[switch].host, port_to(lab, switch, peer)
    host.run("nft", "add", "table", "ip", "silence")
    host.run("nft", "add", "chain", "ip", "silence", "prerouting", "{ type filter hook prerouting priority -310; }")
    host.run("nft", "add", "rule", "ip", "silence", "prerouting", "iifname", name, "drop")
    yield
    host.run("nft", "delete", "table", "ip", "silence")


@contextmanager
def switch_dead(lab: Lab, name: str) -> Iterator[None]:
    """Without power: every neighbour loses the carrier."""
    pid, names = lab.switches[name].pid, [f"eth{number}" for number in _ports(lab, name)]
    for one in names:
        links.set_up(pid, one, False)
    yield
    for one in names:
        links.set_up(pid, one, True)


@contextmanager
def node_dead(lab: Lab, name: str) -> Iterator[None]:
    """Without power: its switch is no more, its leaf loses the carrier."""
    node = lab.nodes[name]
    with link_down(lab, node.attachment.switch, name):
        node.machine.switch.kill_switch()
        yield
    node.machine.switch.start_switch()
    lab.restore(name)


@contextmanager
def controller_dead(lab: Lab) -> Iterator[None]:
    """Killed, and started again."""
    lab.controller.stop()
    yield
    lab.controller.start()
    lab.controller.wait_listening(len(lab.bridges()))
    lab.confirm()


def settle(lab: Lab) -> None:
    """Until every node is ready and every BGP session that somebody calls for is there."""
    deadline = time.monotonic() + _SETTLE
    while time.monotonic() < deadline and not (_sessions_up(lab) and not lab.waiting_for()):
        time.sleep(0.1)
    time.sleep(0.5)  # routes follow sessions, flows follow ports


def _sessions_up(lab: Lab) -> bool:
    for path in (*lab.run.glob("*/bird.ctl"), *lab.run.glob("*/bird/bird.ctl")):
        with suppress(OSError, control.Refused):
            found = control.sessions(control.ask(path, "show protocols")).values()
            # One that waits for whoever comes is never up itself.
            if not all(one.state == "Established" or one.name == "nodes" for one in found):
                return False
    return True

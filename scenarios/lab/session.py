"""One lab from beginning to end: checks everything that can be refused, then builds it in a capsule and works there."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from scenarios.lab import assemble, verbs
from scenarios.lab import socket as labsocket
from scenarios.lab.server import Server
from topo import admission, capsule, fabric, platform
from topo.cluster.errors import UserError
from topo.cluster.patience import patience
from topo.cluster.store import Object
from topo.config import LabConfig
from topo.control.link import ControllerGone
from topo.lab import Lab, NotReady, Parts, Progress

READY_TIMEOUT = patience(60.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a lab is made from, checked. socket: where it will listen, made outside its capsule."""

    config: LabConfig
    parts: Parts
    objects: tuple[Object, ...]
    socket: socket.socket


def plan(config: LabConfig, choices: assemble.Choices, objects: Sequence[Object]) -> Plan:
    """Check everything that can be checked before anything is made.

    Raises InputError for what the user gave, PlatformError for what the machine lacks.
    """
    platform.require()
    parts = assemble.parts(config, choices)
    objects = [*assemble.dns(config, objects), *assemble.ingress(config, objects), *objects]
    machines = (*(switch.name for switch in fabric.switches(config.fabric)), fabric.CLIENT)
    admission.check(objects, [n.name for n in config.nodes], config.service_subnet, machines=machines)
    return Plan(config, parts, tuple(objects), labsocket.listen(config.name))


def run(plan: Plan, work: Callable[[Lab], int], progress: Progress) -> int:
    """Build the lab, wait until all of it is ready, do the work in it, and take it down. Gives an exit status.

    Two statuses are the lab's own: 1 if it did not become ready, 130 if it was interrupted.
    """
    return capsule.run(lambda: _inside(plan, work, progress))


def _inside(plan: Plan, work: Callable[[Lab], int], progress: Progress) -> int:
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(filename=capsule.RUN / "lab.log", level=logging.INFO)
    try:
        lab = Lab(plan.config, plan.parts, capsule.RUN)
        lab.start(progress)
        verbs.apply_objects(lab, plan.objects)
        lab.wait_ready(READY_TIMEOUT, progress)
        Server(lab, plan.socket, stop=lambda: os.kill(os.getpid(), signal.SIGTERM))
        return work(lab)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit as ending:
        return int(ending.code or 0)
    except UserError as error:
        print(f"mininetes: {error}", file=sys.stderr)
        return 2
    except (NotReady, ControllerGone) as error:
        print(f"mininetes: {error}", file=sys.stderr)
        return 1


def _end(number: int, frame: FrameType | None) -> Any:
    raise SystemExit(0)

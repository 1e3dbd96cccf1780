"""The Ingress controller's process: watches the lab, keeps nginx's configuration right, tells where it answers.

Runs in a pod: python -m topo.addons.ingress [--service NAMESPACE/NAME]. Its files lie in
/run/mininetes/ingress-ADDRESS, ADDRESS being the pod's: nginx.conf, certificates, error.log (nginx's), controller.log.
"""

from __future__ import annotations

import argparse
import logging
import queue
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from topo.addons.ingress import nginx, routes, status
from topo.addons.ingress.certificate import DEFAULT_NAME, self_signed
from topo.addons.ingress.process import LOG, Nginx, NginxError
from topo.cluster.client import SOCKET, Batch, set_status, watch

_KINDS = (*routes.KINDS, "Node")
# Changes that come within so many seconds of one another are served together, but none waits longer than the second.
_QUIET, _LONGEST = 0.05, 0.5
# Seconds between two looks at whether nginx lives.
_LOOK = 1.0

Object = dict[str, Any]


class Controller:
    """Holds every object of the watched kinds and carries out what follows from them."""

    def __init__(self, folder: Path, service: status.Name) -> None:
        self.folder, self.service = folder, service
        self.nginx = Nginx(folder)
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._default = self_signed(DEFAULT_NAME, ("ingress.local",))
        self._generation = ""
        self._told: set[status.Name] = set()

    def take(self, batch: Batch) -> None:
        """Note changes."""
        for event, thing in batch.events:
            key = thing["kind"], thing["metadata"].get("namespace", ""), thing["metadata"]["name"]
            if event == "DELETED":
                self._objects.pop(key, None)
            else:
                self._objects[key] = thing

    def reconcile(self) -> None:
        """Serve what the objects ask for now, then say where: an Ingress that has an address is served."""
        wanted = routes.build(self._objects.values())
        files = nginx.render(wanted, self._default, self.folder)
        if files.generation != self._generation or not self.nginx.is_running():
            self.nginx.load(files)
            self._generation = files.generation
            LOG.info("serving %s with %d Ingresses", files.generation, len(wanted.served))
        where = status.addresses(self._objects.values(), self.service)
        for name, value in list(status.changes(self._objects.values(), wanted.served, self._told, where)):
            try:
                set_status("Ingress", *name, dict(value))
                self._told.add(name)
            except LookupError:
                pass  # it has just been deleted


def run(controller: Controller) -> None:
    """Until the lab ends."""
    batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(batches,), name="watch", daemon=True).start()
    while True:
        try:
            first = batches.get(timeout=_LOOK)
        except queue.Empty:
            if controller.nginx.is_running():
                continue
            first = Batch((), 0)
        if first is None or not _drain(controller, first, batches):
            return
        try:
            controller.reconcile()
        except NginxError as error:
            LOG.error("%s", error)


def _drain(controller: Controller, first: Batch, batches: queue.SimpleQueue[Batch | None]) -> bool:
    """Note this batch and those that follow closely; false if the lab ended."""
    batch: Batch | None = first
    deadline = time.monotonic() + _LONGEST
    while batch is not None:
        controller.take(batch)
        try:
            batch = batches.get(timeout=max(0.0, min(_QUIET, deadline - time.monotonic())))
        except queue.Empty:
            return True
    return False


def _read(batches: queue.SimpleQueue[Batch | None]) -> None:
    try:
        first = True
        for batch in watch(_KINDS):
            if batch.events or first:  # most batches are about other kinds
                batches.put(batch)
            first = False
    except OSError as error:
        LOG.error("the lab's API: %s", error)
    batches.put(None)


def _folder() -> Path:
    """A new folder of this pod's own."""
    run_folder = Path(SOCKET).parent
    if not run_folder.is_dir():
        return Path(tempfile.mkdtemp(prefix="ingress-"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # sends nothing; an address of no network (RFC 5737), to learn our own
        folder = run_folder / f"ingress-{sock.getsockname()[0]}"
    shutil.rmtree(folder, ignore_errors=True)  # an ended pod's that had the address
    folder.mkdir(mode=0o700)
    return folder


def main() -> int:
    """Read the command line and run; 1 when the lab ended."""
    parser = argparse.ArgumentParser(prog="python -m topo.addons.ingress")
    parser.add_argument("--service", default="ingress-nginx/ingress-nginx-controller", metavar="NAMESPACE/NAME")
    namespace, _, name = parser.parse_args().service.partition("/")
    folder = _folder()
    logging.basicConfig(filename=folder / "controller.log", level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        run(Controller(folder, (namespace, name)))
    except BaseException:
        LOG.exception("the controller ended")
        raise
    return 1


if __name__ == "__main__":
    sys.exit(main())

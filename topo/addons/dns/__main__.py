"""The DNS server's process. In a pod of the cluster: python -m topo.addons.dns --upstream ADDRESS[:PORT].

On a machine outside it: python -m topo.addons.dns --static www.example.com=198.51.100.10 [--static ...] --listen
ADDRESS, which knows these names and no others. What goes wrong in a pod is written to /run/mininetes/dns-ADDRESS.log.
"""

from __future__ import annotations

import socket
import sys
import threading
from argparse import ArgumentParser, ArgumentTypeError
from contextlib import suppress
from pathlib import Path

from topo.addons.dns import READY_PORT
from topo.addons.dns.outside import Names
from topo.addons.dns.records import DOMAIN, KINDS, Answer, Zone
from topo.addons.dns.server import Place, Server, serve_ready
from topo.cluster.client import SOCKET, watch


class Cluster:
    """The zone, kept up by one thread and asked by others."""

    def __init__(self, domain: str) -> None:
        self._zone, self._lock = Zone(domain), threading.Lock()
        self.is_ready = False

    def lookup(self, name: str, kind: str) -> Answer | None:
        """As Zone.lookup, once every object is there: what is not yet known must not be denied."""
        if not self.is_ready:
            return Answer("SERVFAIL")
        with self._lock:
            return self._zone.lookup(name, kind)

    def follow(self) -> None:
        """Take every change until the lab ends. Raises OSError if there is no lab."""
        for batch in watch(KINDS):
            with self._lock:
                self._zone.take(batch.events, batch.revision)
            self.is_ready = True


def place(text: str) -> Place:
    """ADDRESS[:PORT]. Raises ArgumentTypeError."""
    address, _, port = text.partition(":")
    try:
        socket.inet_pton(socket.AF_INET, address)
        return address, int(port or 53)
    except (OSError, ValueError):
        raise ArgumentTypeError(f"{text!r} is no ADDRESS[:PORT]") from None


def entry(text: str) -> tuple[str, str]:
    """NAME=ADDRESS or NAME=NAME. Raises ArgumentTypeError."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise ArgumentTypeError(f"{text!r} is no NAME=ADDRESS")
    return name, value


def main() -> int:
    """Read the command line and serve; 1 when the lab ended."""
    parser = ArgumentParser(prog="python -m topo.addons.dns")
    parser.add_argument(
        "--upstream", type=place, metavar="ADDRESS[:PORT]", help="who answers what is not the cluster's"
    )
    parser.add_argument(
        "--static", type=entry, action="append", metavar="NAME=ADDRESS", help="no cluster, but this name"
    )
    parser.add_argument("--listen", default="0.0.0.0", metavar="ADDRESS")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--ready-port", type=int, default=READY_PORT)
    parser.add_argument("--domain", default=DOMAIN)
    arguments = parser.parse_args()
    if arguments.static:
        Server(Names(arguments.static).lookup, arguments.upstream).start(arguments.listen, arguments.port)
        threading.Event().wait()
    _log()
    cluster = Cluster(arguments.domain)
    Server(cluster.lookup, arguments.upstream).start(arguments.listen, arguments.port)
    serve_ready(arguments.listen, arguments.ready_port, lambda: cluster.is_ready)
    cluster.follow()
    return 1


def _log() -> None:
    """Let errors go where somebody can read them: what runs in a pod has no terminal."""
    folder = Path(SOCKET).parent
    if folder.is_dir():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
            sock.connect(("192.0.2.1", 9))  # sends nothing; an address of no network (RFC 5737), to learn our own
            sys.stderr = (folder / f"dns-{sock.getsockname()[0]}.log").open("a", buffering=1)


if __name__ == "__main__":
    sys.exit(main())

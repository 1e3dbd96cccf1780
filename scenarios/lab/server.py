"""Serves a lab's socket: one thread a request, one function a verb, every error one line for the caller."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from scenarios.lab import verbs
from scenarios.lab.socket import LabError, is_owner, receive, send
from topo.cluster.errors import UserError
from topo.control.link import ControllerGone
from topo.lab import Lab, NotReady

LOG = logging.getLogger("mininetes")


class Server:
    """Answers requests about one lab until the process ends. stop: called when somebody asks for the lab's end."""

    def __init__(self, lab: Lab, sock: socket.socket, stop: Callable[[], None]) -> None:
        self.lab, self._sock, self._stop = lab, sock, stop
        threading.Thread(target=self._accept, name="server", daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._sock.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        fds: list[int] = []
        with connection:
            try:
                if not is_owner(connection):  # of whom nothing is even read
                    raise LabError("this lab belongs to another user", 2)
                request, fds = receive(connection)
                ending = request["verb"] == "down"  # answered first, for nothing answers afterwards
                send(connection, result=self._answer(request, fds, connection))
                if ending:
                    self._stop()
            except LabError as error:
                _refuse(connection, str(error), error.status)
            except (UserError, ValueError) as error:
                _refuse(connection, str(error), 2)
            except (NotReady, ControllerGone) as error:
                _refuse(connection, str(error), 1)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the caller went away
            except Exception as error:  # a defect of ours must reach the caller as a sentence, the log gets the rest
                LOG.exception("request failed")
                _refuse(connection, f"internal error: {type(error).__name__}: {error}", 1)
            finally:
                for fd in fds:
                    os.close(fd)

    def _answer(self, request: dict[str, Any], fds: list[int], connection: socket.socket) -> Any:
        name = request.pop("verb")
        if name == "down":
            return {"down": self.lab.config.name}
        verb = verbs.VERBS.get(name)
        if verb is None:
            raise LabError(f"the lab knows no verb {name!r}", 2)
        return verb(verbs.Request(self.lab, request, fds, connection))


def _refuse(connection: socket.socket, text: str, status: int) -> None:
    try:
        send(connection, error=text, status=status)
    except OSError:
        LOG.warning("nobody is left to hear: %s", text)

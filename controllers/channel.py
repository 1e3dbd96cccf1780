"""Ryu application: accepts each bridge's OpenFlow connection on a unix socket of its own, which names the bridge."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path
from typing import Any

from controllers.lablink import LabLink
from controllers.ryu_compat import UnixStream, app_manager, controller, eventlet, hub

LOG = logging.getLogger("mininetes")

# Which bridges an object of this kind brings.
_BRIDGES = {"Node": ("br-int", "br-ex"), "FabricSwitch": ("br-fabric",)}


class Channel(app_manager.RyuApp):
    """Listens for the bridges of every node and fabric switch that the lab has."""

    _CONTEXTS = {"lab": LabLink}
    # The folder with one run folder a switch; set once by controllers.__main__.
    run = Path()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lab: LabLink = kwargs["lab"]
        self.listeners: dict[tuple[str, str], Any] = {}
        self._reported = 0

    def start(self) -> None:
        """Follow the lab's objects."""
        super().start()
        self.lab.on_event.append(self._event)
        self.lab.on_bookmark.append(self._report)
        self.lab.start()

    def _report(self) -> None:
        if len(self.listeners) != self._reported:
            self._reported = len(self.listeners)
            self.lab.report("listening", bridges=self._reported)

    def _event(self, event: str, kind: str, thing: Any) -> None:
        for bridge in _BRIDGES.get(kind, ()):
            name = thing["metadata"]["name"], bridge
            if event == "DELETED":
                self._close(name)
            elif name not in self.listeners:
                self._listen(name)

    def _listen(self, name: tuple[str, str]) -> None:
        path = self.run / name[0] / f"{name[1]}.ctl"
        if not path.parent.is_dir():
            return  # a Node object without a machine, made by hand
        path.unlink(missing_ok=True)
        listener = eventlet.listen(str(path), family=eventlet.green.socket.AF_UNIX)
        self.listeners[name] = listener
        hub.spawn(self._accept, name, listener)

    def _close(self, name: tuple[str, str]) -> None:
        listener = self.listeners.pop(name, None)
        if listener is not None:
            listener.close()

    def _accept(self, name: tuple[str, str], listener: Any) -> None:
        while name in self.listeners:
            try:
                sock, _ = listener.accept()
            except OSError:  # closed by _close
                return
            hub.spawn(self._serve, name, sock)

    @staticmethod
    def _serve(name: tuple[str, str], sock: Any) -> None:
        # Ryu keeps the address with the datapath; ours is the bridge's name.
        try:
            # Closing it is what tells everybody that the switch is gone.
            with closing(controller.Datapath(UnixStream(sock), name)) as datapath:
                datapath.serve()
        except Exception:  # as Ryu's own datapath_connection_factory does: one bad switch must not end the others
            LOG.exception("connection to %s/%s ended badly", *name)

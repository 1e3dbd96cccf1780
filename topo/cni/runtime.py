"""A runtime's side of the protocol: a network's plugins one after the other, and what must be remembered in between.

Source: specification, section 3. What libcni leaves to its callers is done here: after an ADD that failed, DEL.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

from topo.cni import request, versions
from topo.cni.cache import Cache
from topo.cni.conf import Network
from topo.cni.errors import CniError, Code
from topo.cni.execute import Executor
from topo.cni.request import Attachment
from topo.cni.result import Result, read


def agree(network: Network, executor: Executor) -> str:
    """The version that the configuration, every plugin and this runtime speak. Raises CniError, naming the plugin."""
    spoken: dict[str, Collection[str]] = {}
    for plugin in network.plugins:
        latest = max(network.versions, key=versions.number)
        said = executor.run(plugin.type, {"CNI_COMMAND": "VERSION"}, {"cniVersion": latest}) or {}
        spoken[plugin.type] = tuple(said.get("supportedVersions") or ())
        if plugin.ipam and not executor.is_there(plugin.ipam):
            raise CniError(
                Code.INVALID_CONFIG, f"no executable {plugin.ipam!r}", f"looked in {executor.path}", plugin.ipam
            )
    found = versions.highest(network.versions, spoken.values())
    if found is None:
        offers = [("the configuration", network.versions), ("this runtime", versions.SUPPORTED), *spoken.items()]
        each = "; ".join(f"{who} speaks {', '.join(speaks) or 'none'}" for who, speaks in offers)
        raise CniError(Code.INCOMPATIBLE_VERSION, "no version in common", each)
    return found


class Runtime:
    """One network on one machine. Its operations exclude each other, as GC must exclude ADD and DEL."""

    def __init__(self, network: Network, version: str, executor: Executor, cache: Cache) -> None:
        self.network, self.version = network, version
        self._executor, self._cache = executor, cache
        self._config = json.dumps({"name": network.name, "plugins": [dict(p.values) for p in network.plugins]}).encode()
        self._lock = threading.RLock()

    def add(self, attachment: Attachment) -> Result:
        """Attach. Raises CniError; nothing is left then. What is attached already stays as it is."""
        with self._lock:
            if self._cache.get(self.network, attachment.container, attachment.ifname):
                raise CniError(Code.EXISTS, f"{attachment.container} has {attachment.ifname} of {self.network.name}")
            last: dict[str, Any] | None = None
            for i, plugin in enumerate(self.network.plugins):
                try:
                    asked = request.of_attachment(self.network, plugin, self.version, attachment, last)
                    last = self._executor.run(plugin.type, attachment.environment("ADD"), asked)
                    made = read(last)
                except CniError:
                    self._undo(attachment, i + 1)
                    raise
            assert last is not None  # a network has a plugin at least, and read() takes no None
            self._cache.put(self.network, self._config, attachment, last)
            return made

    def delete(self, attachment: Attachment) -> None:
        """Detach; as often as you like. Raises CniError of the first plugin that fails, to be tried again."""
        with self._lock:
            attachment, last = self._remembered(attachment)
            for plugin in reversed(self.network.plugins):
                asked = request.of_attachment(self.network, plugin, self.version, attachment, last)
                self._executor.run(plugin.type, attachment.environment("DEL"), asked)
            self._cache.remove(self.network, attachment.container, attachment.ifname)

    def check(self, attachment: Attachment) -> None:
        """Raise CniError unless all is as ADD left it."""
        if self.network.disable_check:
            return
        if not versions.at_least(self.version, versions.CHECK_SINCE):
            said = f"CHECK came with {versions.CHECK_SINCE}"
            raise CniError(Code.INCOMPATIBLE_VERSION, f"the network speaks CNI {self.version}", said)
        with self._lock:
            attachment, last = self._remembered(attachment)
            if last is None:
                raise CniError(Code.UNKNOWN_CONTAINER, f"{attachment.container} was not attached")
            for plugin in self.network.plugins:
                asked = request.of_attachment(self.network, plugin, self.version, attachment, last)
                self._executor.run(plugin.type, attachment.environment("CHECK"), asked)

    def result(self, attachment: Attachment) -> dict[str, Any] | None:
        """What ADD gave; None if there was none."""
        found = self._cache.get(self.network, attachment.container, attachment.ifname)
        return found[1] if found else None

    def status(self) -> None:
        """Raise CniError of the first plugin that cannot serve ADD. Before 1.1.0 plugins are not asked."""
        if not versions.at_least(self.version, versions.GC_SINCE):
            return
        for plugin in self.network.plugins:
            asked = request.of_network(self.network, plugin, self.version)
            self._executor.run(plugin.type, {"CNI_COMMAND": "STATUS"}, asked)

    def collect(self, valid: Collection[tuple[str, str]]) -> list[CniError]:
        """GC: give back what belongs to none of these attachments. What went wrong; nothing stops the rest."""
        if self.network.disable_gc:
            return []
        errors = []
        with self._lock:
            for one in self._cache.attachments(self.network):
                if (one.container, one.ifname) not in valid:
                    try:
                        self.delete(one)
                    except CniError as error:
                        errors.append(error)
            for plugin in self.network.plugins if versions.at_least(self.version, versions.GC_SINCE) else ():
                try:
                    asked = request.of_collection(self.network, plugin, self.version, sorted(valid))
                    self._executor.run(plugin.type, {"CNI_COMMAND": "GC"}, asked)
                except CniError as error:
                    errors.append(error)
        return errors

    def _remembered(self, attachment: Attachment) -> tuple[Attachment, dict[str, Any] | None]:
        """What ADD was told, and its last result, which plugins got since 0.4.0."""
        found = self._cache.get(self.network, attachment.container, attachment.ifname)
        if found is None or not versions.at_least(self.version, versions.CHECK_SINCE):
            return attachment, None
        return replace(found[0], netns=attachment.netns), found[1]

    def _undo(self, attachment: Attachment, tried: int) -> None:
        """DEL by the plugins whose ADD was tried; what else fails is secondary to why it is undone."""
        for plugin in reversed(self.network.plugins[:tried]):
            with suppress(CniError):
                asked = request.of_attachment(self.network, plugin, self.version, attachment, None)
                self._executor.run(plugin.type, attachment.environment("DEL"), asked)

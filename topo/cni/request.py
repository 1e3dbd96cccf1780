"""From a network's configuration to what one plugin is asked (specification, section 3); pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from topo.cni.conf import Network, PluginConf


@dataclass(frozen=True, slots=True)
class Attachment:
    """One container on one network: (container, ifname) names it. netns: path of its namespace, "" if it is gone.

    args: for CNI_ARGS. capabilities: what the runtime has to say, of which a plugin hears what it declares.
    """

    container: str
    netns: str
    ifname: str
    args: Mapping[str, str] = field(default_factory=dict)
    capabilities: Mapping[str, Any] = field(default_factory=dict)

    def environment(self, command: str) -> dict[str, str]:
        """The plugin's parameters, but for CNI_PATH."""
        found = {"CNI_COMMAND": command, "CNI_CONTAINERID": self.container, "CNI_IFNAME": self.ifname}
        if self.netns:
            found["CNI_NETNS"] = self.netns
        if self.args:
            found["CNI_ARGS"] = ";".join(f"{key}={value}" for key, value in self.args.items())
        return found


def of_network(network: Network, plugin: PluginConf, version: str) -> dict[str, Any]:
    """What is not about one attachment: STATUS, and the base of the others."""
    values = {key: value for key, value in plugin.values.items() if key != "capabilities"}
    return {**values, "cniVersion": version, "name": network.name}


def of_attachment(
    network: Network, plugin: PluginConf, version: str, attachment: Attachment, previous: Mapping[str, Any] | None
) -> dict[str, Any]:
    """ADD, CHECK and DEL. previous: the result before it, or ADD's last."""
    request = of_network(network, plugin, version)
    told = {key: attachment.capabilities[key] for key in plugin.capabilities if key in attachment.capabilities}
    if told:
        request["runtimeConfig"] = told
    if previous is not None:
        request["prevResult"] = previous
    return request


def of_collection(
    network: Network, plugin: PluginConf, version: str, valid: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    """GC. valid: (container, ifname) of every attachment that still is."""
    listed = [{"containerID": container, "ifname": ifname} for container, ifname in valid]
    return of_network(network, plugin, version) | {"cni.dev/valid-attachments": listed}

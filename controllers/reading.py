"""Which fields of a view a function has read: all that its answer depends on, for it is pure."""

from __future__ import annotations

from typing import Any

from controllers.state import FabricView, NodeView

View = NodeView | FabricView
Reads = dict[str, Any]


class _NotedNode(NodeView):
    """A view whose fields are empty (slots) until they are asked for, and then come from another one."""

    __slots__ = ("_reads", "_whole")

    def __getattr__(self, name: str) -> Any:
        return _read(self, name)


class _NotedSwitch(FabricView):
    """The same of a fabric switch."""

    __slots__ = ("_reads", "_whole")

    def __getattr__(self, name: str) -> Any:
        return _read(self, name)


def noted(view: View) -> tuple[View, Reads]:
    """The view for one function, and what that will have read of it: values by field."""
    reads: Reads = {}
    kind: type[View] = _NotedNode if isinstance(view, NodeView) else _NotedSwitch
    one = kind.__new__(kind)
    object.__setattr__(one, "_whole", view)
    object.__setattr__(one, "_reads", reads)
    return one, reads


def holds(reads: Reads, view: View) -> bool:
    """Whether who has read this would read the same again."""
    for name, value in reads.items():
        now = getattr(view, name)
        if now is not value and now != value:
            return False
    return True


def _read(one: Any, name: str) -> Any:
    value = getattr(object.__getattribute__(one, "_whole"), name)
    object.__getattribute__(one, "_reads")[name] = value
    object.__setattr__(one, name, value)
    return value

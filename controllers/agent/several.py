"""Several parts of a node as one: each does its work whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Callable

from controllers.proxy import Annotating, NodePart
from controllers.state import NodeView


class Several:
    """In the order given."""

    def __init__(self, *parts: NodePart) -> None:
        self._parts = parts

    @property
    def annotate(self) -> Callable[[str, str], None]:
        """Of those that write notes on the node's object (controllers/proxy, Annotating)."""
        return next((part.annotate for part in self._parts if isinstance(part, Annotating)), lambda key, value: None)

    @annotate.setter
    def annotate(self, annotate: Callable[[str, str], None]) -> None:
        for part in self._parts:
            if isinstance(part, Annotating):
                part.annotate = annotate

    def sync(self, view: NodeView) -> None:
        """All of them. Raises RuntimeError with what any of them said."""
        self._each(lambda part: part.sync(view))

    def close(self) -> None:
        """All of them. Raises RuntimeError."""
        self._each(lambda part: part.close())

    def _each(self, act: Callable[[NodePart], None]) -> None:
        errors = []
        for part in self._parts:
            try:
                act(part)
            except (OSError, RuntimeError) as error:
                errors.append(str(error))
        if errors:
            raise RuntimeError("; ".join(errors))

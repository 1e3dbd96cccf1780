"""Several parts of a node as one: each does its work whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Callable

from controllers.proxy import NodePart
from controllers.state import NodeView


class Several:
    """In the order given."""

    def __init__(self, *parts: NodePart) -> None:
        self._parts = parts

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

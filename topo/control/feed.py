"""The store as a stream of JSON lines: every object there is, then each change, a bookmark after every batch.

{"event": ADDED|MODIFIED|DELETED, "object": {...}}, then {"bookmark": REVISION}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence

from topo.cluster.store import ADDED, Object, Store, Watch


def feed(store: Store, kinds: Collection[str], send: Callable[[bytes], None], opened: Callable[[Watch], None]) -> None:
    """Send the objects of these kinds for as long as `send` takes them; an OSError of its ends the feed.

    opened: gets the watch, so that another thread can close it, which ends the feed too.
    """
    objects, revision, watch = store.watch()
    opened(watch)
    try:
        send(_lines([(ADDED, thing) for thing in objects], kinds, revision))
        while (batch := watch.batch()) is not None:
            # The bookmark covers changes of other kinds too, so that who waits for a revision is not left waiting.
            send(_lines([(e.type, e.object) for e in batch], kinds, batch[-1].revision))
    except OSError:
        watch.close()  # the reader is gone


def _lines(events: Sequence[tuple[str, Object]], kinds: Collection[str], revision: int) -> bytes:
    lines = [json.dumps({"event": kind, "object": thing}) for kind, thing in events if thing["kind"] in kinds]
    lines.append(json.dumps({"bookmark": revision}))
    return ("\n".join(lines) + "\n").encode()

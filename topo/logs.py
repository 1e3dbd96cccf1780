"""The logs of a lab's programs, held to a length: they are in memory, and a lab may run for weeks."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

# Bytes from which on a log is shortened, and of its end what is left then. A switch writes two lines for each pod.
MOST, LEFT = 1 << 20, 1 << 19
# Seconds between two looks.
_PERIOD = 5.0


def keep_short(folder: Path) -> None:
    """Shorten what has become too long, again and again."""
    while True:
        time.sleep(_PERIOD)
        shorten(folder)


def shorten(folder: Path) -> None:
    """Of each log that is too long only the end stays, in whole lines.

    It stays the same file, for the program that writes it has it open; all append (open(2), O_APPEND), and so go on
    behind what is left. What comes in this very moment may be lost (logrotate(8), copytruncate, has it so, too).
    """
    for place, _, names in os.walk(folder):
        for path in (Path(place) / name for name in names if name.endswith(".log")):
            with suppress(FileNotFoundError):  # it went with its node
                if path.stat().st_size > MOST:
                    _cut(path)


def _cut(path: Path) -> None:
    with path.open("r+b") as log:
        log.seek(-LEFT, os.SEEK_END)
        log.readline()
        end = log.read()
        log.seek(0)
        log.write(end)
        log.truncate()

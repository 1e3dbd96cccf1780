"""Talks to a BIRD by its control socket, and reads what it says of sessions and routes.

Source: BIRD 2.0 Programmer's Documentation, "Command line interface" (four digits, then "-" if more follows or a blank
at the end of an answer; a line of the same kind begins with a blank; 8xxx and 9xxx are errors); User's Guide,
chapter 4 Remote control.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from topo.cluster.patience import patience

_TIMEOUT = patience(5.0)


class Refused(RuntimeError):
    """BIRD understood the command, or did not, and says that it cannot."""


def ask(control: Path, command: str) -> list[str]:
    """The lines of the answer, without their numbers. Raises OSError if nobody listens, Refused."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_TIMEOUT)
        sock.connect(str(control))
        with sock.makefile("rw", encoding="utf-8", errors="replace", newline="\n") as stream:
            _answer(stream)  # its greeting
            stream.write(f"{command}\n")
            stream.flush()
            return _answer(stream)


def _answer(stream: Iterable[str]) -> list[str]:
    lines: list[str] = []
    for line in stream:
        code, more, text = line[:4], line[4:5], line[5:].rstrip("\n")
        if not code.isdigit():
            lines.append(line[1:].rstrip("\n"))
            continue
        if code[0] in "89":
            raise Refused(text)
        if text:
            lines.append(text)
        if more == " ":
            return lines
    raise ConnectionError("BIRD closed its control socket")


@dataclass(frozen=True, slots=True)
class Session:
    """A BGP session as BIRD sees it: state: as in RFC 4271, section 8.2.2; note: why not up, if it knows."""

    name: str
    state: str
    note: str = ""


def sessions(lines: list[str]) -> dict[str, Session]:
    """From the answer to `show protocols`, by protocol name."""
    found = {}
    for line in lines:
        words = line.split()
        # Name, BGP, table, up or start or down, since (one or two words), state, note.
        if len(words) > 4 and words[1] == "BGP":
            rest = [word for word in words[4:] if not re.fullmatch(r"[\d:.-]+", word)]
            found[words[0]] = Session(words[0], rest[0] if rest else "", " ".join(rest[1:]))
    return found


@dataclass(slots=True)
class Route:
    """One path of a table. best: the one that counts. hops: next hops, or "dev NAME". attributes: in BIRD's words."""

    prefix: str
    protocol: str
    best: bool
    hops: list[str] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    kind: str = "unicast"


_PATH = re.compile(r"(\S+)? +(\w+) \[(\S+) [^\]]*\]( \*)?")


def routes(lines: list[str]) -> list[Route]:
    """From the answer to `show route all`; the best path of a prefix is the one that has the star."""
    found: list[Route] = []
    prefix = ""
    for line in lines:
        match = _PATH.match(line)
        if match and match[2] in ("unicast", "blackhole", "unreachable", "prohibit"):
            prefix = match[1] or prefix
            found.append(Route(prefix, match[3], bool(match[4]), kind=match[2]))
            continue
        words = line.split()
        if not found or not words:
            continue
        if words[0] == "via":
            found[-1].hops.append(words[1])
        elif words[0] == "dev":
            found[-1].hops.append(f"dev {words[1]}")
        elif ": " in line or line.rstrip().endswith(":"):
            key, _, value = line.strip().partition(":")
            found[-1].attributes[key.strip()] = value.strip()
    return found

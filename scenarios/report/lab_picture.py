"""The lab as a picture: where switches, machines, pods and links are drawn, from a result's wiring; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# In pixels of an undistorted picture. Four machines fit a phone; what is wider is scrolled in its own frame.
COLUMN, MARGIN, GAP = 92, 6, 6
SWITCH_WIDTH, SWITCH_HEIGHT, TIER = 78, 24, 74
POD_HEIGHT, HEAD = 15, 24
# Pods of one machine that are drawn by name; the others are a number.
SHOWN = 14
# Characters that fit a pod's line and a machine's head; the whole name is what pointing at it shows, and in the list.
POD_TEXT, HEAD_TEXT = 13, 13


@dataclass(frozen=True, slots=True)
class Box:
    """A machine, switch or pod. kind: node, outside, leaf, spine, pod, more. text: as drawn; title: whole."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    text: str
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """A link. limits: what limits it, as text; empty if nothing does. x, y: where the text is."""

    x1: float
    y1: float
    x2: float
    y2: float
    title: str
    limits: str

    @property
    def at(self) -> tuple[float, float]:
        """Nearer to the lower end, where lines that cross are apart; above the middle of a level one."""
        if self.y1 == self.y2:
            return (self.x1 + self.x2) / 2, self.y1 - 7
        return self.x1 + (self.x2 - self.x1) * 0.72, self.y1 + (self.y2 - self.y1) * 0.72


@dataclass(frozen=True, slots=True)
class Picture:
    """All of it; what is later in boxes is drawn above what is before."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def picture(wiring: Mapping[str, Any]) -> Picture:
    """Spines above leaves above machines, machines beside others of their leaf."""
    machines = _by_switch(wiring)
    tiers = [[s["name"] for s in wiring["switches"] if s["tier"] == tier] for tier in ("spine", "leaf")]
    tiers = [names for names in tiers if names]
    columns = max(len(machines), *(len(names) for names in tiers))
    width = 2 * MARGIN + columns * COLUMN
    boxes: list[Box] = []
    places: dict[str, tuple[float, float]] = {}
    kinds = {s["name"]: s["tier"] for s in wiring["switches"]}
    for row, names in enumerate(tiers):
        for number, name in enumerate(names):
            middle, top = width * (number + 0.5) / len(names), MARGIN + row * TIER
            places[name] = middle, top
            left = middle - SWITCH_WIDTH / 2
            boxes.append(Box(kinds[name], left, top, SWITCH_WIDTH, SWITCH_HEIGHT, _cut(name, HEAD_TEXT), name))
    top, left = MARGIN + len(tiers) * TIER, (width - len(machines) * COLUMN) / 2
    bottom = float(top)
    for number, machine in enumerate(machines):
        drawn = list(_machine(machine, left + number * COLUMN + GAP / 2, top))
        places[machine["name"]] = left + (number + 0.5) * COLUMN, top
        bottom = max(bottom, drawn[0].y + drawn[0].height)
        boxes += drawn
    lines = tuple(_line(link, places) for link in wiring["links"])
    return Picture(width, bottom + MARGIN, tuple(boxes), lines)


def limits(link: Mapping[str, Any]) -> str:
    """What limits a link: "1G, 2 ms, 0.1 %"."""
    rate, found = link.get("bandwidth"), []
    if rate is not None:
        found.append(f"{rate / 1000:g}G" if rate >= 1000 else f"{rate:g}M")
    found += [f"{link['delay']:g} ms"] if link.get("delay") else []
    found += [f"{link['loss']:g} % loss"] if link.get("loss") else []
    return ", ".join(found)


def _by_switch(wiring: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    order = {s["name"]: number for number, s in enumerate(wiring["switches"])}
    return sorted(wiring["machines"], key=lambda m: order[m["switch"]])


def _machine(machine: Mapping[str, Any], x: float, y: float) -> Iterator[Box]:
    pods: Sequence[str] = machine["pods"]
    shown = pods if len(pods) <= SHOWN else pods[: SHOWN - 1]
    rows = len(shown) + (len(shown) < len(pods))
    width, kind = COLUMN - GAP, "node" if machine["node"] else "outside"
    name = machine["name"]
    yield Box(kind, x, y, width, HEAD + rows * POD_HEIGHT + (4 if rows else 0), _cut(name, HEAD_TEXT), name)
    for row, pod in enumerate(shown):
        text = _cut(pod.partition("/")[2] or pod, POD_TEXT)
        yield Box("pod", x + 4, y + HEAD + row * POD_HEIGHT, width - 8, POD_HEIGHT - 2, text, pod)
    if rows > len(shown):
        left = len(pods) - len(shown)
        top = y + HEAD + len(shown) * POD_HEIGHT
        yield Box("more", x + 4, top, width - 8, POD_HEIGHT - 2, f"and {left} more", f"{left} more pods")


def _line(link: Mapping[str, Any], places: Mapping[str, tuple[float, float]]) -> Line:
    upper, lower = sorted(link["ends"], key=lambda name: places[name][1])
    (x1, y1), (x2, y2) = places[upper], places[lower]
    of = limits(link)
    title = f"{upper} to {lower}: {of or 'not limited'}, MTU {link['mtu']}"
    if y1 == y2:  # switches beside one another
        half, level = SWITCH_WIDTH / 2 * (1 if x1 < x2 else -1), y1 + SWITCH_HEIGHT / 2
        return Line(x1 + half, level, x2 - half, level, title, of)
    return Line(x1, y1 + SWITCH_HEIGHT, x2, y2, title, of)


def _cut(text: str, room: int) -> str:
    """Without its middle, for pods of a workload differ at their ends."""
    front = (room - 1) * 2 // 3
    return text if len(text) <= room else f"{text[:front]}…{text[front + 1 - room :]}"

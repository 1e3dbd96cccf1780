"""Explanations and truth tables of network policies for people: as text, and as a page."""

from __future__ import annotations

from html import escape
from typing import Any

from rich.console import Console

_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; margin-bottom: 2em; }
th, td { border: 1px solid #ccc; padding: .3em .6em; text-align: center; }
th.row { text-align: right; font-weight: normal; }
.yes { background: #d6f0d6; } .no { background: #f6d5d5; }
.none { background: #eee; } .wrong { outline: 3px solid #c00; }
"""


def show_explanation(found: dict[str, Any], out: Console) -> None:
    """Each port's verdict, what decided it in both directions, and the counters of the flows that did."""
    ends = f"{found['source']} ({found['sourceIP']}) -> {found['target']} ({found['targetIP']})"
    for port in found["ports"]:
        where = port["protocol"] if port["protocol"] == "ICMP" else f"{port['protocol']}/{port['port']}"
        out.print(f"{ends} {where}: {'allowed' if port['allowed'] else 'DENIED'}")
        for direction in ("egress", "ingress"):
            side = port[direction]
            who = found["source"] if direction == "egress" else found["target"]
            out.print(f"  {direction} of {who}: {'allowed' if side['allowed'] else 'denied'}: {side['why']}")
            if side["policies"]:
                out.print(f"    selected by {', '.join(side['policies'])}")
            for seen in side["logged"]:
                out.print(f"    {side['node']}: logged by {seen['rule']}: {seen['packets']} packets")
            for flow in side["flows"]:
                out.print(f"    {side['node']}: {flow['flow']}: {flow['packets']} packets", soft_wrap=True)
    if not found["enforced"]:
        out.print(f"CNI {found['cni']} enforces no policies: none has an effect")


def show_log(found: list[dict[str, Any]], out: Console) -> None:
    """A line a rule: how many first packets of connections it has seen, on which nodes."""
    for rule in found:
        where = ", ".join(f"{node} {count}" for node, count in rule["nodes"].items() if count)
        counted = f"{sum(rule['nodes'].values())} connections" + (f" ({where})" if where else "")
        out.print(f"{rule['policy']} {rule['direction']} {rule['rule']}: {counted}")
    if not found:
        out.print("no policy that is enforced here has a rule with action Log")


def show_matrix(found: dict[str, Any], out: Console) -> None:
    """A table a port: rows ask columns."""
    pods = found["pods"]
    width = max([len(p) for p in pods] or [0])
    for port in found["ports"]:
        out.print(f"{port}: '.' reaches, 'X' does not, '-' has no such port")
        rows = found["expected"].get(port, {})
        seen = found.get("observed", {}).get(port, {})
        for i, source in enumerate(pods):
            cells = [_cell(rows.get(source, {}).get(t), seen.get(source, {}).get(t)) for t in pods]
            out.print(f"  {i:>3} {source:<{width}}  {' '.join(cells)}", soft_wrap=True)
        out.print("  " + " " * (width + 6) + " ".join(str(i % 10) for i in range(len(pods))), soft_wrap=True)
    for text in found.get("differences", ()):
        out.print(f"packets say otherwise: {text}")
    if not found["enforced"]:
        out.print(f"CNI {found['cni']} enforces no policies: none has an effect")


def _cell(expected: bool | None, seen: bool | None) -> str:
    if expected is None:
        return "-"
    if seen is not None and seen != expected:
        return "!"
    return "." if expected else "X"


def page(found: dict[str, Any]) -> str:
    """The tables as one HTML page without anything else to load."""
    parts = [f"<!doctype html><meta charset=utf-8><title>Who reaches whom</title><style>{_STYLE}</style>"]
    parts.append(f"<h1>Who reaches whom</h1><p>CNI {escape(found['cni'])}. Rows ask columns.</p>")
    pods = found["pods"]
    head = "".join(f"<th>{escape(p)}</th>" for p in pods)
    for port in found["ports"]:
        rows, seen = found["expected"].get(port, {}), found.get("observed", {}).get(port, {})
        parts.append(f"<h2>{escape(port)}</h2><table><tr><th></th>{head}</tr>")
        for source in pods:
            cells = "".join(_td(rows.get(source, {}).get(t), seen.get(source, {}).get(t)) for t in pods)
            parts.append(f"<tr><th class=row>{escape(source)}</th>{cells}</tr>")
        parts.append("</table>")
    parts += [f"<p>Packets say otherwise: {escape(text)}</p>" for text in found.get("differences", ())]
    return "\n".join(parts) + "\n"


def _td(expected: bool | None, seen: bool | None) -> str:
    if expected is None:
        return "<td class=none></td>"
    wrong = " wrong" if seen is not None and seen != expected else ""
    return f"<td class='{'yes' if expected else 'no'}{wrong}'>{'yes' if expected else 'no'}</td>"

"""report.html: one page that needs nothing else, for a phone as for a desk; everything in it is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from scenarios.report import lab_picture, plots, tables, traits

if TYPE_CHECKING:
    from scenarios.report.results import Result

TEMPLATE = "report.html.j2"
# A panel of more paths than this is folded.
FOLDED = 24
# What says in a few words which lab it was.
_FACTS = (("cni", "CNI"), ("proxy_mode", "proxy mode"), ("pod_mtu", "pod MTU"), ("variant", "the last lab's variant"))


def page(result: Result) -> str:
    """The whole page. The template only places what is decided here."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return made.get_template(TEMPLATE).render(**_content(result), plots=plots)


def repeat(result: Result) -> tuple[str, ...]:
    """What to type to have it again: the commit, where one is known, and the command."""
    commit = result.environment.get("commit")
    known = isinstance(commit, str) and not commit.endswith("+changes")
    return (*((f"git checkout {commit}",) if known else ()), result.command)


def _content(result: Result) -> dict[str, Any]:
    wiring = result.lab.get("topology")
    costs = tables.cost_rows(result)
    facts = [(title, str(result.lab[key])) for key, title in _FACTS if result.lab.get(key)]
    facts += [("datapath", str(result.environment["datapath"]))] if result.environment.get("datapath") else []
    panels = plots.panels(result)
    return {
        "result": result,
        "notes": [note for note in result.notes if note.removeprefix("Not as expected: ") not in result.failed],
        "shaped": {True: "shaped links", False: "unshaped links", None: "links not told"}[tables.shaped(result.lab)],
        "shaping": tables.shaping(result.lab),
        "facts": facts,
        "repeat": repeat(result),
        "changed": str(result.environment.get("commit") or "").endswith("+changes"),
        "picture": lab_picture.picture(wiring) if isinstance(wiring, Mapping) else None,
        "wiring": wiring,
        "limits": lab_picture.limits,
        "panels": [panel for panel in panels if len(panel.marks) <= FOLDED],
        "long_panels": [panel for panel in panels if len(panel.marks) > FOLDED],
        "curves": plots.curve_panels(result.curves),
        "kinds": [(kind, list(of)) for kind, of in groupby(tables.rows(result), key=lambda row: row.kind)],
        "columns": tables.COLUMNS,
        "costs": costs,
        "legend": tables.LEGEND,
        "networks": traits.rows(found) if isinstance(found := result.lab.get("traits"), Mapping) else (),
        "traits": traits.COLUMNS,
        "environment": [(key.replace("_", " "), tables.plain(value)) for key, value in result.environment.items()],
    }

"""Figures beside a first one, in words: the ratio with its interval, and whether chance may have made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scenarios.measure.inference import difference, holm
from scenarios.report.comparison import SIGNIFICANT

METHOD = (
    "Ratios are of the repeats' medians, with Welch's 95 % interval; in brackets: within the noise (Welch's test on "
    "logarithms, adjusted by Holm over what is compared with the same figure)."
)


def to_first(values: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """By name, of all but the first: "1.52 (1.31 to 1.77)", "[1.02 (0.85 to 1.22)]", or "1.52" with one repeat.

    values: the repeats of each, above zero; a name without any is left out.
    """
    known = {name: of for name, of in values.items() if of and min(of) > 0}
    first = next(iter(values), "")
    if first not in known:
        return {}
    found = {name: difference(known[first], of) for name, of in known.items() if name != first}
    adjusted = iter(holm([one.p for one in found.values() if one.p is not None]))
    texts = {}
    for name, one in found.items():
        text = f"{one.ratio.value:.2f}"
        if one.p is not None:
            text += f" ({one.ratio.low:.2f} to {one.ratio.high:.2f})"
            text = text if next(adjusted) < SIGNIFICANT else f"[{text}]"
        texts[name] = text
    return texts

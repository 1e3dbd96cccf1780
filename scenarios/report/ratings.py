"""How good a measurement is against its baseline, in words; withheld where noise leaves more than one. Pure functions.

A score is how much of the baseline is left: 1 is as good, less is worse, for rates and times alike. Scores are made of
pairs, one of each repeat, which were measured right after one another: so what changed in the machine between repeats
is in neither. The thresholds are chosen so that on a shaped wire no published overhead falls on one: of 1500 bytes
IP in IP leaves 0.987 of TCP's throughput, VXLAN 0.966, WireGuard 0.957.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scenarios.measure.inference import Estimate, mean
from scenarios.report.comparison import more_is_better, order

# The least score of each class, the best first.
CLASSES: tuple[tuple[str, float], ...] = (("very good", 0.975), ("good", 0.90), ("fair", 0.70), ("poor", 0.0))
NOISE, ONCE = "within noise", "one repeat"
METHOD = (
    "Rated by the score, which is how much of the baseline is left (rates: measured / baseline; times and costs: the "
    "other way round), as the geometric mean of the repeats' own scores: "
    + ", ".join(f"{name} from {least:g}" for name, least in CLASSES[:-1])
    + f", {CLASSES[-1][0]} below. No rating where the score's 95 % interval reaches over a threshold ({NOISE}), and "
    "no order of two whose scores chance may have made different (Welch's test on logarithms, adjusted by Holm)."
)


@dataclass(frozen=True, slots=True)
class Rating:
    """word: a class, NOISE or ONCE."""

    word: str
    score: Estimate


def scores(ours: Mapping[int, float], baseline: Mapping[int, float], unit: str) -> tuple[float, ...]:
    """A score of every repeat, by number, that both have with values above zero."""
    both = [n for n in ours if min(ours[n], baseline.get(n, 0.0)) > 0]
    return tuple(ours[n] / baseline[n] if more_is_better(unit) else baseline[n] / ours[n] for n in both)


def rate(found: Sequence[float]) -> Rating:
    """In a word. ValueError without scores."""
    score = mean(found)
    if score.low is None or score.high is None:
        return Rating(ONCE, score)
    least, most = class_of(score.low), class_of(score.high)
    return Rating(least if least == most else NOISE, score)


def class_of(score: float) -> str:
    """The class that it is in."""
    return next(name for name, least in CLASSES if score >= least)


def ranks(found: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """The place of each, "3", or the places that it can have: "2-5"; "-" where all may be equal. The best is 1."""
    _, places = order(found, "score/s")
    shown = {name: f"{best}-{worst}" if best != worst else str(best) for name, (best, worst) in places.items()}
    everywhere = f"1-{len(found)}"
    return {name: "-" if text == everywhere else text for name, text in shown.items()}

"""The claims of the XLGen article, each decided by the numbers of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .plan import SEARCHES
from .results import Results, mean_of, spread_of

__all__ = ["Claim", "Verdict", "check_claims"]

Verdict = Literal["holds", "holds in part", "does not hold", "not measured"]

_EQUAL = 0.0005  # a difference below it is none at the three decimals of the report
_NAMES = {
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "0_shot_macro_f1": "0-shot macro F1",
    "1_shot_macro_f1": "1-shot macro F1",
}
_OVERALL = ("micro_f1", "macro_f1")
_TAIL = ("0_shot_macro_f1", "1_shot_macro_f1")
# Of the systems of kind `generator` those of the article; further variants are not part of its claims.
_GUIDED = ("xlgen-bcl", "xlgen-mcg")
_ARTICLE = ("xlgen-base", *_GUIDED)


@dataclass(frozen=True)
class Claim:
    """A claim and what the numbers say.

    Attributes:
        text: the claim, in a sentence.
        verdict: whether the numbers bear it out.
        evidence: the comparisons that decide, a sentence each.
    """

    text: str
    verdict: Verdict
    evidence: list[str]


@dataclass(frozen=True)
class _Side:
    """A side of a comparison: its name, its score, and the standard deviation over seeds."""

    name: str
    value: float
    spread: float | None


def check_claims(results: Results) -> list[Claim]:
    """Decide each claim.

    Args:
        results: what `collect_results` returns.
    """
    classifiers = [name for name, kind in results["systems"].items() if kind == "classifier"]
    return [*_claims_with_all_labels(results, classifiers), *_claims_with_dropped_labels(results, classifiers)]


def _claims_with_all_labels(results: Results, classifiers: Sequence[str]) -> list[Claim]:
    guided = "The better one of BCL and MCG"
    return [
        _claim(
            "On labels that training saw never or once, generation beats the classifiers.",
            [_compare(results, "full", _ARTICLE, classifiers, score) for score in _TAIL],
        ),
        _claim(
            "Over all labels, generation beats the classifiers.",
            [_compare(results, "full", _ARTICLE, classifiers, score) for score in _OVERALL],
        ),
        *(
            _claim(
                f"Cluster guidance by {system.removeprefix('xlgen-').upper()} helps: it beats generation without it.",
                [_compare(results, "full", [system], ["xlgen-base"], score) for score in (*_OVERALL, *_TAIL)],
            )
            for system in _GUIDED
        ),
        _claim(
            f"{guided} matches or beats generation without clusters.",
            [
                _compare(results, "full", _GUIDED, ["xlgen-base"], score, or_equal=True)
                for score in (*_OVERALL, *_TAIL)
            ],
        ),
        _claim(
            "Labels in falling order of frequency are the best order to generate.",
            [_compare_rows(results, "order", lambda value: value == "freq_forward", score) for score in _OVERALL],
        ),
        _claim(
            "Several decodings fused are better than a single one.",
            [_compare_rows(results, "decoding", lambda value: _is_fused(results, value), score) for score in _OVERALL],
        ),
    ]


def _claims_with_dropped_labels(results: Results, classifiers: Sequence[str]) -> list[Claim]:
    dropped = f"{results['settings'].get('pu', {}).get('rate', 0.5):.0%} of the training labels"
    return [
        _claim(
            f"With {dropped} dropped (PU), generation beats the classifiers by far in macro F1.",
            [_compare(results, "pu", _ARTICLE, classifiers, "macro_f1")],
        ),
        _claim(
            f"With {dropped} dropped (PU), MCG beats generation without clusters in macro F1.",
            [_compare(results, "pu", ["xlgen-mcg"], ["xlgen-base"], "macro_f1")],
        ),
        _claim(
            f"Generation keeps more of its macro F1 than the classifiers when {dropped} are dropped.",
            [_compare_kept(results, classifiers)],
        ),
    ]


def _is_fused(results: Results, value: str) -> bool:
    """Whether a row of the ablation of searches fuses several decodings; one that is not listed is the plan's own."""
    search = SEARCHES.get(value, results["options"].get("search"))
    return isinstance(search, Mapping) and search.get("pool", "best") != "best"


def _claim(text: str, comparisons: Sequence[tuple[bool | None, str]]) -> Claim:
    decided = [holds for holds, _ in comparisons if holds is not None]
    verdict: Verdict = "not measured"
    if decided:
        verdict = "holds" if all(decided) else "holds in part" if any(decided) else "does not hold"
    return Claim(text, verdict, [evidence for _, evidence in comparisons])


def _best(sides: Iterable[_Side]) -> _Side | None:
    return max(sides, key=lambda side: side.value, default=None)


def _sides(results: Results, setting: str, systems: Iterable[str], score: str) -> list[_Side]:
    found = []
    for name in systems:
        value = mean_of(results, setting, name, score)
        if value is not None:
            found.append(_Side(name, value, spread_of(results, setting, name, score)))
    return found


def _compare(
    results: Results,
    setting: str,
    first: Iterable[str],
    second: Iterable[str],
    score: str,
    *,
    or_equal: bool = False,
) -> tuple[bool | None, str]:
    ours, theirs = (_best(_sides(results, setting, names, score)) for names in (first, second))
    return _decide(_NAMES[score], ours, theirs, or_equal=or_equal)


def _compare_rows(
    results: Results, ablation: str, is_ours: Callable[[str], bool], score: str
) -> tuple[bool | None, str]:
    rows = [(row["value"], row["scores"].get(score)) for row in results["ablations"] if row["ablation"] == ablation]
    sides = [
        _Side(value, found["mean"], found["sd"])
        for value, found in rows
        if found is not None and found["mean"] is not None
    ]
    ours, theirs = (_best(side for side in sides if is_ours(side.name) == wanted) for wanted in (True, False))
    return _decide(_NAMES[score], ours, theirs)


def _compare_kept(results: Results, classifiers: Sequence[str]) -> tuple[bool | None, str]:
    """Fraction of macro F1 that is left in the setting `pu`, the best of either sort."""

    def fractions(names: Iterable[str]) -> list[_Side]:
        found = []
        for name in names:
            whole, part = (mean_of(results, setting, name, "macro_f1") for setting in ("full", "pu"))
            if whole and part is not None:
                found.append(_Side(name, part / whole, None))
        return found

    ours, theirs = _best(fractions(_ARTICLE)), _best(fractions(classifiers))
    return _decide("fraction of macro F1 that is left", ours, theirs)


def _decide(what: str, ours: _Side | None, theirs: _Side | None, *, or_equal: bool = False) -> tuple[bool | None, str]:
    """Whether ours is greater, and the numbers in a sentence."""
    if ours is None or theirs is None:
        return None, f"{what}: not measured."
    difference = ours.value - theirs.value
    equal = abs(difference) < _EQUAL
    word = "equal" if equal else f"{difference:+.3f}"
    sides = ", ".join(f"{side.name} {side.value:.3f}" for side in (ours, theirs))
    return (or_equal if equal else difference > 0), f"{what}: {sides} ({word}{_noise(ours, theirs, difference)})."


def _noise(ours: _Side, theirs: _Side, difference: float) -> str:
    """A remark where seeds alone could make the difference."""
    known = [side.spread for side in (ours, theirs) if side.spread is not None]
    if not known:
        return ""
    within = abs(difference) <= max(known)
    return f"; {'not ' if within else ''}more than the standard deviation over seeds, {max(known):.3f}"

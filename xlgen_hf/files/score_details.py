"""What a file of scores holds besides numbers: what pictures of them are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, cast

from ..errors import ModelFolderError
from .schema import Fields, integer, list_of, mapping_of, number
from .serialization import JSON

__all__ = ["ScoreDetails", "check_details"]


class _Reliability(TypedDict):
    low: list[float]
    high: list[float]
    mean_score: list[float]
    accuracy: list[float]
    count: list[int]


class _Curve(TypedDict):
    coverage: list[float]
    risk: list[float]
    best: list[float]
    area: float
    best_area: float


class ScoreDetails(TypedDict, total=False):
    """The part of a file of scores that pictures are drawn from; what was not measured is left out.

    Attributes:
        baselines: the same scores of other systems, by name.
        reliability: `xlgen_hf.ranking.reliability.ReliabilityTable`, as lists.
        risk_coverage: name of a quality -> `xlgen_hf.ranking.risk_coverage.RiskCoverage`, as lists.
    """

    baselines: dict[str, dict[str, float]]
    reliability: _Reliability
    risk_coverage: dict[str, _Curve]


_PART = number(minimum=0, maximum=1)
_PARTS = list_of(_PART, min_length=1)
_RELIABILITY = Fields[_Reliability](
    {"low": _PARTS, "high": _PARTS, "mean_score": _PARTS, "accuracy": _PARTS, "count": list_of(integer(minimum=1))}
)
_CURVE = Fields[_Curve]({"coverage": _PARTS, "risk": _PARTS, "best": _PARTS, "area": _PART, "best_area": _PART})
_FORM = Fields[ScoreDetails](
    {
        "baselines": mapping_of(mapping_of(number())),
        "reliability": _RELIABILITY,
        "risk_coverage": mapping_of(_CURVE),
    },
    optional=ScoreDetails.__optional_keys__,
    others=True,
    made_by="xlgen evaluate",
)


def check_details(scores: Mapping[str, object], place: str) -> ScoreDetails:
    """The part of scores that pictures are drawn from.

    Args:
        scores: what `xlgen evaluate` wrote, or any scores by name.
        place: what messages call it.

    Raises:
        ModelFolderError: if it is there and makes no sense.
    """
    found = {name: value for name, value in scores.items() if name in ScoreDetails.__optional_keys__}
    details = _FORM.check(cast("JSON", found), place)
    tables = {name: cast("Mapping[str, object]", table) for name, table in details.get("risk_coverage", {}).items()}
    if "reliability" in details:
        tables["reliability"] = cast("Mapping[str, object]", details["reliability"])
    for name, table in tables.items():
        sizes = {column: len(values) for column, values in table.items() if isinstance(values, list)}
        if len(set(sizes.values())) > 1:
            raise ModelFolderError(
                f"{place}, {name!r}: lists of different lengths, {sizes}; they must be equally long."
            )
    return details

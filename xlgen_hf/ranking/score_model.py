"""How a model's candidates are scored and decided on: one immutable value, which travels with its processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict, get_args

import numpy as np

from ..errors import ConfigurationError
from ..files.model_folder import SCORE_MODEL_FILE
from ..files.schema import Fields, anything, choice, integer, mapping_of, named_after, number, optional
from ..labels.changes import LabelChange
from .calibration import ScoreCalibrator
from .confidence import ConfidenceModel
from .decisions import DecisionRule, Kind, Objective
from .fusion import Fusion
from .scored_labels import ScoredLabels
from .sources import SavedSource

__all__ = ["ScoreModel"]


class _RuleContent(TypedDict):
    kind: Kind
    value: float | None
    min_labels: int


class _Decisions(TypedDict):
    rule: _RuleContent
    thresholds: dict[str, float]
    calibrator: object
    fusion: object


class _ScoreModelContent(_Decisions, total=False):
    confidence: object


_SCORE_MODEL_FORM = Fields[_ScoreModelContent](
    {
        "rule": Fields(
            {"kind": choice(*get_args(Kind)), "value": optional(number()), "min_labels": integer(minimum=0)}
        ),
        "thresholds": mapping_of(number(minimum=0, maximum=1), names=get_args(Objective)),
        # Checked by those that they are of, which not every model has.
        "calibrator": anything(),
        "fusion": anything(),
        "confidence": anything(),
    },
    optional=("confidence",),
    format_version=1,
    made_by="xlgen train",
)


@dataclass(frozen=True)
class ScoreModel:
    """What turns candidates into predictions; validation rows choose it after training.

    Attributes:
        calibrator: makes probabilities of the scores of the model's own source; None leaves them as they are.
        fusion: weighs that source and the further ones; None where there is one source alone.
        rule: decides where a call names no rule.
        thresholds: measure of quality (`micro`, `macro`, `example`) -> the score from which a label is predicted for
            its sake; tuned with the `min_labels` of `rule` where that is a threshold, else with 1.
        sources: further sources of the fusion by name, `retrieval` and `label_trees`.
        confidence: says how far the prediction for a text can be trusted; None without validation rows.

    Raises:
        ConfigurationError: if there are sources and no fusion that weighs them, or a threshold is out of range.
    """

    calibrator: ScoreCalibrator | None = None
    fusion: Fusion | None = None
    rule: DecisionRule = field(default_factory=DecisionRule)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, SavedSource] = field(default_factory=dict)
    confidence: ConfidenceModel | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if self.sources and self.fusion is None:
            raise ConfigurationError(f"The sources {sorted(self.sources)} need a fusion that weighs them.")
        wrong = {name: value for name, value in self.thresholds.items() if not 0 <= value <= 1}
        if wrong or not set(self.thresholds) <= set(get_args(Objective)):
            raise ConfigurationError(
                f"thresholds={dict(self.thresholds)}; numbers from 0 to 1 for some of {get_args(Objective)} are "
                "needed."
            )

    def calibrate(self, scored: ScoredLabels, train_counts: np.ndarray) -> ScoredLabels:
        """Candidates of the model's own source with calibrated scores.

        Args:
            scored: the candidates.
            train_counts: training documents of each label id, `(L,)`.
        """
        return scored if self.calibrator is None else self.calibrator.transform(scored, train_counts)

    def with_sources(self, sources: Mapping[str, SavedSource]) -> ScoreModel:
        """The same with other sources of these names."""
        return replace(self, sources=sources)

    def relabelled(self, change: LabelChange) -> ScoreModel:
        """The same, its sources following a change of the labels."""
        return self.with_sources({name: source.relabelled(change) for name, source in self.sources.items()})

    def save(self, folder: str | Path) -> None:
        """Write `score_model.json` into a model's folder; sources are saved by whoever holds the folder."""
        rule, fusion = self.rule, self.fusion
        content: _ScoreModelContent = {
            "rule": {"kind": rule.kind, "value": rule.value, "min_labels": rule.min_labels},
            "thresholds": dict(self.thresholds),
            "calibrator": None if self.calibrator is None else self.calibrator.to_dict(),
            "fusion": None if fusion is None else fusion.to_dict(sorted(self.sources)),
        }
        if self.confidence is not None:
            content["confidence"] = self.confidence.to_dict()
        _SCORE_MODEL_FORM.write(Path(folder) / SCORE_MODEL_FILE, content)

    @classmethod
    def load(cls, folder: str | Path, sources: Mapping[str, SavedSource]) -> ScoreModel:
        """Read and check what [`save`] wrote.

        Args:
            folder: the folder of a model.
            sources: the sources that the folder holds, by name.

        Raises:
            ModelFolderError: if the file is missing, damaged, or weighs other sources.
        """
        path = Path(folder) / SCORE_MODEL_FILE
        content = _SCORE_MODEL_FORM.read(path)
        with named_after(path):
            return _parsed(content, sources, path)


def _parsed(content: _ScoreModelContent, sources: Mapping[str, SavedSource], path: Path) -> ScoreModel:
    """The score model of a file's content."""
    rule, weighed = content["rule"], list[str]()
    calibrator = fusion = confidence = None
    if content["calibrator"] is not None:
        calibrator = ScoreCalibrator.from_dict(content["calibrator"], path)
    if content["fusion"] is not None:
        fusion, weighed = Fusion.from_dict(content["fusion"], path)
    if "confidence" in content:
        confidence = ConfidenceModel.from_dict(content["confidence"], path, chosen_alone=rule["kind"] == "own")
    lacking = sorted(set(weighed) - set(sources))
    if lacking:
        raise ConfigurationError(f"the fusion weighs {lacking}, which the folder does not hold.")
    named = {name: sources[name] for name in weighed}
    return ScoreModel(calibrator, fusion, DecisionRule(**rule), content["thresholds"], named, confidence)

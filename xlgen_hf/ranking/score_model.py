"""How a model's candidates are scored and decided on: one immutable value, which travels with its processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np

from ..errors import ConfigurationError, ModelFolderError
from ..files.model_folder import SCORE_MODEL_FILE
from ..files.serialization import read_json, write_json
from .calibration import ScoreCalibrator
from .decisions import DecisionRule, Objective
from .fusion import Fusion
from .scored_labels import ScoredLabels
from .sources import SavedSource

__all__ = ["ScoreModel"]

_FORMAT_VERSION = 1


@dataclass(frozen=True)
class ScoreModel:
    """What turns candidates into predictions; validation rows choose it after training.

    Attributes:
        calibrator: makes probabilities of the scores of the model's own source; None leaves them as they are.
        fusion: weighs that source and the further ones; None where there is one source alone.
        rule: decides where a call names no rule.
        thresholds: measure of quality (`micro`, `macro`, `example`) -> the score from which a label is predicted for
            its sake; tuned with the rule that a text keeps its best label.
        sources: further sources of the fusion by name, `retrieval` and `label_trees`.

    Raises:
        ConfigurationError: if there are sources and no fusion that weighs them, or a threshold is out of range.
    """

    calibrator: ScoreCalibrator | None = None
    fusion: Fusion | None = None
    rule: DecisionRule = field(default_factory=DecisionRule)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, SavedSource] = field(default_factory=dict)

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

    @property
    def gives_probabilities(self) -> bool:
        """Whether scores say how probable a label is; fused ones are lowered for labels that training saw often."""
        return self.fusion is None

    def calibrate(self, scored: ScoredLabels, train_counts: np.ndarray) -> ScoredLabels:
        """Candidates of the model's own source with calibrated scores.

        Args:
            scored: the candidates.
            train_counts: training documents of each label id, `(L,)`.
        """
        return scored if self.calibrator is None else self.calibrator.transform(scored, train_counts)

    def extended(self, names: Sequence[str]) -> ScoreModel:
        """A score model whose sources have labels with these new names as well."""
        return self.with_sources({name: source.extended(names) for name, source in self.sources.items()})

    def with_sources(self, sources: Mapping[str, SavedSource]) -> ScoreModel:
        """The same with other sources of these names."""
        return replace(self, sources=sources)

    def save(self, folder: str | Path) -> None:
        """Write `score_model.json` into a model's folder; sources are saved by whoever holds the folder."""
        content = {
            "format_version": _FORMAT_VERSION,
            "rule": asdict(self.rule),
            "thresholds": dict(self.thresholds),
            "calibrator": None if self.calibrator is None else self.calibrator.to_dict(),
            "fusion": None if self.fusion is None else {**asdict(self.fusion), "sources": sorted(self.sources)},
        }
        write_json(Path(folder) / SCORE_MODEL_FILE, content)

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
        content = read_json(path)
        try:
            return _parsed(content, sources)
        except (ConfigurationError, TypeError, OverflowError) as err:  # JSON has numbers that no float holds
            raise ModelFolderError(f"{path}: {err}") from err


def _parsed(content: object, sources: Mapping[str, SavedSource]) -> ScoreModel:
    """The score model of a parsed file."""
    wanted = {"format_version", "rule", "thresholds", "calibrator", "fusion"}
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(content, dict) or version != _FORMAT_VERSION or set(content) != wanted:
        raise ConfigurationError(
            f"format_version {version!r}; format_version {_FORMAT_VERSION} with the fields {sorted(wanted)} is needed."
        )
    for name in ("rule", "thresholds"):
        if not isinstance(content[name], dict):
            raise ConfigurationError(f"{name!r} must be an object.")
    numbers = list(content["thresholds"].values())
    if content["rule"].get("value") is not None:
        numbers.append(content["rule"]["value"])
    if not all(type(value) in (int, float) for value in numbers):
        raise ConfigurationError("thresholds and the rule's value must be numbers.")
    fusion = content["fusion"]
    weighed: list[str] = []
    if fusion is not None:
        fusion, weighed = _parsed_fusion(fusion)
    lacking = sorted(set(weighed) - set(sources))
    if lacking:
        raise ConfigurationError(f"the fusion weighs {lacking}, which the folder does not hold.")
    calibrator = content["calibrator"]
    return ScoreModel(
        None if calibrator is None else ScoreCalibrator.from_dict(calibrator),
        fusion,
        DecisionRule(**content["rule"]),
        content["thresholds"],
        {name: sources[name] for name in weighed},
    )


def _parsed_fusion(content: object) -> tuple[Fusion, list[str]]:
    """A fusion and the names of the sources that it weighs."""
    wanted = {"candidates_per_source", "weights", "intercept", "logit_adjustment", "sources"}
    if not isinstance(content, dict) or set(content) != wanted or not isinstance(content["weights"], dict):
        raise ConfigurationError(f"'fusion' must be an object with {sorted(wanted)}.")
    numbers = [*content["weights"].values(), content["intercept"], content["logit_adjustment"]]
    names = content["sources"]
    if not all(type(number) in (int, float) for number in numbers):
        raise ConfigurationError("the weights of the fusion must be numbers.")
    if not isinstance(names, list) or not all(type(name) is str for name in names):
        raise ConfigurationError("the sources of the fusion must be names.")
    return Fusion(**{name: value for name, value in content.items() if name != "sources"}), names

"""Decisions and scores of an experiment's cell: chosen on validation rows, the same way for every system."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..evaluation.scoring import score_ids
from ..labels.space import LabelSpace
from ..plots.scores import PLOT_SHOTS
from ..ranking.calibration import ScoreCalibrator
from ..ranking.decisions import DecisionRule
from ..ranking.fitting import calibrated_model
from ..ranking.scored_labels import ScoredLabels
from ..ranking.thresholds import MICRO_F1_TOLERANCE, RuleScores, balanced_weights, best_within, score_rules

__all__ = ["CUTOFFS", "Decision", "ScoringSpace", "choose_decision", "score_decided"]

CUTOFFS = (1, 3, 5)
_MARGIN = 0.01  # what curves gain by chance on the rows that they were fitted on
_RANKING = ("precision", "recall", "ndcg", "psp")


class ScoringSpace:
    """Ids for all names that scores are about: those that training knows, and further ones of the references.

    Args:
        full: all labels, with the counts of all training labels: buckets and propensities are those of these counts.
        setting: the labels that systems may predict, with the counts that they were trained with.
        references: label lists of validation and test rows; names that no label space has count as missed ones.

    Attributes:
        names: names by id, those of `full` first.
        full_counts: training documents of each, `(L,)`.
        setting_counts: training documents of each in the cell's setting, `(L,)`.
    """

    def __init__(self, full: LabelSpace, setting: LabelSpace, references: Iterable[Sequence[str]]) -> None:
        self.names = list(dict.fromkeys([*full.names, *(name for labels in references for name in labels)]))
        self._index = {name: number for number, name in enumerate(self.names)}
        self._of_setting = np.array([self._index[name] for name in setting.names], dtype=np.int64)
        self.full_counts = np.zeros(len(self.names), dtype=np.int64)
        self.full_counts[: len(full)] = full.counts
        self.setting_counts = np.zeros(len(self.names), dtype=np.int64)
        self.setting_counts[self._of_setting] = setting.counts

    def encode(self, label_lists: Iterable[Sequence[str]]) -> list[list[int]]:
        """Ids of label lists."""
        return [[self._index[name] for name in labels] for labels in label_lists]

    def take(self, scored: ScoredLabels) -> ScoredLabels:
        """Candidates in the ids of the setting's label space -> in these ids."""
        return replace(scored, labels=self._of_setting[scored.labels])


@dataclass(frozen=True)
class Decision:
    """What validation rows chose for a system.

    Attributes:
        rule: how many candidates are predicted.
        micro_f1: micro F1 on the validation rows with it.
        calibrator: what makes scores probabilities; None where the rows teach nothing, or plain scores do as well.
    """

    rule: DecisionRule
    micro_f1: float
    calibrator: ScoreCalibrator | None

    def calibrate(self, scored: ScoredLabels, counts: np.ndarray) -> ScoredLabels:
        """Candidates with scores that are probabilities, the system's own choice among them kept.

        Args:
            scored: candidates.
            counts: training documents of each label in the cell's setting, `(L,)`.
        """
        return scored if self.calibrator is None else self.calibrator.transform(scored, counts)


def choose_decision(scored: ScoredLabels, references: Sequence[Sequence[int]], counts: np.ndarray) -> Decision:
    """Choose the rule, and whether scores are calibrated before.

    The article reports micro and macro F1, and both for rare labels. A rule for micro F1 alone gives up rare labels,
    one for macro F1 alone predicts too many. So the rule is, of those that cost at most [`MICRO_F1_TOLERANCE`] of the
    best micro F1, the one with the best macro F1 (that of rare labels weighs as much as that of others, see
    [`balanced_weights`]). Calibration goes by the training frequency of labels and so changes their ranks. It is
    fitted on the rows that judge it, so that its F1 are lowered by a margin.

    Args:
        scored: candidates of the validation texts.
        references: their label ids.
        counts: training documents of each label in the cell's setting, `(L,)`.
    """
    weights = balanced_weights(references, counts)
    tried: list[tuple[ScoreCalibrator | None, RuleScores]] = [
        (None, score_rules(scored, references, label_weights=weights))
    ]
    calibrator = calibrated_model(scored, references, counts).calibrator
    if calibrator is not None:
        calibrated = calibrator.transform(scored, counts)
        tried.append((calibrator, score_rules(calibrated, references, label_weights=weights)))
    share = np.repeat([1.0, 1.0 - _MARGIN][: len(tried)], [len(rules.values) for _, rules in tried])
    micro = share * np.concatenate([rules.micro for _, rules in tried])
    macro = share * np.concatenate([rules.macro for _, rules in tried])
    place = best_within(micro, macro, MICRO_F1_TOLERANCE)
    first = len(tried[0][1].values)
    chosen, rules = tried[int(place >= first)]
    place -= first if place >= first else 0
    return Decision(rules.rule(place), float(rules.micro[place]), chosen)


def score_decided(
    scored: ScoredLabels,
    rule: DecisionRule,
    references: Sequence[Sequence[int]],
    counts: np.ndarray,
    documents: int,
) -> dict[str, float]:
    """Score the sets that a rule decides on, and the ranking of all candidates.

    Args:
        scored: calibrated candidates of the test texts, the system's own choice among them.
        rule: which of them are predicted.
        references: label ids of the test texts.
        counts: training documents of each label in the setting `full`, `(L,)`, whatever the cell's setting.
        documents: training documents in the setting `full`.

    Returns:
        Scores of the metric `xmc_f1` by name: F1 of the decided sets over all labels and by shot; `precision_at_k`,
        `recall_at_k`, `ndcg_at_k` and `psp_at_k` of the ranking; `oracle_*`, the ranking truncated at the true
        number of labels, which no system knows; `own_*`, the sets that the system decided on itself, where it did; and
        `candidate_recall`, the fraction of true labels that are candidates.
    """
    score = partial(score_ids, references=references, num_labels=len(counts), train_counts=counts)
    scores = score(_rows(scored, rule.apply(scored).chosen), k=(), shots=PLOT_SHOTS)
    everything = (scored.start, scored.labels)
    ranking = score(everything, k=CUTOFFS, shots=(), num_train_documents=documents, oracle=True)
    scores |= {f"{name}_at_{k}": ranking[f"{name}_at_{k}"] for name in _RANKING for k in CUTOFFS}
    scores |= {name: ranking[name] for name in ("oracle_micro_f1", "oracle_macro_f1")}
    if scored.chosen.any():
        chosen = score(_rows(scored, scored.chosen), k=(), shots=())
        scores |= {f"own_{name}": chosen[name] for name in ("micro_f1", "macro_f1")}
    true = max(sum(map(len, references)), 1)
    scores["candidate_recall"] = float(scored.correct(references).sum()) / true
    scores["mean_candidates"] = len(scored.labels) / max(len(scored), 1)
    return scores


def _rows(scored: ScoredLabels, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chosen label ids of each text, best first, as rows of a sparse matrix."""
    before = np.concatenate([[0], np.cumsum(chosen)])
    return before[scored.start], scored.labels[chosen]

"""Scores of extreme multi-label classification, for `evaluate.load("xmc_f1")`; beyond that needs numpy and scipy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import datasets
import evaluate

from .xmc_hierarchy import Broader
from .xmc_inputs import check_label_lists
from .xmc_names import warn_of_look_alikes
from .xmc_report import check_options, score_labels
from .xmc_scores import ScoreOptions

_DEFAULTS = ScoreOptions()
_RECORD_BATCH = 250_000  # documents; names are read again in each batch of the file, by default 1,000 documents

_DESCRIPTION = """
Scores sets of labels out of a space of thousands to millions, of which most are rare: micro, macro and example F1,
ranking scores at k with and without propensities, and the same F1 scores over the labels that training never saw or
saw exactly once.
"""

_CITATION = """
@inproceedings{jung-etal-2023-cluster,
    title = "Cluster-Guided Label Generation in Extreme Multi-Label Classification",
    author = "Jung, Taehee and Kim, Joo-kyung and Lee, Sungjin and Kang, Dongyeop",
    booktitle = "Proceedings of the 17th Conference of the European Chapter of the Association for Computational
        Linguistics",
    year = "2023"
}
@inproceedings{jain2016extreme,
    title = "Extreme Multi-label Loss Functions for Recommendation, Tagging, Ranking \\& Other Missing Label
        Applications",
    author = "Jain, Himanshu and Prabhu, Yashoteja and Varma, Manik",
    booktitle = "Proceedings of the 22nd ACM SIGKDD International Conference on Knowledge Discovery and Data Mining",
    year = "2016"
}
@misc{bhatia2016extreme,
    title = "The extreme classification repository: Multi-label datasets and code",
    author = "Bhatia, K. and Dahiya, K. and Jain, H. and Kar, P. and Mittal, A. and Prabhu, Y. and Varma, M.",
    year = "2016",
    url = "http://manikvarma.org/downloads/XC/XMLRepository.html"
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of str): labels of each document, best first. A document may have none.
    references (list of list of str): true labels of each document, in any order. A document may have none.
    train_label_counts (dict of str to int): training documents of each label. A label that it lacks counts 0.
    train_references (list of list of str): true labels of the training documents, instead of the counts.
    num_train_documents (int): number of training documents, N of the propensities. It is known with
        `train_references`; with the counts alone it is estimated (sum of the counts over the mean number of labels of
        a reference), which a warning says.
    k (list of int): cut-offs of the ranking scores. Default (1, 3, 5).
    shots (list): buckets of labels by training count. A number is exactly that count, (1, 5) or "1-5" is one to five,
        "10+" is ten and more; the cumulative buckets of Jung et al. are "1-3", "1-5", "1-10". Default (0, 1).
    propensity_a, propensity_b (float): A and B of the propensities. Default 0.55 and 1.5; Jain et al. use 0.5 and 0.4
        for Wikipedia, 0.6 and 2.6 for Amazon.
    bootstrap (int): resamples of the documents for confidence intervals. Default 0, no intervals.
    confidence (float): level of the intervals. Default 0.95.
    seed (int): seed of the resampling. Default 0.
    oracle (bool): also score the predictions cut at the true number of labels of each document, under names that start
        with `oracle_`. No system knows that number; never compare these with other scores. Default False.
    per_label (bool): also return a table of the labels. Default False.
    broader (dict of str to list of str): the labels directly above each label; adds the hierarchical scores.

Notation: document d has the predicted labels P_d and the true labels T_d; |D| documents. Label l has tp_l documents
    with l in both, p_l with l in P_d, t_l with l in T_d, n_l training documents. The label space is all labels that
    occur in training, references or predictions. A quotient with the denominator 0 is 0, a mean over nothing is 0. A
    label that is repeated in a row counts once, at its best rank, and the labels after it move up (a row is a set; a
    warning says how many were dropped).

Returns: a flat dictionary of floats.
    micro_precision, micro_recall, micro_f1: sum tp / sum p, sum tp / sum t, 2 sum tp / (sum p + sum t), over all
        labels.
    macro_precision, macro_recall, macro_f1: means of tp_l / p_l, tp_l / t_l, 2 tp_l / (p_l + t_l) over the labels that
        occur in the references (t_l > 0), as Jung et al. (2023). A label that is never predicted has precision 0.
    macro_f1_all: mean of 2 tp_l / (p_l + t_l) over the labels that occur in references or predictions.
    example_precision, example_recall, example_f1: means over all documents of |P_d & T_d| / |P_d|, / |T_d|, and
        2 |P_d & T_d| / (|P_d| + |T_d|). A document without predicted and true labels adds 0, as in scikit-learn.
    mean_labels_predicted, mean_labels_reference: mean of |P_d|, of |T_d|.
    For each k, with h_d the true labels among the first k predicted ones (fewer than k may be predicted):
    precision_at_k: mean of h_d / k, always divided by k, over all documents (XC repository).
    recall_at_k: mean of h_d / |T_d|.
    f1_at_k: mean of the harmonic mean of the two, 2 h_d / (k + |T_d|).
    ndcg_at_k: mean of DCG / (sum of 1 / log2(i + 1), i = 1 to min(k, |T_d|)), DCG the sum of 1 / log2(i + 1) over the
        ranks i <= k of true labels (XC repository).
    coverage_at_k: labels that are a hit within k of at least one document, over the labels that occur in the
        references.
    With training counts also:
    psp_at_k: sum over documents of the sum of 1 / q_l over the hits within k, over its greatest possible value (the k
        true labels with the greatest 1 / q_l first). 1 / q_l = 1 + C (n_l + B)^-A, C = (ln N - 1) (B + 1)^A (Jain et
        al., 2016; C is 0 where it were negative, with N < 3).
    psndcg_at_k: the same with each hit at rank i weighted by 1 / log2(i + 1) and each document divided by the sum that
        ndcg_at_k divides by (as in PyXCLib and napkinXC).
    novel_label_rate: share of the predicted labels, over all documents, that have no training document.
    For each bucket s (the labels with exactly s, or lowest to highest, training documents):
    s_shot_micro_f1: 2 sum tp / (sum p + sum t) over the labels of the bucket.
    s_shot_macro_f1: mean of 2 tp_l / (p_l + t_l) over the labels of the bucket that occur in the references.
    s_shot_macro_f1_harmonic: harmonic mean of the means of tp_l / p_l and tp_l / t_l over all labels of the bucket in
        the label space (the few-shot table of Jung et al., 2023).
    s_shot_labels: labels of the bucket that occur in the references. With 0 the scores of the bucket are 0 and say
        nothing.
    s_shot_support: sum of t_l over the bucket.
    s_shot_recall_at_k: for each k, the hits within k of labels of the bucket, over all documents, over s_shot_support.
    On request:
    <score>_ci_low, <score>_ci_high: bootstrap over documents. In each resample all sets of labels are formed again; as
        a resample misses labels, which shifts the scores over sets of labels, the interval is the spread of the
        resamples around their mean (quantiles at (1 - confidence) / 2 from both ends), laid around the score.
    oracle_<score>: see `oracle`.
    hierarchical_precision, hierarchical_recall, hierarchical_f1: sum |P'_d & T'_d| / sum |P'_d|, / sum |T'_d|, and
        2 sum |P'_d & T'_d| / (sum |P'_d| + sum |T'_d|), where P'_d and T'_d are P_d and T_d with all labels above
        theirs, but for the root, a single label that is above all (Kiritchenko et al., 2006).
    per_label: columns label, train_count, support (t_l), predicted (p_l), true_positives, precision, recall, f1 of the
        labels that occur in references or predictions, by falling support.

Examples:
    >>> xmc_f1 = evaluate.load("xmc_f1")
    >>> scores = xmc_f1.compute(
    ...     predictions=[["physics", "optics"], ["cooking"]],
    ...     references=[["physics"], ["cooking", "baking"]],
    ... )
    >>> round(scores["micro_f1"], 4), round(scores["macro_f1"], 4), scores["precision_at_1"]
    (0.6667, 0.6667, 1.0)

    Rare labels, from the number of training documents of each label:

    >>> scores = xmc_f1.compute(
    ...     predictions=[["physics", "optics"], ["cooking", "baking"]],
    ...     references=[["physics"], ["cooking", "baking"]],
    ...     train_label_counts={"physics": 40, "cooking": 12, "optics": 1},
    ...     num_train_documents=50,
    ... )
    >>> scores["0_shot_macro_f1"], scores["0_shot_labels"], scores["1_shot_micro_f1"], scores["novel_label_rate"]
    (1.0, 1.0, 0.0, 0.25)
"""


class _CheckedFeatures(datasets.Features):
    """Features of rows that were checked one by one: the pass over all rows that `datasets` would make is left out."""

    def encode_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch as it is, with its rows as lists."""
        return {
            name: column if set(map(type, column)) <= {list} else list(map(list, column))
            for name, column in batch.items()
        }


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class XmcF1(evaluate.Metric):
    """Scores of extreme multi-label classification."""

    def _info(self) -> evaluate.MetricInfo:
        labels = datasets.List(datasets.Value("string"))
        info = evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=_CheckedFeatures({"predictions": labels, "references": labels}),
            reference_urls=["https://arxiv.org/abs/2302.09150"],
        )
        # Columns reach _compute as arrow arrays instead of millions of Python strings. The constructor of MetricInfo
        # refuses a format for features that are lists, which concerns numpy arrays only.
        info.format = "arrow"
        return info

    def compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> dict[str, Any] | None:
        """Score the documents that were added, and these. A wrong option is refused while they are there still.

        Args:
            predictions: labels of each document, best first.
            references: true labels of each document.
            options: those that the metric documents.

        Returns:
            Scores by name; None in processes other than the first.

        Raises:
            ValueError: for input that cannot be scored, with the row where there is one.
            TypeError: for an unknown option.
        """
        unknown = sorted(options.keys() - signature(self._compute).parameters.keys())
        if unknown:
            raise TypeError(f"{self.name} has no options {unknown}.")
        check_options(**options)
        scores: dict[str, Any] | None = super().compute(predictions=predictions, references=references, **options)
        return scores

    def add(
        self, *, prediction: Any = None, reference: Any = None, predictions: Any = None, references: Any = None
    ) -> None:
        """Add one document.

        Args:
            prediction: labels, best first.
            reference: true labels.
            predictions: the same as `prediction`; `evaluate.combine` calls it so.
            references: the same as `reference`.

        Raises:
            ValueError: if one of them is not a list of strings.
        """
        prediction = predictions if prediction is None else prediction
        reference = references if reference is None else reference
        check_label_lists([prediction], "predictions", len(self))
        check_label_lists([reference], "references", len(self))
        self.writer_batch_size = _RECORD_BATCH
        super().add(prediction=list(prediction), reference=list(reference))

    def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
        """Add documents.

        Args:
            predictions: labels of each document, best first.
            references: true labels of each document.

        Raises:
            ValueError: naming the first row that is not a list of strings, or if the numbers of rows differ.
        """
        check_label_lists(predictions, "predictions", len(self))
        check_label_lists(references, "references", len(self))
        if len(predictions) != len(references):
            raise ValueError(
                f"{len(predictions)} predictions for {len(references)} references; give one prediction (an empty list,"
                " if need be) for each reference."
            )
        self.writer_batch_size = _RECORD_BATCH
        super().add_batch(predictions=predictions, references=references)

    def _compute(
        self,
        predictions: Any,
        references: Any,
        train_label_counts: Mapping[str, int] | None = None,
        train_references: Sequence[Sequence[str]] | None = None,
        num_train_documents: int | None = None,
        k: Sequence[int] = _DEFAULTS.k,
        shots: Sequence[int | str | Sequence[int]] = (0, 1),
        propensity_a: float = _DEFAULTS.propensity_a,
        propensity_b: float = _DEFAULTS.propensity_b,
        bootstrap: int = 0,
        confidence: float = 0.95,
        seed: int = 0,
        oracle: bool = False,
        per_label: bool = False,
        broader: Broader | None = None,
    ) -> dict[str, Any]:
        warn_of_look_alikes(predictions, references)
        return score_labels(
            predictions,
            references,
            train_label_counts=train_label_counts,
            train_references=train_references,
            num_train_documents=num_train_documents,
            k=k,
            shots=shots,
            propensity_a=propensity_a,
            propensity_b=propensity_b,
            bootstrap=bootstrap,
            confidence=confidence,
            seed=seed,
            oracle=oracle,
            per_label=per_label,
            broader=broader,
        )

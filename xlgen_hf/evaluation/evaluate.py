"""Scores of a file of predictions, for all texts and for groups of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from datasets import Dataset

from ..data.blocks import Block
from ..data.field_names import ID_FIELDS
from ..data.formats import read_file
from ..data.label_lists import column_batches
from ..data.options import RowOptions
from ..data.predictions import Predictions, read_predictions
from ..data.rows import RowSource, load_rows
from ..data.suspicion import id_suspicions, log_suspicions, look_alike_suspicions
from ..data.values import to_list
from ..data.vocabulary_files import vocabulary_of
from ..errors import ConfigurationError, DataError
from ..files.json_lines import write_jsonl
from ..files.outputs import claim_files, refuse_existing
from ..files.serialization import write_json
from ..labels.vocabulary import Vocabulary
from ..plots.scores import PLOT_SHOTS, plot_shot_buckets
from ..plots.style import check_picture
from ..plots.trust import plot_reliability, plot_risk_coverage
from ..ranking.reliability import ReliabilityTable, reliability_table, table_calibration_error
from ..ranking.risk_coverage import RiskCoverage
from .details import score_details
from .risk_coverage import confidence_scores, risk_curves
from .scoring import LabelScorer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["run_evaluate"]

logger = logging.getLogger(__name__)

_PICTURES = ("", "_reliability", "_risk_coverage")  # ends of their names
_MOST_GROUPS = 200  # of one field
_NO_VALUE = "(none)"
_TRAINING = ("train_label_counts", "num_train_documents", "broader")  # options that hold for all texts
_SHOWN_IDS = 3


class _References(NamedTuple):
    """The rows that predictions are scored against.

    Attributes:
        name: what messages call them.
        labels: the true labels of each row, an Arrow column.
        ids: of each row; None where the order tells which prediction is whose.
        groups: field -> value -> rows that have it, from 0.
    """

    name: str
    labels: pa.ChunkedArray
    ids: Sequence[object] | None
    groups: dict[str, dict[str, np.ndarray]]


def run_evaluate(
    predictions: str | Path,
    references: RowSource,
    train_file: RowSource | None = None,
    output_file: str | Path | None = None,
    plot: str | Path | None = None,
    *,
    rows: RowOptions | None = None,
    by: Sequence[str] = (),
    per_label_file: str | Path | None = None,
    baselines: Sequence[str | Path] = (),
    k: Sequence[int] = (1, 3, 5),
    shots: Sequence[int | str] | None = None,
    hierarchical: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Score a file of predictions.

    Predictions with `scores` also get `expected_calibration_error`, over 15 bins of equally many decisions, and the
    `mean_score` of the decisions. Both are about the labels that were predicted: labels that were not have no score
    in the file. They also get the areas under their risk-coverage curves, see `xlgen_hf.evaluation.risk_coverage`:
    texts count in the order of their `expected_f1` and `best_label_probability`, without these of their best score.

    Args:
        predictions: rows with `labels`, the best first, in a file that `load_rows` reads, perhaps with `scores`, one
            for each label.
        references: rows with the true labels, in the same order; texts are not needed.
        train_file: training rows.
        output_file: where to write the scores as JSON.
        plot: where to draw the scores of the buckets; needs `train_file`. The reliability diagram and risk-coverage
            curves are drawn next to it.
        rows: how references and training rows are read. Where it names an id column, predictions have it, too, and
            are matched to references by it, whatever their order. Where it names a vocabulary, the `ids` of
            predictions say which of its concepts they mean; without these, predictions may call them by any name.
        by: columns of the references; texts are scored again for each value of each of them. A text whose value is a
            list belongs to the group of each element.
        per_label_file: where to write the scores of each label as JSON Lines.
        baselines: predictions of other systems for the same rows. They are scored alike, and drawn next to these.
        k: cut-offs of the ranking scores.
        shots: buckets of labels by training count; by default 0 and 1, with `plot` buckets that hold all labels.
        hierarchical: add the hierarchical scores, by the broader concepts of the vocabulary in `rows`.
        overwrite: whether files that are there already are replaced.
        **options: further options of `xlgen_hf.evaluation.scoring.score_labels`.

    Returns:
        Scores by name; with `by` also `groups`, field -> value -> scores by name, each with its own intervals where
        `bootstrap` asks for them, and the number of `texts`; with `baselines` the scores of each by its file's name;
        and what the pictures are drawn from (`xlgen_hf.files.score_details.ScoreDetails`).

    Raises:
        DataError: if rows cannot be read, matched or scored.
        ConfigurationError: if a plot is wanted without training rows, or under a name that is not a picture's, or
            hierarchical scores without a hierarchy, or a field has too many values, or a file to write is there
            already.
        MissingExtraError: if a plot is wanted without matplotlib.
    """
    pictures = [] if plot is None else _pictures(Path(plot), has_training_rows=train_file is not None)
    outputs = [Path(path) for path in (output_file, per_label_file, *pictures) if path is not None]
    for path in outputs:
        refuse_existing(path, overwrite=overwrite)  # before the work, and again when the writing begins
    rows = rows or RowOptions()
    options |= _hierarchy(rows) if hierarchical else {}
    true = _references(references, rows, by)
    given = _matched(predictions, true, rows)
    train = None if train_file is None else _rows_without_texts(train_file, "train", rows.changed(id_column=None))
    _warn_of_other_names(given.labels, true.labels)
    options |= {"k": k, "shots": shots if shots is not None else (PLOT_SHOTS if plot is not None else (0, 1))}
    scorer = _scorer(train, options)
    scores = scorer.score(given.labels, true.labels, **{**options, "per_label": per_label_file is not None})
    table = scores.pop("per_label", {})
    reliability = _reliability(given, true.labels, predictions)
    if reliability is not None:
        scores |= _calibration_scores(reliability)
    curves = risk_curves(given, true.labels)
    scores |= confidence_scores(given, true.labels, curves) | score_details(reliability, curves)
    if by:
        scores["groups"] = _group_scores(given, true, scorer, options)
    if baselines:
        others = {name: _matched(path, true, rows) for name, path in _named(predictions, baselines).items()}
        scores["baselines"] = {name: scorer.score(one.labels, true.labels, **options) for name, one in others.items()}
    with claim_files(outputs, command="xlgen evaluate", overwrite=overwrite) as place:
        if per_label_file is not None:
            _write_table(table, place(per_label_file))
        if output_file is not None:
            write_json(place(output_file), scores)
        if plot is not None:
            _draw(scores, reliability, curves, Path(predictions), partial(_picture, Path(plot), place))
    return scores


def _pictures(plot: Path, *, has_training_rows: bool) -> list[Path]:
    """The files of pictures that there may be something for."""
    check_picture(plot)
    if not has_training_rows:
        raise ConfigurationError("A plot shows labels by their training documents; give the training rows too.")
    return [_picture(plot, Path, ending) for ending in _PICTURES]


def _draw(
    scores: Mapping[str, Any],
    reliability: ReliabilityTable | None,
    curves: Mapping[str, RiskCoverage],
    predictions: Path,
    picture: Callable[[str], Path],
) -> None:
    """Draw the pictures that there is something for; `picture` says where each goes."""
    systems = {predictions.stem: scores, **scores.get("baselines", {})}
    plot_shot_buckets(systems, picture(""), title=f"{predictions.name}: macro F1 of rare and frequent labels")
    if reliability is not None:
        plot_reliability(reliability, picture("_reliability"), title=f"{predictions.name}: do scores come true?")
    if curves:
        title = f"{predictions.name}: what is left when people take the least sure texts"
        plot_risk_coverage(curves, picture("_risk_coverage"), title=title)


def _picture(plot: Path, place: Callable[[str | Path], Path], ending: str) -> Path:
    return place(plot.with_stem(f"{plot.stem}{ending}"))


def _write_table(columns: Mapping[str, Sequence[object]], path: str | Path) -> None:
    write_jsonl(path, (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)))


# ---------------------------------------------------------------------------------------------------- rows


def _rows_without_texts(source: RowSource, split: str, rows: RowOptions, keep: Sequence[str] = ()) -> Dataset:
    return load_rows(source, rows, split=split, require_text=False, keep_columns=tuple(keep))


def _references(source: RowSource, rows: RowOptions, by: Sequence[str]) -> _References:
    true = _rows_without_texts(source, "test", rows, by)
    groups = {field: _groups(true, field) for field in by}
    ids = None if rows.id_column is None else true[rows.id_column][:]
    name = str(source) if isinstance(source, (str, Path)) else "the references"
    return _References(name, true.with_format("arrow")["labels"][:], ids, groups)


def _matched(predictions: str | Path, true: _References, rows: RowOptions) -> Predictions:
    """Predictions in the order of the references."""
    vocabulary = vocabulary_of(rows)
    options = RowOptions(id_column=rows.id_column, label_separator=rows.label_separator)
    given = read_predictions(predictions, options, with_concepts=vocabulary is not None)
    if vocabulary is not None:
        given = replace(given, labels=_labels_of_concepts(given, vocabulary), concepts=None)
    if true.ids is not None:
        given = _in_order(given, true.ids, predictions, true.name)
    else:
        _warn_of_another_order(predictions, true.name, rows)
    if len(given.labels) != len(true.labels):
        message = f"{len(given.labels)} predictions for the {len(true.labels)} rows of {true.name}"
        raise DataError(f"{message}; give one for each row.", file=predictions)
    rising = sum(any(score < later for score, later in pairwise(of_row)) for of_row in given.scores or ())
    if rising:
        logger.warning(
            "%s: the scores of %d of %d rows rise somewhere. Ranking scores take the labels in the order of the file; "
            "sort them by score, the best first, if that is not their order.",
            predictions,
            rising,
            len(given.labels),
        )
    return given


def _warn_of_another_order(predictions: str | Path, references: str | Path, rows: RowOptions) -> None:
    """Report rows that are matched by their order although both files call them differently; the first block tells."""
    paths = [Path(one) for one in (predictions, references)]
    if not all(path.is_file() for path in paths):
        return
    written = RowOptions(text_column=("labels",), layout="rows")  # predictions have a form of their own
    blocks = [_first_block(path, options) for path, options in zip(paths, (written, rows), strict=True)]
    for name in ID_FIELDS:
        ids = [[] if block is None else list(map(str, to_list(block.columns.get(name, ())))) for block in blocks]
        row = next((row for row, (one, other) in enumerate(zip(*ids, strict=False)) if one != other), None)
        if row is not None and len(set(ids[1])) == len(ids[1]):  # the rows of a long table become one text
            logger.warning(
                "%s: the order of the rows counts, and row %d is called %s here and %s in %s. Add --id-column %s to "
                "match rows by what they are called.",
                predictions, row + 1, ids[0][row], ids[1][row], references, name,
            )  # fmt: skip
            return


def _first_block(path: Path, options: RowOptions) -> Block | None:
    return next(iter(read_file(path, options.changed(keep_columns=ID_FIELDS))), None)


def _labels_of_concepts(given: Predictions, vocabulary: Vocabulary) -> list[list[str]]:
    """Predicted labels as the vocabulary calls them: by the ids of their concepts, without one by any name.

    Labels in another language, or renamed ones, may be what the vocabulary calls another concept.
    """
    labels = []
    for names, ids in zip(given.labels, given.concepts or (), strict=True):
        found = vocabulary.labels_of(names, vocabulary.ids)
        labels.append([vocabulary.labels.get(one or "", name) for one, name in zip(ids, found, strict=True)])
    return labels


def _hierarchy(rows: RowOptions) -> dict[str, dict[str, list[str]]]:
    """The option that adds hierarchical scores."""
    vocabulary = vocabulary_of(rows)
    broader = {} if vocabulary is None else vocabulary.broader_labels()
    if not broader:
        what = "there is no vocabulary (--vocabulary)" if vocabulary is None else "no concept has a broader one"
        raise ConfigurationError(f"Hierarchical scores need broader concepts; {what}.")
    return {"broader": broader}


def _named(predictions: str | Path, baselines: Sequence[str | Path]) -> dict[str, str | Path]:
    """The files of other systems by names that tell them apart: their own, with their folders' where they share it."""
    paths = [Path(path) for path in (predictions, *baselines)]
    stems = Counter(path.stem for path in paths)
    names = {path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}": path for path in paths}
    if len(names) < len(paths):
        raise ConfigurationError(
            f"Several of the files {[str(path) for path in paths]} have the same name; rename one."
        )
    return {name: path for name, path in names.items() if path != paths[0]}


def _in_order(given: Predictions, wanted: Sequence[object], predictions: str | Path, references: str) -> Predictions:
    """Predictions in the order of the ids; as text, since CSV has no numbers."""
    found = given.ids or []
    ids = [str(one) for one in found]
    place = {one: row for row, one in enumerate(ids)}
    if len(place) < len(ids):
        twice = next(one for row, one in enumerate(ids) if place[one] != row)
        raise DataError(f"The id {twice!r} has several predictions; an id must identify a row.", file=predictions)
    keys = [str(one) for one in wanted]
    if len(set(keys)) < len(keys):
        twice = next(one for one, count in Counter(keys).items() if count > 1)
        raise DataError(f"The id {twice!r} is that of several rows; an id must identify a row.", file=references)
    missing = [key for key in keys if key not in place]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(keys)} ids of {references} have no prediction, e.g. "
            f"{missing[:_SHOWN_IDS]}; give one for each row.",
            file=predictions,
        )
    if len(ids) > len(keys):
        unused = min(place.keys() - set(keys), key=place.__getitem__)
        raise DataError(f"There is a prediction for {unused!r}, which no reference has.", file=predictions)
    order = [place[key] for key in keys]
    scores = None if given.scores is None else [given.scores[row] for row in order]
    confidence = {name: [values[row] for row in order] for name, values in given.confidence.items()}
    return Predictions(
        [given.labels[row] for row in order], scores, [found[row] for row in order], confidence=confidence
    )


def _groups(rows: Dataset, field: str) -> dict[str, np.ndarray]:
    """Value -> rows that have it, the largest group first."""
    members: dict[str, list[int]] = {}
    start = 0
    for (column,) in column_batches(rows, field):
        for row, value in enumerate(column.to_pylist(), start):
            values = value if isinstance(value, list) else [value]
            for one in dict.fromkeys(_NO_VALUE if one is None or one == "" else str(one) for one in values or [None]):
                members.setdefault(one, []).append(row)
        start += len(column)
    if len(members) > _MOST_GROUPS:
        raise ConfigurationError(
            f"The field {field!r} has {len(members):,} values, such as {list(members)[:_SHOWN_IDS]}; choose a field "
            f"with at most {_MOST_GROUPS}."
        )
    ordered = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
    return {value: np.array(found) for value, found in ordered}


# ---------------------------------------------------------------------------------------------------- scores


def _scorer(train: Dataset | None, options: dict[str, Any]) -> LabelScorer:
    """What scores all texts, groups of them and other systems; takes its own options out of the others."""
    own = {name: options.pop(name) for name in _TRAINING if name in options}
    return LabelScorer(train_references=None if train is None else train.with_format("arrow")["labels"][:], **own)


def _group_scores(
    given: Predictions, true: _References, scorer: LabelScorer, options: Mapping[str, Any]
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of each group."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for field, groups in true.groups.items():
        for value, members in groups.items():
            labels = [given.labels[row] for row in members]
            found = scorer.score(labels, true.labels.take(members), **options)
            scores.setdefault(field, {})[value] = {"texts": len(members), **found}
    return scores


def _warn_of_other_names(predicted: Sequence[Sequence[str]], true: pa.ChunkedArray) -> None:
    """Report labels that predictions and references may call by different names: they count as wrong."""
    names = dict.fromkeys(label for labels in predicted for label in labels)
    there = true.combine_chunks().flatten().unique().to_pylist()
    found = look_alike_suspicions(names, there, what="predicted and true labels") + id_suspicions(names, there)
    log_suspicions(found, "Predictions and references")


def _reliability(given: Predictions, true: pa.ChunkedArray, path: str | Path) -> ReliabilityTable | None:
    """How often predicted labels are true, by score; None where there are no scores that could be probabilities."""
    if given.scores is None:
        return None
    pairs = zip(given.labels, given.scores, strict=True)
    rows = [dict(zip(labels[::-1], values[::-1], strict=True)) for labels, values in pairs]  # a label counts once
    scores = np.array([score for row in rows for score in row.values()], dtype=np.float64)
    if not len(scores):
        return None
    if not ((scores >= 0) & (scores <= 1)).all():
        logger.warning("%s: `scores` are outside [0, 1], so not probabilities; calibration is not measured.", path)
        return None
    references = map(set, true.to_pylist())
    correct = [label in truth for row, truth in zip(rows, references, strict=True) for label in row]
    return reliability_table(scores, np.array(correct))


def _calibration_scores(table: ReliabilityTable) -> dict[str, float]:
    return {
        "expected_calibration_error": table_calibration_error(table),
        "mean_score": float(table["mean_score"] @ table["count"] / table["count"].sum()),
    }

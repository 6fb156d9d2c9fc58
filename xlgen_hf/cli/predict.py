"""`xlgen predict`: apply a model, or an ensemble of models, to texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeAlias, TypedDict

import typer

from ..data.blocks import each_value
from ..data.options import RowOptions
from ..settings import BATCH_SIZE
from .answering import chosen_rule, load_on_device, option_name
from .options import Device, DType, PredictWith
from .processes import Processes, check_alone, working_together
from .rows import takes_row_options

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from ..decoding.decoded_sets import DecodingOptions
    from ..encoders.number_types import NumberType
    from ..files.json_lines import BlockFolder
    from ..prediction.ensemble import Ensemble
    from ..prediction.predictor import Predictor
    from ..prediction.results import Answer, LabelPrediction
    from ..ranking.decisions import DecisionRule

__all__ = ["CHUNK_SIZE", "predict", "write_share"]

_LONGEST_WAIT = 60.0  # seconds for another run that collects in the same file
CHUNK_SIZE = 1024
"""Texts that are sorted by length together; rows are written after each chunk."""
_MODEL_SUFFIXES = (".cbor", ".json", ".safetensors")  # what a change of a model shows in, in its folder or on the Hub
_NOT_DECIDING = ("output_file", "overwrite", "stage_novel")  # options that rows do not depend on

_Chunk: TypeAlias = "tuple[int, list[dict[str, object]]]"
"""The number of the first row, and what is written of this row and those after it."""
_Run: TypeAlias = Callable[[Sequence[int]], Iterator[_Chunk]]
"""Predicts chunks by their first rows."""


class _Predict(Protocol):
    """Predicts texts, which may have labels already."""

    def __call__(self, texts: Sequence[str], *, given: Sequence[Sequence[str]] | None) -> list[LabelPrediction]:
        """Labels of each text, beside those that it has."""


class _Settings(TypedDict):
    """How texts are predicted, by one model or by an ensemble."""

    decoding: DecodingOptions | None
    rule: DecisionRule | None
    allowed: np.ndarray | None
    batch_size: int


class _OfOneModel(TypedDict):
    """What is asked of one model, and not of an ensemble."""

    open_vocabulary: bool
    evidence: bool
    abstain_below: float | None


@takes_row_options(leave_out=("vocabulary", "language"))
def predict(
    model: Annotated[
        list[str],
        typer.Option(
            help="Folder of a model, adapter, index or label trees, or its Hub id; several make an ensemble."
        ),
    ],
    input_file: Annotated[
        str, typer.Option(help="Texts: JSON Lines, CSV, Excel, Parquet, a folder or a Hub data set.")
    ],
    output_file: Annotated[
        Path | None,
        typer.Option(
            help="File to write, one row per text: .jsonl, .csv, .tsv (each also with .gz) or .parquet. The same"
            " command continues where a run was stopped.",
            show_default="JSON Lines to stdout",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it exists.")] = False,
    num_beams: Annotated[
        int | None, typer.Option(min=1, help="Beams per text; 1 is greedy search.", show_default="the model's")
    ] = None,
    num_samples: Annotated[int, typer.Option(min=0, help="Label sets to sample per text, instead of searching.")] = 0,
    temperature: Annotated[float, typer.Option(help="Of the samples.")] = 1.0,
    pool: Annotated[
        str | None,
        typer.Option(
            help="How beams or samples become one set: best, average, vote or union.",
            show_default="the model's; best where the search is given",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    ordered: Annotated[bool, typer.Option(help="Keep to the label order of training.")] = False,
    min_labels: Annotated[
        int | None, typer.Option(min=0, help="Minimum number of labels per text.", show_default="the model's")
    ] = None,
    max_labels: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of labels per text.", show_default="the model's")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Predict this many labels for each text.")] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Predict the labels with at least this score, from 0 to 1; a text may be left without labels. `auto`"
            " takes the threshold that validation rows chose, with which a text keeps its best label, unless many of"
            " those rows have none."
        ),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="What `auto` is best for: micro, macro or example F1.", show_default="micro")
    ] = None,
    expected_f1: Annotated[bool, typer.Option(help="Predict as many labels as promise the highest F1.")] = False,
    ensemble: Annotated[
        str | None, typer.Option(help="How models are fused: average, vote or union.", show_default="average")
    ] = None,
    add_labels: Annotated[
        Path | None, typer.Option(help="New labels, one name per line; they need no training.")
    ] = None,
    allow: Annotated[Path | None, typer.Option(help="Labels to choose from, one name per line.")] = None,
    deny: Annotated[Path | None, typer.Option(help="Labels never to predict, one name per line.")] = None,
    cluster: Annotated[list[str] | None, typer.Option(help="Choose from the labels of this cluster alone.")] = None,
    branch: Annotated[
        list[str] | None,
        typer.Option(help="Choose from this concept and those below it alone; its id, or a name of it alone."),
    ] = None,
    without_branch: Annotated[
        list[str] | None, typer.Option(help="Never predict this concept and those below it.")
    ] = None,
    output_language: Annotated[
        str | None,
        typer.Option(
            help="Language of the predicted labels, such as en; needs a model with a vocabulary.",
            show_default="that of the training",
        ),
    ] = None,
    with_parents: Annotated[
        bool, typer.Option("--with-parents", help="Add the broader concepts of each label.")
    ] = False,
    concepts: Annotated[
        bool,
        typer.Option(
            "--concepts", help="Add each label as a concept: id, label, language, score, and ids of broader ones."
        ),
    ] = False,
    cluster_threshold: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.999, help="bcl: probability of a cluster.", show_default="the model's"),
    ] = None,
    predict_with: PredictWith = None,
    keep_column: Annotated[
        str | None,
        typer.Option(
            help="Column of labels that the texts have already: only further ones are predicted, going by these."
        ),
    ] = None,
    open_vocabulary: Annotated[bool, typer.Option(help="Also look for names that are not labels yet.")] = False,
    stage_novel: Annotated[
        Path | None,
        typer.Option(
            help="File (.jsonl) in which the names that --open-vocabulary finds collect, with counts and texts, for"
            " `xlgen update --add-labels`."
        ),
    ] = None,
    evidence: Annotated[
        bool,
        typer.Option(
            "--evidence",
            help="Add what speaks for each label: words of the text that match its names, training texts like it, and"
            " what each source says.",
        ),
    ] = False,
    abstain_below: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Mark texts whose expected F1 is lower for a person, in the field `abstain`.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts per batch.")] = BATCH_SIZE,
    device: Device = None,
    dtype: DType = None,
    *,
    rows: RowOptions,
) -> None:
    """Write labels, scores and clusters of each text, labels sorted by score.

    With --id-column and --keep-columns predictions carry columns of their rows, so that they can be joined.

    Several processes (`torchrun`, `accelerate launch`) share the texts and write one file.
    """
    given = dict(locals())  # all options: they decide whether an earlier run's rows are reused
    from ..data.predictions import join_columns
    from ..prediction.encoding import one_report_of_cuts

    further: _OfOneModel = {
        "open_vocabulary": open_vocabulary, "evidence": evidence, "abstain_below": abstain_below,
    }  # fmt: skip
    _check_ensemble(model, ensemble, further)
    _check_staging(stage_novel, open_vocabulary=open_vocabulary)
    _check_output(output_file, overwrite=overwrite)
    decoding = _decoding(num_beams, num_samples, temperature, pool, seed, ordered, min_labels, max_labels)
    texts = _load_texts(input_file, rows, keep_column)
    members = [_load(name, device, predict_with, dtype, add_labels, cluster_threshold) for name in model]
    settings: _Settings = {
        "decoding": decoding,
        "rule": chosen_rule(members[0], top_k, threshold, objective, expected_f1=expected_f1),
        "allowed": _choose_labels(members[0], allow, deny, cluster, branch, without_branch),
        "batch_size": batch_size,
    }
    answer = _answer(members[0], output_language, with_parents=with_parents, concepts=concepts)
    predict_texts = partial(members[0].predict, **further, **settings)
    if len(members) > 1:
        predict_texts = partial(_ensemble(members, ensemble).predict, **settings)

    def run(starts: Sequence[int]) -> Iterator[_Chunk]:
        with one_report_of_cuts():
            for first, found in _predictions(predict_texts, texts, starts, stage_novel, keeps=keep_column is not None):
                yield first, join_columns([answer(one).to_dict() for one in found], texts, rows, first)

    if output_file is None:
        _print(run(range(0, len(texts), CHUNK_SIZE)))
        return
    about = _fingerprint(given, model, members[0], settings["allowed"], texts)
    with working_together("predict") as processes:
        _write(output_file, run, about, processes, len(texts), overwrite=overwrite, separator=rows.label_separator)


def _check_output(path: Path | None, *, overwrite: bool) -> None:
    """Refuse an output before the work; whether a run of the same command was finishing it is checked later."""
    if path is None:
        check_alone("Several processes cannot print together; give --output-file.")
        return
    from ..data.predictions import check_prediction_file
    from ..files.json_lines import is_begun
    from ..files.outputs import refuse_existing

    check_prediction_file(path)
    refuse_existing(path, overwrite=overwrite or is_begun(path))


def _check_ensemble(models: list[str], ensemble: str | None, further: _OfOneModel) -> None:
    from ..errors import ConfigurationError

    wanted = [name for name, value in further.items() if value not in (None, False)]
    if len(models) > 1 and wanted:
        option = f"--{wanted[0].replace('_', '-')}"
        raise ConfigurationError(f"{option} works with one --model, not with an ensemble.")
    if len(models) == 1 and ensemble is not None:
        raise ConfigurationError(f"--ensemble {ensemble} fuses several models; give --model more than once.")


def _check_staging(path: Path | None, *, open_vocabulary: bool) -> None:
    """Refuse a file for novel labels that would stay empty, or is something else, before the work."""
    from ..errors import ConfigurationError
    from ..prediction.staging import StagedLabels

    if path is None:
        return
    if not open_vocabulary:
        raise ConfigurationError("--stage-novel collects what --open-vocabulary finds; add that.")
    if path.suffix != ".jsonl":
        raise ConfigurationError(f"--stage-novel {path}: the name must end in .jsonl.")
    StagedLabels(path)


def _stage(path: Path, texts: Sequence[str], found: list[LabelPrediction]) -> None:
    """Collect the novel labels of texts in a file, which other runs may be writing to as well."""
    from ..files.outputs import sole_writer
    from ..prediction.staging import StagedLabels

    with sole_writer(path, command="xlgen predict", timeout=_LONGEST_WAIT):
        staged = StagedLabels(path)
        staged.add(texts, found)
        staged.save()


def _load_texts(source: str, rows: RowOptions, kept: str | None) -> Dataset:
    """The rows to predict, with the labels that they have already in the column `kept`, if there is one."""
    from ..data.rows import load_rows
    from ..errors import ConfigurationError, DataError

    if kept is not None:
        if rows.labels_column not in (None, kept):
            raise ConfigurationError(
                f"--keep-column {kept} and --labels-column {rows.labels_column} name two columns of labels; give one."
            )
        rows = rows.changed(labels_column=kept)
    texts = load_rows(source, rows, split="test", require_labels=False)
    if kept is not None and not any(map(len, each_value(texts, "labels"))):
        raise DataError(f"No row has a label in the column {kept!r} of --keep-column.", file=source)
    return texts


def _ensemble(members: list[Predictor], how: str | None) -> Ensemble:
    from ..prediction.ensemble import Ensemble

    return Ensemble(members, how or "average")  # type: ignore[arg-type]


def _decoding(
    num_beams: int | None,
    num_samples: int,
    temperature: float,
    pool: str | None,
    seed: int,
    ordered: bool,
    min_labels: int | None,
    max_labels: int | None,
) -> DecodingOptions | None:
    """How to search; None where no option says anything."""
    from ..decoding.decoded_sets import DecodingOptions

    wanted = DecodingOptions(
        num_beams=num_beams,
        num_samples=num_samples,
        temperature=temperature,
        pool=pool,  # type: ignore[arg-type]
        seed=seed,
        ordered=ordered,
        min_labels=min_labels,
        max_labels=max_labels,
    )
    return None if wanted == DecodingOptions(seed=seed) else wanted


def _load(
    name: str,
    device: str | None,
    predict_with: str | None,
    dtype: NumberType | None,
    add_labels: Path | None,
    cluster_threshold: float | None,
) -> Predictor:
    from ..data.rows import load_label_names
    from ..errors import ConfigurationError
    from ..prediction.generator import Generator

    predictor = load_on_device(name, device, predict_with, dtype)
    if cluster_threshold is not None:
        if not isinstance(predictor.source, Generator):
            raise ConfigurationError(f"{name} has no generator, so --cluster-threshold has no effect.")
        variant = predictor.source.model.config.variant
        if variant != "bcl":
            raise ConfigurationError(f"{name} is a model of variant {variant}; --cluster-threshold is for bcl.")
        predictor.source.model.config.cluster_threshold = cluster_threshold
    return predictor if add_labels is None else predictor.with_labels(load_label_names(add_labels))


def _choose_labels(
    predictor: Predictor,
    allow: Path | None,
    deny: Path | None,
    clusters: list[str] | None,
    branches: list[str] | None,
    other_branches: list[str] | None,
) -> np.ndarray | None:
    """Ids of the labels that may be predicted, None for all."""
    from ..data.rows import load_label_names
    from ..prediction.options import chosen_labels

    return chosen_labels(
        predictor,
        allow=None if allow is None else load_label_names(allow),
        deny=None if deny is None else load_label_names(deny),
        cluster=clusters,
        branch=branches,
        without_branch=other_branches,
        spelling=option_name,
    )


def _answer(predictor: Predictor, language: str | None, *, with_parents: bool, concepts: bool) -> Answer:
    """What brings a prediction into the form that the options ask for."""
    from ..prediction.results import form_of_answers

    return form_of_answers(
        predictor.vocabulary,
        output_language=language,
        with_parents=with_parents,
        concepts=concepts,
        spelling=option_name,
    )


def _predictions(
    predict: _Predict, rows: Dataset, starts: Sequence[int], staged: Path | None, *, keeps: bool
) -> Iterator[tuple[int, list[LabelPrediction]]]:
    """Predict chunk by chunk, in the order of the rows; each with its first row.

    Args:
        predict: predicts texts.
        rows: the rows.
        starts: the first row of each chunk.
        staged: file in which novel labels collect, if there is one.
        keeps: whether texts have the labels of their rows already.
    """
    from tqdm.auto import tqdm

    left = sum(min(CHUNK_SIZE, len(rows) - first) for first in starts)
    with tqdm(total=left, unit="text", disable=None) as bar:
        for first in starts:
            chunk = rows[first : first + CHUNK_SIZE]
            found = predict(chunk["text"], given=chunk["labels"] if keeps else None)
            if staged is not None:  # before the rows are written, which a later run would not predict again
                _stage(staged, chunk["text"], found)
            yield first, found
            bar.update(len(chunk["text"]))


def _print(chunks: Iterator[_Chunk]) -> None:
    """Print predictions as they come, one row per text."""
    import json

    for _, chunk in chunks:
        for prediction in chunk:
            typer.echo(json.dumps(prediction, ensure_ascii=False))


def _fingerprint(
    given: dict[str, object], models: list[str], predictor: Predictor, allowed: np.ndarray | None, texts: Dataset
) -> dict[str, str]:
    """All that a file of predictions depends on: options, files of the models, labels, texts, ids and kept columns."""
    import json

    from ..files.json_lines import digest
    from ..files.saving import local_model

    folders = [local_model(name, {}) for name in models]
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.suffix in _MODEL_SUFFIXES]
    settings = {name: str(value) for name, value in given.items() if name not in _NOT_DECIDING}
    settings["files"] = str([(file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    space, keeps = predictor.label_space, given["keep_column"] is not None
    labels = space.names if allowed is None else space.decode(allowed)
    settings["kept"] = digest(map(json.dumps, each_value(texts, "labels"))) if keeps else ""
    others = [name for name in texts.column_names if name not in ("text", "labels")]
    settings |= {f"column {name}": digest(map(repr, each_value(texts, name))) for name in others}
    return {**settings, "labels": digest(labels), "texts": digest(each_value(texts, "text"))}


def _write(
    path: Path,
    run: _Run,
    settings: dict[str, str],
    processes: Processes,
    num_rows: int,
    *,
    overwrite: bool,
    separator: str | None,
) -> None:
    """Write predictions as they come; continue where a run of the same command was stopped.

    Args:
        path: the file; its name says the format.
        run: predicts chunks by their first rows.
        settings: what the predictions depend on.
        processes: those that share the chunks; the first one puts all into the file.
        num_rows: number of texts.
        overwrite: whether a file that is there may be replaced.
        separator: of labels, see `write_predictions`.
    """
    from ..data.predictions import write_predictions
    from ..files.json_lines import BlockFolder, PartialOutput

    if not processes.is_first:
        write_share(run, BlockFolder(path), range(processes.told(), num_rows, CHUNK_SIZE), processes)
        return
    json_lines = path.name.lower().endswith((".jsonl", ".jsonl.gz"))
    with PartialOutput(path, settings, CHUNK_SIZE, rows=num_rows, overwrite=overwrite) as output:
        starts = range(processes.told(output.done), num_rows, CHUNK_SIZE)
        if processes.count > 1:
            write_share(run, output.blocks, starts, processes)
        found = run([first for first in starts if first not in output.blocks])  # nothing, where others have helped
        for first in starts:
            output.append(output.blocks.read(first) if first in output.blocks else next(found)[1])
        next(found, None)  # its end, which says what was cut
        output.finish(None if json_lines else partial(write_predictions, label_separator=separator))


def write_share(run: _Run, blocks: BlockFolder, starts: Sequence[int], processes: Processes) -> None:
    """Predict this process's share of the chunks, as far as they are missing, and wait for the others."""
    own = starts[processes.rank :: processes.count]
    for first, rows in run([first for first in own if first not in blocks]):
        blocks.write(first, rows)
    processes.told()

"""`xlgen predict`: apply a model, or an ensemble of models, to texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from ..decoding.decoded_sets import DecodingOptions
    from ..prediction.ensemble import Ensemble
    from ..prediction.predictor import Predictor
    from ..prediction.results import LabelPrediction
    from ..ranking.decisions import DecisionRule

__all__ = ["predict"]

_CHUNK = 1024  # texts that are sorted by length together; rows are written after each
_MODEL_SUFFIXES = (".json", ".safetensors")  # what a change of a model shows in, in its folder or on the Hub
_AUTO = "auto"


def predict(
    model: Annotated[
        list[str],
        typer.Option(
            help="Folder of a model, adapter, index or label trees, or its Hub id; several make an ensemble."
        ),
    ],
    input_file: Annotated[str, typer.Option(help="Rows with `text`: JSON Lines, CSV, Parquet or a Hub data set.")],
    output_file: Annotated[
        Path | None,
        typer.Option(help="JSON Lines to write, a row a text; the same command resumes.", show_default="stdout"),
    ] = None,
    num_beams: Annotated[
        int | None, typer.Option(min=1, help="Beams of a text; 1 is greedy search.", show_default="the model's")
    ] = None,
    num_samples: Annotated[int, typer.Option(min=0, help="Sets to draw for a text, instead of searching.")] = 0,
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
        int | None, typer.Option(min=0, help="Least labels of a text.", show_default="the model's")
    ] = None,
    max_labels: Annotated[
        int | None, typer.Option(min=1, help="Most labels of a text.", show_default="the model's")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Predict this many labels for each text.")] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Predict the labels with at least this score, from 0 to 1; a text may be left without labels. `auto`"
            " takes the threshold that validation rows chose, with which a text keeps its best label."
        ),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="What `auto` is best for: micro, macro or example F1.", show_default="micro")
    ] = None,
    expected_f1: Annotated[bool, typer.Option(help="Predict as many labels as promise the greatest F1.")] = False,
    ensemble: Annotated[
        str | None, typer.Option(help="How models are fused: average, vote or union.", show_default="average")
    ] = None,
    add_labels: Annotated[Path | None, typer.Option(help="New labels, a name a line; no training is needed.")] = None,
    allow: Annotated[Path | None, typer.Option(help="Labels to choose from, a name a line.")] = None,
    deny: Annotated[Path | None, typer.Option(help="Labels never to predict, a name a line.")] = None,
    cluster: Annotated[list[str] | None, typer.Option(help="Choose from the labels of this cluster alone.")] = None,
    cluster_threshold: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.999, help="bcl: probability of a cluster.", show_default="the model's"),
    ] = None,
    open_vocabulary: Annotated[bool, typer.Option(help="Also look for names that are no labels yet.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in a batch.")] = 64,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...", show_default="a GPU where there is one")] = None,
) -> None:
    """Write labels, scores and clusters of each text, labels sorted by score."""
    settings = dict(locals())  # all options: they decide whether an earlier run's rows are reused
    import json

    from ..data.rows import load_rows
    from ..errors import ConfigurationError
    from ..prediction.ensemble import Ensemble

    if len(model) > 1 and open_vocabulary:
        raise ConfigurationError("--open-vocabulary works with one --model, not with an ensemble.")
    if len(model) == 1 and ensemble is not None:
        raise ConfigurationError(f"--ensemble {ensemble} fuses several models; give --model more than once.")
    decoding = _decoding(num_beams, num_samples, temperature, pool, seed, ordered, min_labels, max_labels)
    rows = load_rows(input_file, split="test", require_labels=False)
    members = [_load(name, device, add_labels, cluster_threshold) for name in model]
    options: dict[str, Any] = {
        "decoding": decoding,
        "allowed": _choose_labels(members[0], allow, deny, cluster),
        "rule": _rule(members[0], top_k, threshold, objective, expected_f1),
        "batch_size": batch_size,
    }
    if open_vocabulary:
        options["open_vocabulary"] = True
    predictor = members[0] if len(members) == 1 else Ensemble(members, ensemble or "average")  # type: ignore[arg-type]
    if output_file is None:
        for chunk in _predictions(predictor, rows, 0, options):
            for prediction in chunk:
                typer.echo(json.dumps(prediction.to_dict(), ensure_ascii=False))
        return
    _write(output_file, predictor, rows, options, settings)


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


def _load(name: str, device: str | None, add_labels: Path | None, cluster_threshold: float | None) -> Predictor:
    import torch

    from ..data.rows import load_label_names
    from ..errors import ConfigurationError
    from ..loading import load_predictor
    from ..prediction.generator import Generator

    predictor = load_predictor(name, device=device or ("cuda" if torch.cuda.is_available() else "cpu"))
    new = [] if add_labels is None else load_label_names(add_labels)
    if cluster_threshold is None and not new:
        return predictor
    if not isinstance(predictor.source, Generator):
        raise ConfigurationError(f"{name} is no generator; --add-labels and --cluster-threshold are for generators.")
    model, processor = predictor.source.model, predictor.source.processor
    if cluster_threshold is not None:
        model.config.cluster_threshold = cluster_threshold
    if new:
        processor.add_labels(new)
        model.widen_output(processor)
    return predictor.from_model(model, processor)


def _choose_labels(
    predictor: Predictor, allow: Path | None, deny: Path | None, clusters: list[str] | None
) -> np.ndarray | None:
    """Ids of the labels that may be predicted, None for all."""
    import numpy as np

    from ..data.rows import load_label_names
    from ..errors import ConfigurationError

    space = predictor.label_space
    chosen = np.ones(len(space), dtype=bool)
    if allow is not None:
        chosen[:] = False
        chosen[space.encode(load_label_names(allow))] = True
    if deny is not None:
        chosen[space.encode(load_label_names(deny))] = False
    if clusters:
        chosen &= np.isin(np.arange(len(space)), predictor.labels_of_clusters(clusters))
    if not chosen.any():
        raise ConfigurationError("--allow, --deny and --cluster leave no label to predict.")
    return None if chosen.all() else np.flatnonzero(chosen)


def _rule(
    predictor: Predictor, top_k: int | None, threshold: str | None, objective: str | None, expected_f1: bool
) -> DecisionRule | None:
    """The decision rule that the options ask for, None for the model's own."""
    from ..errors import ConfigurationError
    from ..ranking.decisions import DecisionRule

    if (top_k is not None) + (threshold is not None) + expected_f1 > 1:
        raise ConfigurationError("--top-k, --threshold and --expected-f1 exclude each other; choose one.")
    if objective is not None and threshold != _AUTO:
        raise ConfigurationError(
            f"--objective {objective} chooses among the thresholds of --threshold auto; add that."
        )
    if expected_f1:
        return DecisionRule("expected_f1")
    if top_k is not None:
        return DecisionRule("top_k", top_k)
    if threshold is None:
        return None
    if threshold == _AUTO:
        return _tuned(predictor, objective or "micro")
    try:
        return DecisionRule("threshold", float(threshold))
    except ValueError as err:
        raise ConfigurationError(f"--threshold {threshold}: give a number from 0 to 1, or auto.") from err


def _tuned(predictor: Predictor, objective: str) -> DecisionRule:
    from ..errors import ConfigurationError
    from ..ranking.thresholds import tuned_threshold

    known = predictor.score_model.thresholds
    if objective not in known:
        raise ConfigurationError(
            f"--threshold auto: the model has no threshold for {objective!r}, only {sorted(known)}. Train it with "
            "validation rows, or give a number."
        )
    return tuned_threshold(known[objective])


def _predictions(
    predictor: Predictor | Ensemble, rows: Dataset, start: int, options: dict[str, Any]
) -> Iterator[list[LabelPrediction]]:
    """Predict chunk by chunk from row `start` on, in the order of the rows."""
    from tqdm.auto import tqdm

    with tqdm(total=len(rows), initial=start, unit="text", disable=None) as bar:
        for first in range(start, len(rows), _CHUNK):
            texts = rows[first : first + _CHUNK]["text"]
            yield predictor.predict(texts, **options)
            bar.update(len(texts))


def _write(
    path: Path, predictor: Predictor | Ensemble, rows: Dataset, options: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Write predictions as they come; continue where a run of the same command was stopped."""
    from ..files.json_lines import PartialOutput, digest
    from ..files.model_checks import local_model

    folders = [local_model(name, {}) for name in settings["model"]]
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.suffix in _MODEL_SUFFIXES]
    given = {key: str(value) for key, value in settings.items() if key != "output_file"}
    given["files"] = str([(file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    given["labels"] = digest(predictor.label_space.names) + str(options["allowed"])
    output = PartialOutput(path, {**given, "texts": digest(rows["text"])}, _CHUNK)
    for chunk in _predictions(predictor, rows, output.done, options):
        output.append([prediction.to_dict() for prediction in chunk])
    output.finish()

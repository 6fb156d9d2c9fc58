"""`xlgen index`: make a retriever, or label trees, out of training rows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from datasets import Dataset

    from ..labels.space import LabelSpace
    from ..ranking.score_model import ScoreModel
    from ..ranking.scored_labels import ScoredLabels
    from ..ranking.sources import SavedSource

__all__ = ["index"]

logger = logging.getLogger(__name__)

_CUTS = (5, 10, 20, 50)
_SHOWN_TEXTS = 2_000  # texts that the printed fractions come from


def index(
    train_file: Annotated[
        str, typer.Option(help="Training rows: JSON Lines, CSV, Parquet, a folder or a Hub data set.")
    ],
    output_dir: Annotated[Path, typer.Option(help="Folder to write label space and index into.")],
    validation_file: Annotated[
        str | None,
        typer.Option(help="Rows that choose how neighbours and names are weighed, and how many labels are predicted."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Vocabulary, one name per line or a Hub data set; may hold labels never seen.")
    ] = None,
    method: Annotated[
        Literal["retrieval", "bonsai", "parabel"],
        typer.Option(
            help="What is made: a retriever, or label trees (extra baselines), which rank seen labels alone."
        ),
    ] = "retrieval",
    encoder: Annotated[
        str, typer.Option(help="Encoder of texts and label names: folder, name or Hub id.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    epochs: Annotated[
        float, typer.Option(min=0, help="Epochs in which the encoder learns to match texts and label names; 0: none.")
    ] = 1.0,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of the encoder.")] = 5e-5,
    temperature: Annotated[float, typer.Option(min=0.001, help="Of the softmax over label names.")] = 0.05,
    batch_size: Annotated[int, typer.Option(min=2, help="Texts of a training step.")] = 64,
    max_length: Annotated[
        int, typer.Option(min=8, help="Tokens of a text that the encoder indexes; it is trained with at most 128.")
    ] = 256,
    lexical: Annotated[
        bool,
        typer.Option(help="Let character n-grams count as well, as far as they help on the validation rows."),
    ] = True,
    cpu_threads: Annotated[int | None, typer.Option(min=1, help="Threads on a CPU.", show_default="all cores")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the training.")] = 0,
) -> None:
    """Make an index that predicts by itself, and that `train --variant rcl` and hybrids find candidate labels with."""
    import torch

    from ..data.rows import load_label_names, load_rows
    from ..data.transforms import labelled_rows
    from ..labels.space import LabelSpace
    from ..retrieval.model_sources import save_source_alone
    from ..retrieval.retriever import RetrievalSettings
    from ..training.label_trees import fit_label_trees
    from ..training.retriever import ContrastiveSettings, fit_retriever
    from .console import results

    if cpu_threads is not None:
        torch.set_num_threads(cpu_threads)
    rows = labelled_rows(load_rows(train_file, split="train"))
    validation = None if validation_file is None else load_rows(validation_file, split="validation")
    space = LabelSpace.from_label_lists(rows["labels"], None if labels is None else load_label_names(labels))
    source: SavedSource
    if method == "retrieval":
        source = retriever = fit_retriever(
            space,
            rows,
            validation,
            encoder,
            output_dir / "cache",
            contrastive=ContrastiveSettings(
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                temperature=temperature,
                max_length=min(max_length, ContrastiveSettings.max_length),
            ),
            settings=RetrievalSettings(max_length=max_length),
            lexical=lexical,
            seed=seed,
        )
        _print_recall("training", retriever.rank_training_texts(_texts(rows), max(_CUTS)), rows, space)
    else:
        label_ids = [space.encode(names) for names in rows["labels"]]
        source = fit_label_trees(space, rows["text"][:], label_ids, method, threads=cpu_threads)
    name = "retrieval" if method == "retrieval" else "label_trees"
    save_source_alone(output_dir, space, name, source, _score_model(source, space, validation))
    results().print(f"Written to {output_dir}", markup=False, soft_wrap=True)


def _score_model(source: SavedSource, space: LabelSpace, validation: Dataset | None) -> ScoreModel:
    """Calibration, thresholds and the rule of what predicts, from validation rows where there are some."""
    from ..prediction.predictor import Predictor
    from ..ranking.fitting import ranked_model
    from ..ranking.score_model import ScoreModel

    if validation is None:
        logger.info("Without --validation-file scores are not calibrated, and 5 labels are predicted for each text.")
        return ScoreModel()
    found = Predictor(space, source).rank(validation["text"][:], max(_CUTS), progress=True)
    _print_recall("validation", found, validation, space)
    references = [space.encode_known(names)[0] for names in validation["labels"]]
    return ranked_model(found, references, space.counts)


def _texts(rows: Dataset) -> list[str]:
    texts: list[str] = rows["text"][:_SHOWN_TEXTS]
    return texts


def _print_recall(name: str, found: ScoredLabels, rows: Dataset, space: LabelSpace) -> None:
    """The fraction of a text's labels among its first candidates."""
    from .console import print_table

    shown = found.take(range(min(_SHOWN_TEXTS, len(found))))
    references = [space.encode_known(names)[0] for names in rows["labels"][: len(shown)]]
    correct, total = shown.correct(references), max(sum(map(len, references)), 1)
    print_table(
        f"Fraction of a text's labels among its candidates, {name} rows (a training text does not find itself)",
        tuple(f"first {k}" for k in _CUTS),
        [tuple(correct[shown.rank < k].sum() / total for k in _CUTS)],
    )

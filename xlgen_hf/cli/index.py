"""`xlgen index`: a retriever of candidate labels, from training texts and label names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from datasets import Dataset

    from ..labels.space import LabelSpace
    from ..retrieval.retriever import DenseRetriever

__all__ = ["index"]

_CUTS = (5, 10, 20, 50)
_SHOWN_TEXTS = 2_000  # texts that the printed shares come from


def index(
    train_file: Annotated[
        str, typer.Option(help="Training rows: JSON Lines, CSV, Parquet, a folder or a Hub data set.")
    ],
    output_dir: Annotated[Path, typer.Option(help="Folder to write label space and retriever into.")],
    validation_file: Annotated[
        str | None, typer.Option(help="Rows that choose how neighbours and names are weighed.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Vocabulary, a name a line or a Hub data set; may hold labels never seen.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="Encoder of texts and label names: folder, name or Hub id.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    epochs: Annotated[
        float, typer.Option(min=0, help="Epochs that the encoder learns to match texts and label names; 0: none.")
    ] = 1.0,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of the encoder.")] = 5e-5,
    temperature: Annotated[float, typer.Option(min=0.001, help="Of the softmax over label names.")] = 0.05,
    batch_size: Annotated[int, typer.Option(min=2, help="Texts of a training step.")] = 64,
    max_length: Annotated[
        int, typer.Option(min=8, help="Tokens of a text that the encoder indexes; it is trained with at most 128.")
    ] = 256,
    lexical: Annotated[
        bool, typer.Option(help="Let spelling count as well, as far as it helps on the validation rows.")
    ] = True,
    cpu_threads: Annotated[int | None, typer.Option(min=1, help="Threads on a CPU.", show_default="all cores")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the training.")] = 0,
) -> None:
    """Make a retriever: what `train --variant rcl --retriever` and hybrids find candidate labels with."""
    import torch

    from ..data.rows import load_label_names, load_rows
    from ..data.transforms import labelled_rows
    from ..labels.space import LabelSpace
    from ..retrieval.retriever import RetrievalSettings
    from ..training.retriever import ContrastiveSettings, fit_retriever

    if cpu_threads is not None:
        torch.set_num_threads(cpu_threads)
    rows = labelled_rows(load_rows(train_file, split="train"))
    validation = None if validation_file is None else load_rows(validation_file, split="validation")
    space = LabelSpace.from_label_lists(rows["labels"], None if labels is None else load_label_names(labels))
    retriever = fit_retriever(
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
    space.save(output_dir)
    retriever.save(output_dir)
    parts = {"training": rows} | ({} if validation is None else {"validation": validation})
    _print_recall(retriever, space, parts, output_dir)


def _print_recall(retriever: DenseRetriever, space: LabelSpace, parts: dict[str, Dataset], folder: Path) -> None:
    """The share of a text's labels among its first candidates."""
    from .console import print_table, results

    shown = []
    for name, rows in parts.items():
        some = rows.select(range(min(_SHOWN_TEXTS, len(rows))))
        references = [space.encode_known(names)[0] for names in some["labels"]]
        found = retriever.retrieve(some["text"][:], max(_CUTS), leave_out=name == "training", progress=True)
        correct, total = found.correct(references), max(sum(map(len, references)), 1)
        shown.append((name, *(correct[found.rank < k].sum() / total for k in _CUTS)))
    print_table(
        "Share of a text's labels among its candidates (a training text does not find itself)",
        ("rows", *(f"first {k}" for k in _CUTS)),
        shown,
    )
    results().print(f"Written to {folder}", markup=False, soft_wrap=True)

"""`xlgen inspect`: what a data set is like, and what looks wrong in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..data.options import RowOptions
from .rows import chosen_vocabulary, takes_row_options

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from ..data.inspection import Distribution, Inspection

__all__ = ["inspect"]


@takes_row_options(leave_out=("keep_columns",))
def inspect(
    source: Annotated[
        str | None,
        typer.Argument(help="A file, a folder with a file per split, or a Hub data set; or name the splits below."),
    ] = None,
    train_file: Annotated[str | None, typer.Option(help="Training rows.")] = None,
    validation_file: Annotated[str | None, typer.Option(help="Validation rows.")] = None,
    test_file: Annotated[str | None, typer.Option(help="Test rows.")] = None,
    labels: Annotated[str | None, typer.Option(help="Vocabulary, one name per line, or a Hub data set.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Count tokens with the tokenizer of this model: a folder, a name or a Hub id.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens that a model reads; longer texts are counted.")
    ] = None,
    output_file: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw tail, labels and lengths: .png, .svg or .pdf.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")] = False,
    *,
    rows: RowOptions,
) -> None:
    """Look at a data set before training: sizes, long tail, duplicates, leakage, look-alikes, lengths."""
    from ..data.inspection import inspect_rows
    from ..errors import ConfigurationError
    from ..files.outputs import claim_files, refuse_existing
    from ..files.serialization import write_json
    from ..labels.vocabulary import vocabulary_labels
    from ..plots.style import check_picture

    if plot is not None:
        check_picture(plot)
    for path in (output_file, plot):
        if path is not None:
            refuse_existing(path, overwrite=overwrite)
    if max_length is not None and tokenizer is None:
        raise ConfigurationError("--max-length counts tokens; give --tokenizer, too.")
    files = {"train": train_file, "validation": validation_file, "test": test_file}
    splits = _read(source, {name: file for name, file in files.items() if file is not None}, rows)
    found = inspect_rows(
        splits,
        vocabulary=vocabulary_labels(chosen_vocabulary(labels, rows)) or (),
        tokenizer=None if tokenizer is None else _tokenizer(tokenizer),
        max_length=max_length,
    )
    _print_inspection(found)
    with claim_files((output_file, plot), command="xlgen inspect", overwrite=overwrite) as place:
        if output_file is not None:
            write_json(place(output_file), found.to_dict())
        if plot is not None:
            from ..plots.inspection import plot_inspection

            plot_inspection(found, place(plot), title=source or train_file)


def _read(source: str | None, files: dict[str, str], rows: RowOptions) -> dict[str, Dataset]:
    """The rows of each split. What looks wrong in them is part of the report, so it is not logged as well."""
    from ..data.rows import load_rows, source_splits
    from ..errors import ConfigurationError

    if (source is None) == (not files):
        raise ConfigurationError("Give one source, or --train-file, --validation-file and --test-file.")
    if source is None:
        return {name: load_rows(file, rows, split=name, suspicions=False) for name, file in files.items()}
    names = source_splits(source, rows)
    if not names:
        return {"train": load_rows(source, rows, suspicions=False)}
    return {name: load_rows(source, rows, split=name, suspicions=False) for name in names}


def _tokenizer(name: str) -> PreTrainedTokenizerBase:
    from ..encoders.checkpoints import checkpoint_errors, fetch_checkpoint
    from ..files.tokenizer_checks import try_tokenizer

    with checkpoint_errors(name):
        return try_tokenizer(Path(fetch_checkpoint(name)))


def _print_inspection(found: Inspection) -> None:
    """Print an inspection on stdout as tables."""
    from .console import print_table, results

    names = list(found.splits)
    print_table("Data set", ["", *names], _size_rows(found))
    buckets = [
        [bucket.shots, *(cell for name in names for cell in _bucket_cells(found, name, position))]
        for position, bucket in enumerate(found.splits[names[0]].shots)
    ]
    header = ["training documents", *(part for name in names for part in (f"{name}: labels", "occurrences"))]
    print_table(f"Labels by their documents in {names[0]}", header, buckets)
    shared = [[later, earlier, f"{count:,}"] for later, row in found.shared.items() for earlier, count in row.items()]
    if shared:
        print_table(
            "Texts in two splits (case and punctuation aside)", ["rows of", "that are also in", "rows"], shared
        )
    out = results()
    out.print(f"Labels in all: {found.labels:,}, of them in the vocabulary only: {found.vocabulary:,}")
    out.print(f"Published split: {found.benchmark or 'none of the four of the XLGen paper'}", markup=False)
    if not found.suspicions:
        out.print("Nothing looks wrong.")
    for one in found.suspicions:
        out.print(f"Look at this ({one.kind}): {one.message} {one.advice}", markup=False, soft_wrap=True)


def _size_rows(found: Inspection) -> list[list[str | None]]:
    facts = list(found.splits.values())
    rows: list[list[str | None]] = [
        ["documents", *(f"{one.documents:,}" for one in facts)],
        ["without labels", *(f"{one.without_labels:,}" for one in facts)],
        ["with an empty text", *(f"{one.empty_texts:,}" for one in facts)],
        ["that repeat a text", *(f"{one.repeated_texts:,}" for one in facts)],
        ["different labels", *(f"{one.labels:,}" for one in facts)],
        ["occurrences of labels", *(f"{one.occurrences:,}" for one in facts)],
        ["labels per document", *(_distribution(one.labels_per_document) for one in facts)],
        ["words per text", *(_distribution(one.words) for one in facts)],
    ]
    if any(one.tokens is not None for one in facts):
        rows.append(
            ["tokens per text (sample)", *(None if one.tokens is None else _distribution(one.tokens) for one in facts)]
        )
    if any(one.truncated is not None for one in facts):
        rows.append(["truncated texts", *(None if one.truncated is None else f"{one.truncated:.1%}" for one in facts)])
    return rows


def _distribution(found: Distribution) -> str:
    return f"mean {found.mean:,.2f}, {found.minimum:,} to {found.maximum:,}, median {found.median:,.0f}"


def _bucket_cells(found: Inspection, name: str, position: int) -> tuple[str, str]:
    bucket = found.splits[name].shots[position]
    return f"{bucket.labels:,}", f"{bucket.occurrences:,}"

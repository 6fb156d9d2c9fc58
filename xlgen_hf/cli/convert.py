"""`xlgen convert`: rows from one format into another, split and thinned out on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..data.options import RowOptions
from .rows import chosen_vocabulary, takes_row_options

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["convert"]


@takes_row_options
def convert(
    source: Annotated[
        str, typer.Argument(help="A file, a folder with a file per split or in a known layout, or a Hub data set.")
    ],
    output: Annotated[
        Path,
        typer.Argument(help="A file (.jsonl, .csv, .tsv, also with .gz; .parquet), or a folder for several splits."),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            help="jsonl, csv, tsv, parquet, annif (tables of texts and URIs), annif-documents (a file per text), xc "
            "(sparse text matrix and names), pecos (npz matrix and names).",
            show_default="by the name; jsonl in a folder",
        ),
    ] = None,
    source_split: Annotated[str | None, typer.Option(help="Convert this split of the source only.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split the rows, such as 0.8,0.1,0.1: stratified by labels, rare ones too."),
    ] = None,
    split_names: Annotated[
        str | None, typer.Option(help="Names of the splits, with commas.", show_default="train,validation,test")
    ] = None,
    group_column: Annotated[
        str | None, typer.Option(help="With --split: rows with equal values in this column stay together.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --split and --drop-fraction.")] = 0,
    labels: Annotated[
        str | None, typer.Option(help="Vocabulary whose names are written, too, by formats that list the labels.")
    ] = None,
    remove_labels: Annotated[
        str | None, typer.Option(help="File of label names, one per line, that are removed from all rows.")
    ] = None,
    min_count: Annotated[int, typer.Option(min=0, help="Remove labels that occur in fewer rows than this.")] = 0,
    drop_fraction: Annotated[
        float, typer.Option(min=0, max=0.999, help="Drop this fraction of each row's labels at random (PU training).")
    ] = 0.0,
    join_lines: Annotated[
        bool, typer.Option("--join-lines", help="Replace line breaks and tabs in texts by a space.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")] = False,
    *,
    rows: RowOptions,
) -> None:
    """Convert rows between formats, split them, remove labels. What a format cannot hold is refused by name."""
    from ..data.conversion import format_of, write_rows
    from ..data.suspicion import label_counts
    from ..labels.vocabulary import Vocabulary
    from .console import print_table, results

    format_of(output, to)  # before the rows are read
    parts = _read(source, source_split, rows, group_column)
    unwanted = _unwanted(parts.values(), remove_labels, min_count)
    parts = {name: _changed(part, unwanted, drop_fraction, seed) for name, part in parts.items()}
    if split is not None:
        parts = _split(parts, split, split_names, group_column, seed)
    if group_column is not None and group_column not in (rows.id_column, *rows.keep_columns):
        parts = {name: part.remove_columns(group_column) for name, part in parts.items()}
    if join_lines:
        parts = {name: _joined(part) for name, part in parts.items()}
    chosen = chosen_vocabulary(labels, rows)
    vocabulary = chosen.ids if isinstance(chosen, Vocabulary) else chosen or ()
    files = write_rows(parts, output, to, vocabulary=vocabulary, overwrite=overwrite)
    results().print(f"Written to {output}, files: {len(files):,}", markup=False, soft_wrap=True)
    shown = [[name or "all", f"{len(part):,}", f"{len(label_counts(part)):,}"] for name, part in parts.items()]
    print_table(None, ["split", "rows", "different labels"], shown)


def _read(source: str, source_split: str | None, rows: RowOptions, group_column: str | None) -> dict[str, Dataset]:
    from ..data.rows import load_rows, source_splits

    if group_column is not None and group_column not in rows.keep_columns and group_column != rows.id_column:
        rows = rows.changed(keep_columns=(*rows.keep_columns, group_column))
    names = source_splits(source, rows)
    if source_split is not None or not names:
        return {source_split or "": load_rows(source, rows, split=source_split, allow_empty_text=True)}
    return {name: load_rows(source, rows, split=name, allow_empty_text=True) for name in names}


def _unwanted(parts: Iterable[Dataset], remove: str | None, min_count: int) -> set[str]:
    """The labels that are removed; how often a label occurs is counted over all splits."""
    from ..data.rows import load_label_names
    from ..data.suspicion import label_counts

    unwanted = set() if remove is None else set(load_label_names(remove))
    if min_count > 1:
        counts = sum((Counter(label_counts(part)) for part in parts), Counter[str]())
        unwanted |= {name for name, count in counts.items() if count < min_count}
    return unwanted


def _changed(rows: Dataset, unwanted: set[str], drop_fraction: float, seed: int) -> Dataset:
    from ..data.transforms import drop_labels, remove_labels

    if unwanted:
        rows = remove_labels(rows, unwanted)
    return drop_labels(rows, drop_fraction, seed) if drop_fraction else rows


def _split(
    parts: dict[str, Dataset], fractions: str, names: str | None, group_column: str | None, seed: int
) -> dict[str, Dataset]:
    from ..data.splitting import SPLIT_NAMES_BY_NUMBER, split_rows
    from ..errors import ConfigurationError

    if len(parts) > 1:
        raise ConfigurationError(
            f"--split divides one set of rows, the source has {sorted(parts)}; add --source-split."
        )
    try:
        numbers = [float(part) for part in fractions.split(",")]
    except ValueError as err:
        raise typer.BadParameter(f"{fractions!r} is not a list of fractions such as 0.8,0.1,0.1.") from err
    given = [name.strip() for name in names.split(",")] if names else SPLIT_NAMES_BY_NUMBER.get(len(numbers), ())
    if len(given) != len(numbers) or len(set(given)) != len(given):
        raise ConfigurationError(f"--split has {len(numbers)} fractions; give as many different --split-names.")
    found = split_rows(next(iter(parts.values())), numbers, group_column=group_column, seed=seed)
    return dict(zip(given, found, strict=True))


def _joined(rows: Dataset) -> Dataset:
    from ..data.conversion import join_lines
    from .console import messages

    joined, changed = join_lines(rows)
    if changed:
        messages().print(f"Line breaks and tabs of {changed:,} texts became spaces.")
    return joined

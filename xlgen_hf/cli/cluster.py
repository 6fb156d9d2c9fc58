"""`xlgen cluster`: label space and label clusters of a training set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..data.blocks import each_value
from ..data.options import RowOptions
from ..settings import BATCH_SIZE, DEFAULT_BACKBONE, ClusterSettings, DecodeOrder, EncoderSettings, LabelSettings
from .options import Device, Labels, Overwrite, given_settings, takes_settings
from .rows import chosen_vocabulary, takes_row_options

if TYPE_CHECKING:
    from ..labels.clusters import LabelClusters
    from ..labels.space import LabelSpace
    from ..labels.vocabulary import Vocabulary

__all__ = ["cluster"]

_SHOWN = 15  # clusters in the printed table


@takes_row_options(leave_out=("id_column", "keep_columns"))
@takes_settings(
    ClusterSettings, EncoderSettings, LabelSettings, group="Clusters", leave_out=("query_prompt", "trim_vocabulary")
)
def cluster(
    context: typer.Context,
    train_file: Annotated[
        str,
        typer.Option(
            help="Training rows with `text` and `labels`: JSON Lines (also .gz), CSV, Parquet, or a Hub data set.",
            rich_help_panel="Data",
        ),
    ],
    output_dir: Annotated[
        Path,
        typer.Option(file_okay=False, help="Folder to write label space and clusters into.", rich_help_panel="Data"),
    ],
    labels: Labels = None,
    encoder: Annotated[
        str,
        typer.Option(
            help="Encoder or seq2seq checkpoint that embeds texts and label names: folder, name or Hub id.",
            rich_help_panel="Clusters",
        ),
    ] = DEFAULT_BACKBONE,
    cluster_by: Annotated[
        Literal["embeddings", "hierarchy"],
        typer.Option(
            help="What clusters are made by: embeddings, or the broader concepts of the vocabulary.",
            rich_help_panel="Clusters",
        ),
    ] = "embeddings",
    max_length: Annotated[int, typer.Option(min=1, help="Tokens of a text that the encoder reads.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts that are encoded at once.")] = BATCH_SIZE,
    device: Device = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where embeddings are kept; the same command continues there.",
            show_default="embeddings in the output folder",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of k-means, of the map, and of the order `shuffle`.")
    ] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Draw a map of the labels with the names of clusters: .png, .svg or .pdf.")
    ] = None,
    overwrite: Overwrite = False,
    *,
    rows: RowOptions,
    passage_prompt: str | None,
    num_clusters: int | None,
    name_weight: float,
    decode_order: DecodeOrder,
) -> None:
    """Group related labels into clusters; writes label_space.json and label_clusters.json, .safetensors."""
    from ..data.rows import load_rows
    from ..files.outputs import claim_files, claim_folder, refuse_existing
    from ..labels.clustering import fit_clusters
    from ..labels.space import LabelSpace
    from ..labels.vocabulary import vocabulary_labels
    from ..plots.clusters import plot_clusters
    from ..plots.style import check_picture

    if plot is not None:
        check_picture(plot)
        refuse_existing(plot, overwrite=overwrite)
    chosen = chosen_vocabulary(labels, rows)
    hierarchy = _hierarchy(chosen) if cluster_by == "hierarchy" else None
    documents = load_rows(train_file, rows, split="train")
    label_lists = list(each_value(documents, "labels"))
    space = LabelSpace.from_label_lists(label_lists, vocabulary_labels(chosen), decode_order, seed)
    if plot is not None:
        _check_labels_for_map(len(space))
    with claim_folder(output_dir, command="xlgen cluster", settings=given_settings(context), overwrite=overwrite):
        clusters = fit_clusters(
            space,
            list(each_value(documents, "text")),
            [space.encode(names) for names in label_lists],
            encoder,
            passage_prompt=passage_prompt,
            num_clusters=num_clusters,
            name_weight=name_weight,
            hierarchy=hierarchy,
            seed=seed,
            cache_dir=cache_dir or output_dir / "embeddings",
            max_length=max_length,
            batch_size=batch_size,
            device=device,
        )
        _save(space, clusters, output_dir)
    _print_summary(space, clusters, output_dir)
    with claim_files([plot], command="xlgen cluster", overwrite=overwrite) as place:
        if plot is not None:
            plot_clusters(clusters, place(plot), title=f"{clusters.num_clusters} clusters of {len(space):,} labels")


def _save(space: LabelSpace, clusters: LabelClusters, folder: Path) -> None:
    """Labels and their clusters at one moment."""
    from ..files.saving import replace_files

    with replace_files(folder) as aside:
        space.save(aside)
        clusters.save(aside)


def _check_labels_for_map(number: int) -> None:
    """Refuse to draw a map of few labels, before texts are embedded."""
    from ..errors import ConfigurationError
    from ..labels.clustering import FEWEST_ON_MAP

    if number < FEWEST_ON_MAP:
        raise ConfigurationError(
            f"--plot: there are {number} labels, and a map needs {FEWEST_ON_MAP}. Leave --plot out; the table that is "
            "printed names the clusters."
        )


def _hierarchy(vocabulary: Vocabulary | list[str] | None) -> Vocabulary:
    from ..errors import ConfigurationError
    from ..labels.vocabulary import Vocabulary

    if not isinstance(vocabulary, Vocabulary):
        raise ConfigurationError("--cluster-by hierarchy needs concepts; give --vocabulary.")
    return vocabulary


def _print_summary(space: LabelSpace, clusters: LabelClusters, folder: Path) -> None:
    import numpy as np
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    sizes = clusters.sizes()
    occurrences = np.bincount(clusters.assignment, weights=space.counts, minlength=clusters.num_clusters)
    table = Table(title=f"{clusters.num_clusters} clusters of {len(space)} labels")
    table.add_column("id", justify="right")
    table.add_column("most frequent labels")
    table.add_column("labels", justify="right")
    table.add_column("occurrences", justify="right")
    for number, name in enumerate(clusters.names[:_SHOWN]):
        table.add_row(str(number), escape(name), str(sizes[number]), f"{occurrences[number]:.0f}")
    if clusters.num_clusters > _SHOWN:
        rest = slice(_SHOWN, None)
        label = f"{clusters.num_clusters - _SHOWN} more clusters"
        table.add_row("…", label, str(sizes[rest].sum()), f"{occurrences[rest].sum():.0f}")
    console = Console()
    console.print(table)
    console.print(f"Labels without training rows: {int((space.counts == 0).sum())}")
    console.print(f"Labels in a cluster: {sizes.min()} to {sizes.max()}, median {np.median(sizes):.0f}")
    console.print(f"Written to {folder}", markup=False, soft_wrap=True)

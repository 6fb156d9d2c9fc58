"""`xlgen cluster`: label space and label clusters of a training set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ..labels.clusters import LabelClusters
    from ..labels.space import LabelSpace

__all__ = ["cluster"]

_SHOWN = 15  # clusters in the printed table

# The same words as labels.DecodeOrder, which is not imported because it would bring numpy into `xlgen --help`.
_DecodeOrder = Literal["freq_forward", "freq_backward", "alphabet", "shuffle"]


def cluster(
    train_file: Annotated[
        str,
        typer.Option(
            help="Training rows with `text` and `labels`: JSON Lines (also .gz), CSV, Parquet, or a Hub data set."
        ),
    ],
    output_dir: Annotated[Path, typer.Option(help="Folder to write label space and clusters into.")],
    encoder: Annotated[
        str,
        typer.Option(help="Encoder or seq2seq checkpoint that embeds texts and label names: folder, name or Hub id."),
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    num_clusters: Annotated[
        int | None,
        typer.Option(min=1, help="Number of clusters (30 in the paper).", show_default="square root of the labels"),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Vocabulary, a name a line or a Hub data set; may hold labels never seen."),
    ] = None,
    name_weight: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of a label's name in its embedding: 0 documents alone, 1 name alone."),
    ] = 0.0,
    decode_order: Annotated[
        _DecodeOrder, typer.Option(help="Order in which a text's labels will be generated.")
    ] = "freq_forward",
    max_length: Annotated[int, typer.Option(min=1, help="Tokens of a text that the encoder reads.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts that are encoded at once.")] = 64,
    device: Annotated[
        str | None, typer.Option(help="Where to compute, e.g. cpu or cuda:0.", show_default="a GPU where there is one")
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where embeddings are kept; a run goes on there.", show_default="embeddings in the output folder"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of k-means and of the order `shuffle`.")] = 0,
) -> None:
    """Group related labels into clusters; writes label_space.json and label_clusters.json, .safetensors."""
    from ..data.rows import load_label_names, load_rows
    from ..labels.clustering import fit_clusters
    from ..labels.space import LabelSpace

    vocabulary = load_label_names(labels) if labels is not None else None
    rows = load_rows(train_file, split="train")
    label_lists = list(rows["labels"])
    space = LabelSpace.from_label_lists(label_lists, vocabulary, decode_order, seed)
    clusters = fit_clusters(
        space,
        list(rows["text"]),
        [space.encode(names) for names in label_lists],
        encoder,
        num_clusters=num_clusters,
        name_weight=name_weight,
        seed=seed,
        cache_dir=cache_dir or output_dir / "embeddings",
        max_length=max_length,
        batch_size=batch_size,
        device=device,
    )
    space.save(output_dir)
    clusters.save(output_dir)
    _print_summary(space, clusters, output_dir)


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

"""`xlgen predict`: apply a model to texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["predict"]

_CHUNK = 4096  # texts that are sorted by length together; rows are written after each


def predict(
    model: Annotated[str, typer.Option(help="Folder of a trained model or adapter, or its id on the Hub.")],
    input_file: Annotated[str, typer.Option(help="Rows with `text`: JSON Lines, CSV, Parquet or a Hub data set.")],
    output_file: Annotated[
        Path | None, typer.Option(help="JSON Lines to write, a row a text.", show_default="standard output")
    ] = None,
    num_beams: Annotated[int, typer.Option(min=1, help="Beams of a text; 1 is greedy search.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in a batch.")] = 64,
    min_labels: Annotated[
        int | None, typer.Option(min=0, help="Least labels of a text.", show_default="the model's")
    ] = None,
    max_labels: Annotated[
        int | None, typer.Option(min=1, help="Most labels of a text.", show_default="the model's")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...", show_default="a GPU where there is one")] = None,
) -> None:
    """Write labels, scores and clusters of each text, labels sorted by score."""
    import json

    from ..data import load_rows, write_jsonl
    from ..loading import load_model

    rows = load_rows(input_file, split="test", require_labels=False)
    loaded, processor = load_model(model, device=_device(device))
    options = {"num_beams": num_beams, "batch_size": batch_size, "min_labels": min_labels, "max_labels": max_labels}
    predictions = _predictions(loaded, processor, rows, options)
    if output_file is not None:
        write_jsonl(output_file, predictions)
        return
    for prediction in predictions:
        typer.echo(json.dumps(prediction, ensure_ascii=False))


def _predictions(model: Any, processor: Any, rows: Dataset, options: dict[str, Any]) -> Iterator[dict[str, list]]:
    """Predict chunk by chunk, in the order of the rows."""
    from tqdm.auto import tqdm

    with tqdm(total=len(rows), unit="text", disable=None) as bar:
        for start in range(0, len(rows), _CHUNK):
            texts = rows[start : start + _CHUNK]["text"]
            for prediction in model.predict(texts, processor, **options):
                yield prediction.to_dict()
                bar.update()


def _device(wanted: str | None) -> str:
    import torch

    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")

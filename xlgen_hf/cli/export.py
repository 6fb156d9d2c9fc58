"""`xlgen export`: a model or an index that predicts faster on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..settings import Precision
from .console import print_written
from .options import Overwrite, given_settings

__all__ = ["export"]


def export(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Folder of a model, an adapter or an index, or its id on the Hub.")],
    output_dir: Annotated[Path, typer.Option(file_okay=False, help="Folder for the exported model.")],
    precision: Annotated[
        Precision,
        typer.Option(help="Weights of matrix products: int8, or float32, which predicts what the model predicts."),
    ] = "int8",
    overwrite: Overwrite = False,
) -> None:
    """Write a model whose encoder and decoder are graphs in ONNX (the extra `export`).

    Every command that predicts takes the folder. It needs onnxruntime (the extra `onnx`), computes on the CPU, and is
    neither trained nor exported again.
    """
    from ..exporting import export_folder
    from ..files.outputs import claim_folder, refuse_source

    refuse_source(output_dir, model)
    with claim_folder(output_dir, command="xlgen export", settings=given_settings(context), overwrite=overwrite):
        export_folder(model, output_dir, precision)
    print_written(output_dir, "Model")

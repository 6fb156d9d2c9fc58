"""`xlgen merge`: an adapter and its base become one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Overwrite, given_settings

__all__ = ["merge"]


def merge(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Folder of an adapter, or its id on the Hub.")],
    output_dir: Annotated[Path, typer.Option(file_okay=False, help="Folder for the merged model.")],
    overwrite: Overwrite = False,
) -> None:
    """Write a model that needs neither the adapter nor peft, with the same predictions."""
    from ..errors import ConfigurationError
    from ..files.adapter_base import is_adapter
    from ..files.outputs import claim_folder, refuse_source
    from ..files.saving import local_model, replace_files
    from ..files.training_report import read_report, write_report
    from ..hub.local_cards import write_local_card
    from ..loading import load_model
    from .console import results

    refuse_source(output_dir, model)
    folder = local_model(model, {})
    if not is_adapter(folder):
        raise ConfigurationError(f"{model} is not an adapter, so there is nothing to merge. Use it as it is.")
    with claim_folder(output_dir, command="xlgen merge", settings=given_settings(context), overwrite=overwrite):
        merged, processor = load_model(str(folder))
        with replace_files(output_dir) as aside:
            merged.save_pretrained(aside)
            processor.save_pretrained(aside)
            if report := read_report(folder):
                write_report(aside, report)
        write_local_card(output_dir)
    results().print(f"Model written to {output_dir}", markup=False, soft_wrap=True)

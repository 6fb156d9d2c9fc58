"""`xlgen quickstart`: the main job on bundled real data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from ..settings import Variant
from .options import Overwrite

if TYPE_CHECKING:
    from ..quickstart import QuickstartReport

__all__ = ["NEXT_COMMANDS", "quickstart"]

NEXT_COMMANDS = (
    "xlgen train --train-file train.jsonl --validation-file validation.jsonl --output-dir my-model",
    "xlgen predict --model my-model --input-file test.jsonl --output-file predictions.jsonl",
    "xlgen evaluate --predictions predictions.jsonl --references test.jsonl --train-file train.jsonl",
)
"""What a person runs next, on data of their own."""


def quickstart(
    output_dir: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for models, predictions, scores.png and report.json.")
    ] = Path("xlgen-quickstart"),
    variant: Annotated[Variant, typer.Option(help="The variant to train.")] = "rcl",
    all_variants: Annotated[bool, typer.Option("--all-variants", help="Train base, bcl, mcg and rcl.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of clusters and training.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Train a model on bundled titles of library holdings, and compare it with two baselines.

    It takes minutes on two cores and needs no network.
    """
    from ..files.outputs import claim_folder
    from ..quickstart import run_quickstart

    with claim_folder(output_dir, command="xlgen quickstart", overwrite=overwrite):
        report = run_quickstart(output_dir, get_args(Variant) if all_variants else (variant,), seed)
    _print_report(report)


def _print_report(report: QuickstartReport) -> None:
    from ..experiments.plots import system_title
    from ..quickstart import KEY_SCORES
    from .console import print_table, results

    data, out = report["data"], results()
    rows = [(system_title(name), *(scores[key] for key in KEY_SCORES)) for name, scores in report["systems"].items()]
    title = f"{data['test']} test titles, {data['labels']} labels, {data['train']} training titles"
    print_table(title, ("system", "micro F1", "macro F1", "0-shot macro F1", "1-shot macro F1"), rows)
    trained = [name for name in report["examples"] if name.startswith("xlgen-")]
    for name in trained:
        out.print(f"{system_title(name)} predicts:", style="bold")
        for example in report["examples"][name]:
            predicted = example["predicted"]
            scored = zip(predicted["labels"], predicted["scores"], strict=True)
            out.print(f"  {example['text']}", markup=False)
            out.print(f"    predicted: {', '.join(f'{label} ({score:.2f})' for label, score in scored)}", markup=False)
            out.print(f"    true: {', '.join(example['labels'])}", markup=False)
    out.print("Written:", style="bold")
    for name, path in report["files"].items():
        out.print(f"  {name}: {path}", markup=False, soft_wrap=True)
    out.print(f"{report['seconds']['all']:.0f} seconds in all. Next, with rows of your own:", style="bold")
    for command in NEXT_COMMANDS:
        out.print(f"  {command}", markup=False, soft_wrap=True)

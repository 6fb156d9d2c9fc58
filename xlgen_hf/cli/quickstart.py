"""`xlgen quickstart`: the main job on bundled real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

__all__ = ["quickstart"]

_TITLES = {"most-frequent": "most frequent labels", "base": "XLGen-base", "bcl": "XLGen-BCL", "mcg": "XLGen-MCG"}


def quickstart(
    output_dir: Annotated[Path, typer.Option(help="Folder for models, predictions and report.json.")] = Path(
        "xlgen-quickstart"
    ),
    variant: Annotated[Literal["base", "bcl", "mcg"], typer.Option(help="The variant to train.")] = "bcl",
    all_variants: Annotated[bool, typer.Option("--all-variants", help="Train base, bcl and mcg.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of clusters and training.")] = 0,
) -> None:
    """Train, score and try a model on bundled titles of library holdings: minutes on two cores, no network needed."""
    from ..quickstart import run_quickstart

    report = run_quickstart(output_dir, ("base", "bcl", "mcg") if all_variants else (variant,), seed)
    _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    from ..quickstart import KEY_SCORES
    from .console import print_table, results

    data, out = report["data"], results()
    rows = [(_TITLES[name], *(scores[key] for key in KEY_SCORES)) for name, scores in report["systems"].items()]
    title = f"{data['test']} test titles, {data['labels']} labels, {data['train']} training titles"
    print_table(title, ("system", "micro F1", "macro F1", "0-shot macro F1", "1-shot macro F1"), rows)
    for name, examples in report["examples"].items():
        out.print(f"{_TITLES[name]} predicts:", style="bold")
        for example in examples:
            predicted = example["predicted"]
            scored = (
                f"{label} ({score:.2f})" for label, score in zip(predicted["labels"], predicted["scores"], strict=True)
            )
            _print_lines(
                out,
                example["text"],
                {
                    "predicted": ", ".join(scored),
                    "true": ", ".join(example["labels"]),
                    "clusters": "; ".join(predicted["clusters"]),
                },
            )
    out.print("Written:", style="bold")
    for name, path in report["files"].items():
        out.print(f"  {name}: {path}", markup=False, soft_wrap=True)
    out.print(f"{report['seconds']['all']:.0f} seconds in all.")


def _print_lines(out: Any, title: str, lines: dict[str, str]) -> None:
    out.print(f"  {title}", markup=False)
    for name, line in lines.items():
        if line:
            out.print(f"    {name}: {line}", markup=False)

"""`xlgen tag`: labels for a text or a few, for people to read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .answering import chosen_rule, load_on_device
from .options import Device, UsageProblem

if TYPE_CHECKING:
    from ..prediction.evidence import ExplainedText

__all__ = ["tag"]

_STDIN = "-"
_TEXT_SHOWN = 100
# Evidence that is shown -> what people read. What is left out is the sum of others, or a place in an order.
_SHOWN = {
    "names": "name",
    "lexical_names": "spelling of the name",
    "neighbors": "similar texts",
    "lexical_neighbors": "texts spelled alike",
    "label_trees": "label trees",
    "candidate_head": "candidate head",
    "teacher_forced": "generator",
}
_LEAST_SHOWN = 0.005  # which reads 0.00 otherwise


def tag(
    model: Annotated[
        str, typer.Option(help="Folder of a model, adapter, hybrid, index or label trees, or its Hub id.")
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts; none or - reads one per line from stdin.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Show this many labels for each text.")] = None,
    threshold: Annotated[
        str | None, typer.Option(help="Show the labels with at least this score, from 0 to 1, or auto.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON Lines, with all evidence.")] = False,
    device: Device = None,
) -> None:
    """Print the labels of one text, or a few, with scores and what speaks for each label.

    For files use `xlgen predict`.

    \b
    xlgen tag "Bread and cheese : recipes from the Alps" --model my-index
    """  # noqa: D301  \b keeps the line of the example apart
    wanted = _texts(texts or [])  # before anything heavy is loaded
    from transformers.utils import logging

    from ..prediction.evidence import explain

    logging.disable_progress_bar()  # of weights that load: the answer is all there is to see
    predictor = load_on_device(model, device)
    answers = explain(predictor, wanted, rule=chosen_rule(predictor, top_k, threshold))
    for number, answer in enumerate(answers):
        if json:
            _print_json(answer)
            continue
        if len(answers) > 1:
            typer.echo(f"{'' if number == 0 else chr(10)}{_shortened(answer.text)}")
        _print_labels(answer)


def _texts(given: list[str]) -> list[str]:
    """The texts to answer: those of the command line, or the lines of stdin."""
    if given and given != [_STDIN]:
        return given
    if not given and sys.stdin.isatty():
        raise UsageProblem("Give a text in quotes, or pipe texts into the command, one per line.")
    lines = [line.strip() for line in sys.stdin]
    texts = [line for line in lines if line]
    if not texts:
        raise UsageProblem("There is no text on stdin; give one per line.")
    return texts


def _print_json(answer: ExplainedText) -> None:
    import json

    typer.echo(json.dumps(answer.to_dict(), ensure_ascii=False))


def _print_labels(answer: ExplainedText) -> None:
    """Print a line for each label: score, name, evidence."""
    found = answer.prediction
    if not found.labels:
        typer.echo("  no label")
    width = max(map(len, found.labels), default=0)
    for label, score, rows, evidence in zip(
        found.labels, found.scores, answer.training_rows, answer.evidence, strict=True
    ):
        reasons = [f"{shown} {evidence[name]:.2f}" for name, shown in _SHOWN.items() if _speaks(evidence, name)]
        seen = "no training row" if not rows else f"{rows:,} training row{'s' if rows > 1 else ''}"
        typer.echo(f"  {score:.2f}  {label:<{width}}  {', '.join([*reasons, seen])}")
    if found.clusters:
        typer.echo(f"  guided by the clusters: {'; '.join(found.clusters)}")


def _speaks(evidence: dict[str, float], name: str) -> bool:
    return evidence.get(name, 0.0) >= _LEAST_SHOWN


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_SHOWN else f"{line[: _TEXT_SHOWN - 3]}..."

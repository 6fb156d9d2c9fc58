"""`xlgen tag`: labels for a text or a few, for people to read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .answering import chosen_rule, load_on_device
from .options import Device, DType, PredictWith, UsageProblem

if TYPE_CHECKING:
    from ..prediction.evidence import LabelEvidence
    from ..prediction.results import LabelPrediction

__all__ = ["tag"]

_STDIN = "-"
_TEXT_SHOWN = 100
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
    json: Annotated[bool, typer.Option("--json", help="Print JSON Lines, with concepts and all evidence.")] = False,
    predict_with: PredictWith = None,
    device: Device = None,
    dtype: DType = None,
) -> None:
    """Print the labels of one text, or a few, with scores and what speaks for each label.

    For files use `xlgen predict`.

    \b
    xlgen tag "Bread and cheese : recipes from the Alps" --model my-index
    """  # noqa: D301  \b keeps the line of the example apart
    wanted = _texts(texts or [])  # before anything heavy is loaded
    predictor = load_on_device(model, device, predict_with, dtype, quiet=True)  # the answer is all there is to see
    answers = predictor.predict(wanted, rule=chosen_rule(predictor, top_k, threshold), evidence=True, concepts=json)
    for number, (text, answer) in enumerate(zip(wanted, answers, strict=True)):
        if json:
            _print_json(text, answer)
            continue
        if len(answers) > 1:
            typer.echo(f"{'' if number == 0 else chr(10)}{_shortened(text)}")
        _print_labels(answer)


def _texts(given: list[str]) -> list[str]:
    """The texts to answer: those of the command line, or the lines of stdin."""
    if given and given != [_STDIN]:
        return given
    if not given and sys.stdin.isatty():
        raise UsageProblem("Give a text in quotes, or pipe texts into the command, one per line.")
    try:
        lines = [line.strip().removeprefix("\ufeff") for line in sys.stdin]
    except UnicodeDecodeError as err:
        advice = "Convert them, or label a file with `xlgen predict --encoding ...`."
        raise UsageProblem(f"The texts on stdin are not {err.encoding.upper()} ({err.reason}). {advice}") from err
    texts = [line for line in lines if line]
    if not texts:
        raise UsageProblem("There is no text on stdin; give one per line.")
    return texts


def _print_json(text: str, answer: LabelPrediction) -> None:
    import json

    typer.echo(json.dumps({"text": text, **answer.to_dict()}, ensure_ascii=False))


def _print_labels(answer: LabelPrediction) -> None:
    """Print each label: score, name, what sources say of it; below, the words that match, and training texts."""
    from ..prediction.evidence import SCORE_NAMES

    if not answer.labels:
        typer.echo("  no label")
    labels = [" ".join(label.split()) for label in answer.labels]  # in one line each
    width = max(map(len, labels), default=0)
    for label, score, evidence in zip(labels, answer.scores, answer.evidence or (), strict=True):
        spoken = {name: shown for name, shown in SCORE_NAMES.items() if _speaks(evidence, name)}
        said = [f"{shown} {evidence.scores[name]:.2f}" for name, shown in spoken.items()]
        rows = evidence.training_rows
        seen = "no training row" if not rows else f"{rows:,} training row{'s' if rows > 1 else ''}"
        typer.echo(f"  {score:.2f}  {label:<{width}}  {', '.join([*said, seen])}")
        for line in (_matches(evidence), _documents(evidence)):
            if line:
                typer.echo(f"        {line}")
    if answer.clusters:
        typer.echo(f"  guided by the clusters: {'; '.join(answer.clusters)}")
    if answer.labels and answer.expected_f1 is not None and answer.best_label_probability is not None:
        right = f"the first label is right with probability {answer.best_label_probability:.2f}"
        typer.echo(f"  expected F1 {answer.expected_f1:.2f}; {right}")


def _speaks(evidence: LabelEvidence, name: str) -> bool:
    return evidence.scores.get(name, 0.0) >= _LEAST_SHOWN


def _matches(evidence: LabelEvidence) -> str:
    """Words of the text that match names of the label, each once; the names where they are aliases."""
    words: dict[str, list[str]] = {}
    for one in evidence.names:
        known = words.setdefault(one.name, [])
        known += [word for word in map(_shortened, one.words) if not any(word in other for other in known)]
    found = [
        f"{', '.join(matched)}{'' if name == evidence.label else f' (as {name!r})'}"
        for name, matched in words.items()
        if matched
    ]
    return f"words: {'; '.join(found)}" if found else ""


def _documents(evidence: LabelEvidence) -> str:
    """Training texts by id, with their similarity, and their beginning where the index has it."""
    shown = [
        f"{one.id} ({max(one.similarity.values()):.2f}{f', {one.beginning!r}' if one.beginning else ''})"
        for one in evidence.documents
    ]
    return f"training texts: {', '.join(shown)}" if shown else ""


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_SHOWN else f"{line[: _TEXT_SHOWN - 3]}..."

"""A page to try the metric: paste predictions and references, read the scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import evaluate

if TYPE_CHECKING:
    import gradio as gr

_SEPARATOR = "|"
_PREDICTIONS = "physics | optics\ncooking | baking | sourdough\n"
_REFERENCES = "physics | lasers\ncooking | sourdough\n"
_COUNTS = "physics | 40\noptics | 1\ncooking | 12\nbaking | 3\nlasers | 1\n"

_INTRODUCTION = """# xmc_f1
Scores of extreme multi-label classification. Write a document a line, its labels with `|` between them, predictions
with the best label first; an empty line is a document without labels. With training counts the page also scores the
labels that training never saw (`0_shot_...`) or saw once (`1_shot_...`). The card next to this file has every formula.
"""

metric = evaluate.load(str(Path(__file__).with_name("xmc_f1.py")), keep_in_memory=True)


def parse_rows(text: str) -> list[list[str]]:
    """Read a list of labels from each line; the line break at the end starts no further document."""
    lines = text.removesuffix("\n").split("\n") if text else []
    return [[label.strip() for label in line.split(_SEPARATOR) if label.strip()] for line in lines]


def parse_counts(text: str) -> dict[str, int] | None:
    """Read a label and its number of training documents from each line; None without lines.

    Raises:
        ValueError: naming the first line that is none.
    """
    counts = {}
    for number, line in enumerate(text.splitlines(), 1):
        label, separator, count = (part.strip() for part in line.rpartition(_SEPARATOR))
        if not line.strip():
            continue
        if not separator or not label or not count.isdecimal():
            raise ValueError(f"Training counts, line {number}: {line!r} is not of the form `label {_SEPARATOR} 12`.")
        counts[label] = int(count)
    return counts or None


def score(predictions: str, references: str, train_counts: str) -> list[list[str | float]]:
    """Score what was typed in.

    Returns:
        Rows of score name and value.

    Raises:
        ValueError: for text that cannot be scored.
    """
    counts = parse_counts(train_counts)
    scores = metric.compute(
        predictions=parse_rows(predictions), references=parse_rows(references), train_label_counts=counts
    )
    return [[name, round(value, 4)] for name, value in scores.items()]


def build() -> gr.Blocks:
    """The page."""
    import gradio as gr

    def answer(predictions: str, references: str, train_counts: str) -> list[list[str | float]]:
        try:
            return score(predictions, references, train_counts)
        except ValueError as err:
            raise gr.Error(str(err), print_exception=False) from err

    with gr.Blocks(title="xmc_f1") as page:
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            predictions = gr.Textbox(_PREDICTIONS, lines=8, label="Predictions, best label first")
            references = gr.Textbox(_REFERENCES, lines=8, label="References")
            counts = gr.Textbox(_COUNTS, lines=8, label="Training documents of each label (may be empty)")
        button = gr.Button("Score", variant="primary")
        table = gr.Dataframe(headers=["score", "value"], datatype=["str", "number"], label="Scores", interactive=False)
        inputs = [predictions, references, counts]
        # The metric holds the rows of one evaluation, so requests are answered one after the other.
        one_by_one = {"concurrency_limit": 1, "concurrency_id": "metric"}
        button.click(answer, inputs, table, api_name="score", **one_by_one)
        page.load(answer, inputs, table, api_visibility="private", **one_by_one)
    return page


if __name__ == "__main__":
    build().launch()

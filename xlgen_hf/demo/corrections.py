"""Corrections that people make on the page, as rows for `xlgen update --add-rows`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from ..errors import DataError
from ..files.serialization import JSON, parse_json
from ..labels.space import LabelSpace
from ..serving.service import Service
from .rendering import escape, isolated

__all__ = ["CorrectedRow", "correction", "saved_message"]

_MOST_LABELS = 1000
_LONGEST = 500  # characters of a label


class CorrectedRow(TypedDict):
    """A text and its right labels."""

    text: str
    labels: list[str]


def correction(text: str, missing: Iterable[str], decisions: str) -> CorrectedRow:
    """The row of a text: the labels that were accepted, and those that were added.

    Args:
        text: the text; "" if nothing was asked.
        missing: labels that the prediction lacked.
        decisions: JSON of `accept` or `reject` by label, as a browser sends it, so it may be anything.

    Raises:
        DataError: if there is no text, no decision, or something else was sent.
    """
    if not text:
        raise DataError("There is nothing to save yet; press “Predict” first.")
    decided = _decided(decisions)
    accepted = [label for label, decision in decided.items() if decision == "accept"]
    labels = list(dict.fromkeys(label.strip() for label in (*accepted, *missing) if label.strip()))
    if not labels and "reject" not in decided.values():
        raise DataError("No label was accepted, rejected or added, so there is nothing to save.")
    if len(labels) > _MOST_LABELS or max(map(len, labels), default=0) > _LONGEST:
        raise DataError(f"At most {_MOST_LABELS} labels of {_LONGEST} characters can be saved.")
    return {"text": text, "labels": labels}


def _decided(decisions: str) -> dict[str, JSON]:
    try:
        found = parse_json(decisions)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(one in ("accept", "reject") for one in found.values()):
        raise DataError("The decisions are not `accept` or `reject` for each label; load the page again.")
    return found


def saved_message(row: CorrectedRow, service: Service) -> str:
    """HTML of what was saved, and what `xlgen update` has to be told about labels that a model does not have."""
    spaces: list[LabelSpace] = [model.current.predictor.label_space for model in service.models.values()]
    new = [label for label in row["labels"] if not all(label in space for space in spaces)]
    option = escape("(`xlgen update --unknown-labels add`)")
    told = f" Not a label of every model yet: {'; '.join(map(isolated, new))} {option}." if new else ""
    labels = "; ".join(map(isolated, row["labels"])) or "no label is right"
    return f"Saved: {labels}.{told}"

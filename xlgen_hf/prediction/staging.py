"""Novel labels collected from predictions: how many texts they were spelled for, and examples of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TypedDict

from ..files.json_lines import read_jsonl, write_jsonl
from ..files.schema import Fields, integer, number, string, strings
from .results import LabelPrediction

__all__ = ["StagedLabel", "StagedLabels"]

_EXAMPLES = 3  # texts of a label
_LONGEST = 300  # characters of one


class StagedLabel(TypedDict):
    """A name that is not a label.

    Attributes:
        label: the name.
        count: texts that it was spelled for.
        score: its highest probability, in [0, 1].
        nearest: the label whose spelling is most like it.
        examples: the first texts, shortened.
        texts: digests of all texts, so that a text that is predicted again counts once.
    """

    label: str
    count: int
    score: float
    nearest: str
    examples: list[str]
    texts: list[str]


_FORM = Fields[StagedLabel](
    {
        "label": string(visible=True),
        "count": integer(minimum=1),
        "score": number(minimum=0, maximum=1),
        "nearest": string(),
        "examples": strings(),
        "texts": strings(unique=True),
    }
)


class StagedLabels:
    """The novel labels of predictions, collected in a file of JSON Lines, the most frequent first.

    Args:
        path: the file; what it holds is kept, and counted on.

    Raises:
        ModelFolderError: if the file is there and holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._found: dict[str, StagedLabel] = {}
        self._texts: dict[str, set[str]] = {}  # those in `_found`, to look up
        if self.path.is_file():
            for line, content in read_jsonl(self.path):
                one = _FORM.check(content, f"{self.path}, line {line}")
                self._found[one["label"]] = one

    def __iter__(self) -> Iterator[StagedLabel]:
        """The labels, those of most texts first."""
        return iter(sorted(self._found.values(), key=lambda one: (-one["count"], one["label"])))

    def add(self, texts: Sequence[str], predictions: Sequence[LabelPrediction]) -> None:
        """Collect the novel labels of texts.

        Args:
            texts: the texts.
            predictions: what was predicted for them, in open vocabulary.
        """
        for text, prediction in zip(texts, predictions, strict=True):
            digest = blake2b(text.encode(), digest_size=8).hexdigest()
            for novel in prediction.novel_labels:
                new = StagedLabel(label=novel.label, count=0, score=0.0, nearest=novel.nearest, examples=[], texts=[])
                one = self._found.setdefault(novel.label, new)
                one["score"] = max(one["score"], round(novel.score, 6))
                known = self._texts.setdefault(novel.label, set(one["texts"]))
                if digest not in known:
                    known.add(digest)
                    one["texts"].append(digest)
                    one["count"] = len(one["texts"])
                    if len(one["examples"]) < _EXAMPLES:
                        one["examples"].append(_shortened(text))

    def save(self) -> None:
        """Write the file.

        Raises:
            SaveError: if it cannot be written.
        """
        write_jsonl(self.path, self)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."

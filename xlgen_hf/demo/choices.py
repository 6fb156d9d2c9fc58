"""What the page offers before anybody asks: texts to try, labels and concepts that somebody may be typing."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from weakref import WeakKeyDictionary

from ..files.saving import local_model
from ..files.training_report import read_report
from ..labels.vocabulary import Vocabulary
from ..serving.service import Service

__all__ = ["example_texts", "find_concepts", "find_labels", "has_hierarchy"]

_SAMPLE = Path(__file__).parents[1] / "samples" / "yso" / "test.jsonl.gz"
_OF_A_MODEL = 5  # examples


def example_texts(models: Iterable[str]) -> list[str]:
    """Texts to try: the examples on the models' cards, or those of the bundled sample if no card has any.

    Args:
        models: folders or Hub ids.
    """
    texts: dict[str, None] = {}
    for name in models:
        report = read_report(local_model(name, {}, "report"))
        texts |= dict.fromkeys(one["text"] for one in report.get("examples", [])[:_OF_A_MODEL])
    return list(texts) or _sample_texts()


def _sample_texts() -> list[str]:
    with gzip.open(_SAMPLE, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in islice(file, _OF_A_MODEL)]


def find_labels(service: Service, query: str, limit: int) -> list[str]:
    """Labels that somebody may be typing, of all models; see [`LoadedModel.find_labels`].

    Args:
        service: the models.
        query: what was typed so far.
        limit: number of labels of each model.
    """
    found: dict[str, None] = {}
    for model in service.models.values():
        names = model.current.predictor.label_space.names
        found |= dict.fromkeys(names[label] for label in model.current.find_labels(query, limit))
    return list(found)


def has_hierarchy(service: Service) -> bool:
    """Whether a model has a vocabulary with broader concepts."""
    vocabularies = [model.current.predictor.vocabulary for model in service.models.values()]
    return any(one.broader for known in vocabularies if known is not None for one in known)


def find_concepts(service: Service, query: str, limit: int) -> list[str]:
    """Labels of concepts with narrower ones that somebody may be typing.

    Args:
        service: the models.
        query: what was typed so far.
        limit: number of concepts of each model.
    """
    found: dict[str, None] = {}
    for model in service.models.values():
        predictor = model.current.predictor
        vocabulary, names = predictor.vocabulary, predictor.label_space.names
        if vocabulary is None:
            continue
        ids = vocabulary.ids
        near = (names[label] for label in model.current.find_labels(query, len(names)))
        broad = _broad(vocabulary)
        found |= dict.fromkeys(islice((name for name in near if ids.get(name) in broad), limit))
    return list(found)


_known_broad: WeakKeyDictionary[Vocabulary, set[str]] = WeakKeyDictionary()


def _broad(vocabulary: Vocabulary) -> set[str]:
    """Ids of the concepts that are broader than another one; kept, as somebody who types asks at every key."""
    found = _known_broad.get(vocabulary)
    if found is None:
        found = {parent for one in vocabulary for parent in one.broader if parent != one.id}
        _known_broad[vocabulary] = found
    return found

"""The models of a server: loaded once, and again when their folder changed, while the former one goes on answering."""

from __future__ import annotations

import asyncio
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

import torch

from ..files.saving import folder_state
from ..labels.space import normalize_name
from ..prediction.predictor import Predictor
from .batching import Batcher
from .corrections import CorrectionsFile
from .metrics import Metrics
from .settings import ServingSettings

__all__ = ["LoadedModel", "ServedModel"]

logger = logging.getLogger(__name__)

_FIRST_TEXT = "a text"
_MARKS = re.compile("[\u0300-\u036f]")


class LoadedModel:
    """A predictor as it was loaded, which has predicted a text.

    Args:
        name: a folder, or a Hub id.
        load: loads a predictor, as `load_predictor` does.

    Attributes:
        predictor: the predictor.
        state: what tells the files of its folder from others; None for a model of the Hub.
        time: when it was loaded, UTC.
    """

    def __init__(self, name: str, load: Callable[[str], Predictor]) -> None:
        self.state = _state(name)  # before the files are read: a change meanwhile is a reason to read them again
        self.predictor = load(name)
        self.predictor.predict([_FIRST_TEXT])  # what is made at the first text, or fails there, does so now
        self.time = datetime.now(timezone.utc)

    @cached_property
    def folded_names(self) -> tuple[tuple[str, int], ...]:
        """All names of the labels as they are compared with what people type, and whose they are: their own first."""
        space, vocabulary = self.predictor.label_space, self.predictor.vocabulary
        own = [(normalize_name(name), label) for label, name in enumerate(space.names)]
        concepts = [] if vocabulary is None else [(one, space.index[vocabulary.labels[one.id]]) for one in vocabulary]
        return (*own, *((normalize_name(name), label) for one, label in concepts for name in one.all_names()))

    @cached_property
    def unmarked_names(self) -> tuple[tuple[str, int], ...]:
        """The names with letters such as ö and é, with o and e in their place."""
        bare = ((_unmarked(name), name, label) for name, label in self.folded_names)
        return tuple((without, label) for without, name, label in bare if without != name)

    def find_labels(self, query: str, limit: int) -> list[int]:
        """Ids of labels that people may mean: those with this name, that begin with it, that hold it, in any language.

        Names that hold it but for the marks on their letters (`okologie` for `Ökologie`) come last.

        Args:
            query: what somebody typed; empty for the most frequent labels.
            limit: number of labels.
        """
        space, vocabulary = self.predictor.label_space, self.predictor.vocabulary
        folded = normalize_name(query)
        if not folded:
            return list(range(min(limit, len(space))))
        named = [] if vocabulary is None else [space.index[vocabulary.labels[one]] for one in vocabulary.find(query)]
        bare = _unmarked(folded)  # empty where nothing but marks was typed, which every name would hold
        found = [*named, *_holding(self.folded_names, folded), *(_holding(self.unmarked_names, bare) if bare else [])]
        return list(dict.fromkeys(found))[:limit]

    def concept_of(self, label: str) -> str | None:
        """Id of the concept that a label stands for, if there is one."""
        vocabulary = self.predictor.vocabulary
        return None if vocabulary is None else vocabulary.ids.get(label)


def _holding(names: Iterable[tuple[str, int]], query: str) -> list[int]:
    """Labels whose name is the query, then those whose name begins with it, then those whose name holds it."""
    found = [(name, label) for name, label in names if query in name]
    found.sort(key=lambda one: (one[0] != query, not one[0].startswith(query)))
    return [label for _, label in found]


def _unmarked(text: str) -> str:
    """A text without the marks that change a Latin, Greek or Cyrillic letter; those of other scripts are letters."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _MARKS.sub("", unicodedata.normalize("NFD", text)))


def _state(name: str) -> object:
    return folder_state(name) if Path(name).is_dir() else None


class ServedModel:
    """A model of a server, by whatever files it is made of at the time.

    Args:
        model_id: what requests call it.
        name: a folder, or a Hub id.
        load: loads a predictor.
        settings: limits.
        metrics: where batches and reloads are counted.
        corrections: where corrections go; none are taken if None.
    """

    def __init__(
        self,
        model_id: str,
        name: str,
        load: Callable[[str], Predictor],
        settings: ServingSettings,
        metrics: Metrics,
        corrections: CorrectionsFile | None = None,
    ) -> None:
        self.id = model_id
        self.corrections = corrections
        self.current = LoadedModel(name, load)
        self.batcher = Batcher(
            lambda: self.current.predictor,
            batch_size=settings.batch_size,
            queue_size=settings.queue_size,
            parallel=settings.parallel_batches,
            observe=metrics.add_model(model_id, lambda: self.batcher.waiting),
        )
        self._name, self._load, self._metrics = name, load, metrics
        self._seen = self.current.state

    async def watch(self, seconds: float) -> None:
        """Look every so many seconds whether the files changed, and load them then, until this is cancelled.

        What cannot be loaded is reported once for each change; the former model goes on answering.
        """
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.reload_if_changed()
            except Exception as err:
                self._metrics.reloaded(self.id, failed=True)
                logger.error("The changed model %r cannot be loaded; the former one goes on: %s", self.id, err)

    async def reload_if_changed(self) -> bool:
        """Load the model again if its folder changed; whether it did."""
        state = await asyncio.to_thread(_state, self._name)
        if state is None or state == self._seen:
            return False
        self._seen = state
        loaded = await asyncio.to_thread(self._loaded_again)
        self.current, self._seen = loaded, loaded.state
        self._metrics.reloaded(self.id, failed=False)
        logger.info("The model %r changed, and was loaded again.", self.id)
        return True

    def _loaded_again(self) -> LoadedModel:
        torch.set_num_threads(self.batcher.cpu_threads)  # graphs keep what they are loaded with; batches share it
        return LoadedModel(self._name, self._load)

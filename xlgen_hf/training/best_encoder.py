"""Which state of an encoder in training is kept: the one whose index finds most labels of the validation rows."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..encoders.embedding import Encoder
from ..encoders.recipe import EmbeddingRecipe
from ..errors import ModelFolderError
from ..files.atomic import atomic_path
from ..files.json_lines import digest
from ..files.leftovers import EMBEDDINGS_PREFIX, STATE_FILE, STATE_PREFIX
from ..files.schema import Fields, integer, list_of, mapping_of, string
from ..files.serialization import JSON
from ..labels.space import LabelSpace
from ..retrieval.retriever import LabelRetriever, RetrievalSettings

__all__ = ["BestEncoder", "CandidateRecall", "Comparison", "place_of_state", "remove_states"]

logger = logging.getLogger(__name__)

_CANDIDATES = 20  # of a text, at most, among which the labels that it has are looked for
_SHARE = 5  # at most one of so many labels: of a few, 20 candidates would be all, and each state as good as another
_TEXTS = 2_000  # validation texts that are looked at
_DOCUMENTS = 50_000  # training texts that they are compared with
_STATES_FILE = "states.json"
_BEFORE = "0"


class _States(TypedDict):
    """What tells the run from others, and epochs -> what [`CandidateRecall`] holds, in the order of its fields."""

    run: str
    recall: dict[str, list[int]]


_FORM = Fields[_States](
    {"run": string(), "recall": mapping_of(list_of(integer(minimum=0), min_length=4, max_length=4))},
    format_version=1,
    made_by="xlgen index",
)


@dataclass(frozen=True)
class CandidateRecall:
    """How many of some texts' labels are among their first candidates.

    Attributes:
        found: those that are, over all texts.
        labels: all of them.
        found_unseen, unseen: the same of labels that no training row has.
    """

    found: int
    labels: int
    found_unseen: int
    unseen: int

    def __str__(self) -> str:
        """The recall, and that of unseen labels where there are some."""
        of_unseen = f" ({self.found_unseen / self.unseen:.4f} of unseen labels)" if self.unseen else ""
        return f"{self.found / max(self.labels, 1):.4f}{of_unseen}"

    def loses_unseen(self, before: CandidateRecall) -> bool:
        """Whether unseen labels are found less often than before, by more than two standard errors."""
        if not self.unseen:
            return False
        share = before.found_unseen / before.unseen
        error = math.sqrt(share * (1 - share) / before.unseen)
        return self.found_unseen / self.unseen < share - 2 * error


@dataclass(frozen=True)
class Comparison:
    """What states of an encoder are compared by.

    Attributes:
        texts: validation texts.
        label_ids: the label ids of each.
        cache: where what the index embeds is kept; the embeddings by the best state are moved there.
        further: label ids, ascending, and further names of theirs, which count as in the index.
        retrieval: how similarities become scores.
    """

    texts: Sequence[str]
    label_ids: Sequence[Sequence[int]]
    cache: Path
    further: Sequence[tuple[int, str]] = ()
    retrieval: RetrievalSettings | None = None

    def described(self) -> dict[str, JSON]:
        """What decides the comparison besides rows, for the record of the run."""
        weighed = asdict(self.retrieval or RetrievalSettings())
        return {"retrieval": weighed, "further": digest(f"{label} {name}" for label, name in self.further)}

    def measure(
        self,
        label_space: LabelSpace,
        texts: Sequence[str],
        label_ids: Sequence[Sequence[int]],
        encoder: Encoder,
        recipe: EmbeddingRecipe,
        cache: Path,
    ) -> CandidateRecall:
        """Make an index of training rows, and look for the labels of the validation rows among its first candidates.

        At most 50,000 training and 2,000 validation texts are taken, the same ones each time.

        Args:
            label_space, texts, label_ids, encoder, recipe: what the index is made of.
            cache: where its embeddings are kept.
        """
        random = np.random.default_rng(0)
        documents = _drawn(texts, label_ids, _DOCUMENTS, random)
        queries, references = _drawn(self.texts, self.label_ids, _TEXTS, random)
        index = LabelRetriever.fit(
            label_space, *documents, encoder,
            recipe=recipe, settings=self.retrieval, further=self.further, cache_dir=cache,
        )  # fmt: skip
        found = index.rank(queries, max(1, min(_CANDIDATES, len(label_space) // _SHARE)))
        counts = np.asarray(label_space.counts)
        wanted = np.array([label for row in references for label in row], dtype=np.int64)
        right = found.labels[found.correct(references)]
        return CandidateRecall(
            len(right), len(wanted), int((counts[right] == 0).sum()), int((counts[wanted] == 0).sum())
        )


def _drawn(
    texts: Sequence[str], labels: Sequence[Sequence[int]], number: int, random: np.random.Generator
) -> tuple[list[str], list[Sequence[int]]]:
    rows = range(len(texts)) if len(texts) <= number else np.sort(random.choice(len(texts), number, replace=False))
    return [texts[row] for row in rows], [labels[row] for row in rows]


class BestEncoder(TrainerCallback):
    """Keeps the best state of an encoder: as it was, or after one of the epochs.

    A state is better than another if its index finds more of the validation rows' labels among 20 candidates, or among
    as many as a fifth of the labels if these are fewer; one
    that finds labels without training rows less often than the encoder as it was is none to keep. An epoch that is not
    better than all before ends the training. The same run, resumed, takes up what was measured.

    Args:
        module: what is trained, the encoder in it.
        folder: of the checkpoints.
        run: what tells this run from others.
        measure: gives the recall of an index by the encoder as it is now, and keeps the embeddings in a folder.
    """

    def __init__(self, module: nn.Module, folder: Path, run: str, measure: Callable[[Path], CandidateRecall]) -> None:
        self._module, self._folder, self._run, self._measure = module, folder, run, measure
        path = folder / _STATES_FILE
        known: _States = _FORM.read(path) if path.is_file() else {"run": run, "recall": {}}
        self._recall = {epochs: CandidateRecall(*numbers) for epochs, numbers in known["recall"].items()}
        if not self._recall or known["run"] != run or not self._weights.is_file():
            self._recall = {}
            remove_states(folder)

    def _best(self, last: str) -> str:
        """Epochs of the best state up to this one, the earliest of equal ones."""
        before = self._recall.get(_BEFORE)
        kept = [
            name
            for name, one in self._recall.items()
            if float(name) <= float(last) and (before is None or not one.loses_unseen(before))
        ]
        return max(kept, key=lambda name: (self._recall[name].found, -float(name)))

    @property
    def _weights(self) -> Path:
        """Those of the best state."""
        return place_of_state(self._folder, self._best(max(self._recall, key=float))) / STATE_FILE

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Measure the encoder as it was; on resumption, at the end of an epoch, what may have been left unmeasured."""
        epochs = state.epoch or 0.0
        if epochs == int(epochs) or state.global_step >= state.max_steps:
            self._take(f"{epochs:g}", control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Measure the encoder, and end a training that no longer gets better, with a checkpoint."""
        self._take(f"{state.epoch:g}", control)

    def _take(self, epochs: str, control: TrainerControl) -> None:
        if epochs not in self._recall:
            former = self._best(epochs) if self._recall else None
            self._recall[epochs] = found = self._measure(place_of_state(self._folder, epochs))
            logger.info("Recall of the validation rows' labels after %s epochs: %s", epochs, found)
            if self._best(epochs) == epochs:
                self._keep(epochs)
            else:
                former = epochs
            recall = {name: list(astuple(one)) for name, one in self._recall.items()}
            _FORM.write(self._folder / _STATES_FILE, {"run": self._run, "recall": recall})
            self._forget(former)
        if epochs not in (_BEFORE, self._best(epochs)):
            control.should_training_stop = control.should_save = True

    def _keep(self, epochs: str) -> None:
        with atomic_path(place_of_state(self._folder, epochs) / STATE_FILE) as path:
            save_file(self._module.state_dict(), path, metadata={"format": "pt"})

    def _forget(self, epochs: str | None) -> None:
        """Remove what is left of a state that is not the best; the embeddings of the first serve hard negatives."""
        if epochs == _BEFORE:
            (place_of_state(self._folder) / STATE_FILE).unlink(missing_ok=True)
        elif epochs is not None:
            shutil.rmtree(place_of_state(self._folder, epochs), ignore_errors=True)

    def restore(self, cache: Path) -> None:
        """Give the encoder its best weights.

        Args:
            cache: where what the index embeds next is kept; the embeddings of this state are moved there.
        """
        path, own = self._weights, self._module.state_dict()
        epochs = path.parent.name.removeprefix(STATE_PREFIX)
        logger.info("The encoder is kept as it was after %s of %s epochs.", epochs, max(self._recall, key=float))
        weights = load_file(path)
        if weights.keys() != own.keys():  # names of tied weights are in neither, which is what `strict` would refuse
            raise ModelFolderError(f"{path} has other weights than the encoder; remove {self._folder}.")
        self._module.load_state_dict(weights, strict=False)
        cache.mkdir(parents=True, exist_ok=True)
        for made in path.parent.glob(f"{EMBEDDINGS_PREFIX}*"):
            with suppress(OSError):  # it is there already
                made.rename(cache / made.name)


def place_of_state(folder: Path, epochs: str = _BEFORE) -> Path:
    """Where weights and embeddings of an encoder are, after some epochs.

    Args:
        folder: of the checkpoints.
        epochs: their number; as it was if 0.
    """
    return folder / f"{STATE_PREFIX}{epochs}"


def remove_states(folder: Path) -> None:
    """Remove what [`BestEncoder`] left.

    Args:
        folder: of the checkpoints.
    """
    for place in folder.glob(f"{STATE_PREFIX}*"):
        shutil.rmtree(place, ignore_errors=True)
    (folder / _STATES_FILE).unlink(missing_ok=True)

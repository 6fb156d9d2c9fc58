"""Rows of text and labels to training batches: base, BCL with its multi-hot cluster vector, MCG with its tasks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, TypedDict

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import generate_random_fingerprint

from ..configuration_xlgen import Variant
from ..data.options import RowOptions
from ..data.rows import RowSource, load_rows
from ..data.transforms import LABEL_SIDE, learns_from_none
from ..errors import ConfigurationError, DataError, LabelSpaceError
from ..labels.clusters import LabelClusters
from ..labels.tokens import TruncationReport
from ..modules.output_layer import IGNORED
from ..processing_xlgen import EncodedText, XLGenProcessor
from ..retrieval.candidate_inputs import InputCandidates

__all__ = [
    "Batch",
    "DataCollatorForXLGen",
    "EncodedRow",
    "RowEncoder",
    "ShareCollator",
    "encode_dataset",
    "is_encoded",
    "pad_rows",
    "reading_options",
]

logger = logging.getLogger(__name__)

_MAP_BATCH = 1000
_SHOWN = 5  # names that a report spells out
_ENCODED = Features(
    {
        name: List(Value("int32"))
        for name in ("text_ids", "candidate_ids", "candidate_levels", "label_ids", "unknown_ids")
    }
    | {name: Value("int64") for name in ("row", "length")}
    | {"candidate_scores": List(List(Value("float32"))), LABEL_SIDE: Value("bool")}
)


class EncodedRow(TypedDict):
    """A row of [`encode_dataset`], see there."""

    text_ids: list[int]
    candidate_ids: list[int]
    candidate_levels: list[int]
    candidate_scores: list[list[float]]
    label_ids: list[int]
    unknown_ids: list[int]
    row: int
    length: int
    label_side: bool


class Batch(TypedDict, total=False):
    """A batch of [`DataCollatorForXLGen`], see there."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    candidate_ids: torch.Tensor
    candidate_scores: torch.Tensor
    candidate_targets: torch.Tensor
    labels: torch.Tensor
    cluster_bits: torch.Tensor
    cluster_rows: torch.Tensor
    reference_ids: torch.Tensor
    texts: list[EncodedText]


def encode_dataset(
    source: RowSource,
    processor: XLGenProcessor,
    what: str = "Data",
    *,
    row_options: RowOptions | None = None,
    allow_unknown: bool = False,
    require_labels: bool = True,
    training: bool = False,
) -> Dataset:
    """Read rows as `load_rows` does, tokenize texts and look labels up, once for the whole training.

    Args:
        source: rows that `load_rows` reads.
        processor: of the model that will be trained.
        what: how errors and the report of losses call these rows.
        row_options: the columns to read, and how; by default `text` and `labels`.
        allow_unknown: take labels outside the label space for references that no prediction can meet, and report
            their number, instead of refusing them; for rows that evaluate.
        require_labels: if false, the column of labels may be missing; for rows that are only predicted.
        training: rows that are trained on: none of them may retrieve itself (`rcl`), and those without labels are left
            out, unless [`learns_from_none`].

    Returns:
        Rows with `text_ids` (tokens of the text), `candidate_ids`, `candidate_levels` and `candidate_scores` (`rcl`),
        `label_ids`, `unknown_ids` (ids from `L` on for labels outside the label space), `row` (the row's number, from
        0), `label_side` and `length` (tokens of input and target together). What truncation loses is logged with its
        fraction of all texts and labels; training rows whose labels are all too long for a target are left out.

    Raises:
        DataError: if a row is not as `load_rows` wants it, or no training row has a label that fits; names the row.
        LabelSpaceError: if a label is not in the label space, unless `allow_unknown`; names the row.
    """
    options = reading_options(source, row_options)
    rows = load_rows(source, options, name=what, require_labels=require_labels, suspicions=False)
    encode = RowEncoder(processor, what, allow_unknown, training, learns_none=training and learns_from_none(rows))
    encoded = rows.map(
        encode,
        batched=True,
        batch_size=_MAP_BATCH,
        with_indices=True,
        remove_columns=rows.column_names,
        features=_ENCODED,
        keep_in_memory=True,
        load_from_cache_file=False,  # a cached answer would skip the report
        new_fingerprint=generate_random_fingerprint(),  # that of the content would pickle the processor
        desc=f"Tokenizing {what.lower()}",
    )
    encode.log()
    if training and not encode.labelled:
        encode.fail_without_rows()
    return encoded


def is_encoded(rows: object) -> bool:
    """Whether rows come from [`encode_dataset`]."""
    return isinstance(rows, Dataset) and "text_ids" in rows.column_names


def reading_options(source: object, row_options: RowOptions | None) -> RowOptions:
    """How rows are read that are to be encoded: the mark of label-side rows is kept where there is one."""
    options = row_options or RowOptions()
    has_mark = LABEL_SIDE in (getattr(source, "column_names", None) or ())
    return options.changed(keep_columns=(*options.keep_columns, LABEL_SIDE)) if has_mark else options


@dataclass
class RowEncoder:
    """Encodes rows batch by batch, and keeps count of what is lost.

    Attributes:
        processor, what, allow_unknown, training: see [`encode_dataset`].
        learns_none: keep training rows without labels: they teach to end at once, and that no candidate is right.
        report: what truncation has lost so far.
        unknown: labels outside the label space so far, by the ids that stand for them.
        labelled: rows with labels that were encoded so far.
    """

    processor: XLGenProcessor
    what: str
    allow_unknown: bool
    training: bool
    learns_none: bool = False
    report: TruncationReport = field(default_factory=TruncationReport)
    unknown: dict[str, int] = field(default_factory=dict)
    labelled: int = 0

    def __call__(self, rows: dict[str, list], numbers: list[int]) -> dict[str, list]:
        """Rows of `load_rows` and their numbers, from 0 -> the columns of encoded rows."""
        if self.training and not self.learns_none:
            rows, numbers = _labelled(rows, numbers)
        if not numbers:
            return {name: [] for name in _ENCODED}
        processor, report, training = self.processor, self.report, self.training
        texts = processor.encode_texts(rows["text"], report, training=training)
        found = [self._look_up(labels, number) for labels, number in zip(rows["labels"], numbers, strict=True)]
        order = processor.label_space.order
        targets = [processor.label_tokenizer.build_target(order(ids), report) for ids, _ in found]
        # A row whose labels are all too long would teach to end at once.
        kept = [row for row, target in enumerate(targets) if not training or len(target) > 1 or not found[row][0]]
        report.rows_lost += len(targets) - len(kept)
        self.labelled += sum(bool(found[row][0]) for row in kept)
        return {
            "text_ids": [texts[row].token_ids for row in kept],
            "candidate_ids": [texts[row].candidates.labels for row in kept],
            "candidate_levels": [texts[row].candidates.levels for row in kept],
            "candidate_scores": [texts[row].candidates.scores for row in kept],
            LABEL_SIDE: [bool(rows[LABEL_SIDE][row]) if LABEL_SIDE in rows else False for row in kept],
            "label_ids": [found[row][0] for row in kept],
            "unknown_ids": [found[row][1] for row in kept],
            "row": [numbers[row] for row in kept],
            "length": [len(processor.build_input(texts[row])) + len(targets[row]) for row in kept],
        }

    def _look_up(self, labels: list[str], number: int) -> tuple[list[int], list[int]]:
        space = self.processor.label_space
        if self.allow_unknown:
            known, others = space.encode_known(labels)
            return known, [self.unknown.setdefault(name, len(space) + len(self.unknown)) for name in others]
        try:
            return space.encode(labels), []
        except LabelSpaceError as err:
            raise LabelSpaceError(f"{self.what}, row {number + 1}: {err}") from err

    def log(self) -> None:
        """Log what was lost so far."""
        if self.training:
            self.processor.label_tokenizer.report_oversized(self.report)
        self.report.log(self.what)
        if self.unknown:
            _report_unknown(self.what, list(self.unknown))

    def fail_without_rows(self) -> NoReturn:
        """Raise the error of training rows none of which can be trained on."""
        if not self.report.rows_lost:
            raise DataError(f"{self.what}: no row has labels, so there is nothing to train on.")
        raise DataError(
            f"{self.what}: no row has a label that fits into a target of {self.processor.max_target_length} tokens. "
            "Raise max_target_length."
        )


def _labelled(rows: dict[str, list], numbers: list[int]) -> tuple[dict[str, list], list[int]]:
    """The rows that have labels."""
    kept = [row for row, labels in enumerate(rows["labels"]) if labels]
    return {name: [column[row] for row in kept] for name, column in rows.items()}, [numbers[row] for row in kept]


def _report_unknown(what: str, names: list[str]) -> None:
    logger.warning(
        "%s: %d label names are outside the label space, e.g. %s. They count as missed; a vocabulary with "
        "them would let the model predict them.",
        what,
        len(names),
        names[:_SHOWN],
    )


@dataclass
class DataCollatorForXLGen:
    """Makes padded batches of rows from [`encode_dataset`].

    Every batch has `input_ids` and `attention_mask` `(B, S)` and `labels` `(B, T)`, padded to their longest row,
    targets with -100. Beside them:

    * `bcl`: `cluster_bits`, 1 where a cluster holds one of the row's labels, `(B, C)`, float32.
    * with candidates as tokens: `candidate_scores` `(B, K, F)`, and `candidate_targets` `(B, K)`, float32, 1 where a
      candidate is one of the row's labels, padded with -100, which label-side rows have everywhere: there the text
      says it outright.
    * `mcg`: the batch holds two rows a text, text + clusters -> labels and text -> clusters, and for a share of the
      texts a third, clusters -> labels; `cluster_rows` `(B,)` marks the cluster targets.
    * with `references`: `reference_ids`, the row's label ids, none lost to truncation and unknown ones included,
      padded with -100, and `texts`, the encoded texts; evaluation by generation starts from them.

    Args:
        processor: the model's processor.
        variant: the model's variant.
        references: add what evaluation by generation needs.
        clusters_only_rate: `mcg`: share of texts with a row clusters -> labels, in [0, 1].
        cluster_noise: `mcg`: chance that a gold cluster of the input is left out, and that a wrong one is added, in
            [0, 1]; the model meets such mistakes when it generates the clusters itself.
        soft_targets: with candidates as tokens: what share of its retrieval score, in [0, 1], is the target of a
            candidate that the row does not list: a row that lacks labels does not teach that they are wrong.
        seed: seed of the draws; they depend on it, the epoch and the row alone, so a resumed run repeats them.

    Example: two texts with labels `[3]` and `[0, 5]`, whose label tokens are `[40]`, `[41, 42]` and `[43]`,
    separator 9, end 1, pad 0, become (`base`)::

        input_ids       [[7, 8, 1], [6, 1, 0]]
        attention_mask  [[1, 1, 1], [1, 1, 0]]
        labels          [[40, 9, 1, -100, -100, -100], [41, 42, 9, 43, 9, 1]]
    """

    processor: XLGenProcessor
    variant: Variant = "base"
    references: bool = False
    clusters_only_rate: float = 0.0
    cluster_noise: float = 0.5
    soft_targets: float = 0.0
    seed: int = 0
    epoch: int = 0

    def __call__(self, features: Sequence[EncodedRow]) -> Batch:
        """Rows of [`encode_dataset`] -> one batch.

        Raises:
            DataError: if they are other rows.
        """
        if features and "text_ids" not in features[0]:
            raise DataError(
                f"The collator was given rows with {sorted(features[0])}; it makes batches of encoded rows. Encode "
                "them first: xlgen_hf.training.collator.encode_dataset(rows, processor)."
            )
        order = self.processor.label_space.order
        ordered = [order(f["label_ids"], epoch=self.epoch, row=f["row"]) for f in features]
        if self.variant == "mcg":
            batch = self._multitask(features, ordered)
        else:
            texts = [_encoded_text(f) for f in features]
            targets = [self.processor.label_tokenizer.build_target(ids) for ids in ordered]
            batch = self._pad([self.processor.build_input(text) for text in texts], targets, texts, features)
        if self.variant == "bcl":
            bits = np.stack([self._clusters.bits(f["label_ids"]) for f in features])
            batch["cluster_bits"] = torch.from_numpy(bits)
        if self.references:
            batch["reference_ids"] = pad_rows([f["label_ids"] + f["unknown_ids"] for f in features])
            batch["texts"] = [_encoded_text(f) for f in features]
        return batch

    @property
    def _clusters(self) -> LabelClusters:
        if self.processor.clusters is None:
            raise ConfigurationError(f"variant={self.variant!r} needs label clusters; the processor has none.")
        return self.processor.clusters

    def _pad(
        self,
        inputs: list[list[int]],
        targets: list[list[int]],
        texts: Sequence[EncodedText],
        features: Sequence[EncodedRow],
    ) -> Batch:
        """Inputs and targets as tensors, with the candidates in the texts that were read, and the rows' labels."""
        padded = self.processor.pad(inputs, candidates=[text.candidates for text in texts])
        batch: Batch = {
            "input_ids": padded["input_ids"],
            "attention_mask": padded["attention_mask"],
            "labels": pad_rows(targets),
        }
        if "candidate_ids" in padded:
            batch["candidate_ids"] = padded["candidate_ids"]
        if "candidate_scores" in padded:
            batch["candidate_scores"] = padded["candidate_scores"]
            batch["candidate_targets"] = pad_rows(list(map(self._candidate_targets, texts, features)), torch.float32)
        return batch

    def _candidate_targets(self, text: EncodedText, feature: EncodedRow) -> list[float]:
        """What counts as right of each candidate of a row; none counts where the text is made of label names."""
        if feature[LABEL_SIDE]:
            return [IGNORED] * max(len(text.candidates.labels), 1)
        labels, found = set(feature["label_ids"]), zip(text.candidates.labels, text.candidates.scores, strict=True)
        return [1.0 if label in labels else self.soft_targets * scores[0] for label, scores in found] or [IGNORED]

    def _multitask(self, features: Sequence[EncodedRow], ordered: list[list[int]]) -> Batch:
        """The rows of MCG's tasks, those of one text after each other."""
        processor = self.processor
        inputs, targets, texts, is_cluster_row = [], [], [], []
        of_rows: list[EncodedRow] = []
        for feature, label_ids in zip(features, ordered, strict=True):
            random = np.random.default_rng([self.seed, self.epoch, feature["row"]])
            gold = self._clusters.clusters_of(feature["label_ids"])
            target = processor.label_tokenizer.build_target(label_ids)
            text = _encoded_text(feature)
            inputs.append(processor.build_input(text, self._with_noise(gold, random), "labels"))
            inputs.append(processor.build_input(text, task="clusters"))
            targets += [target, processor.label_tokenizer.build_cluster_target(gold)]
            texts += [text, text]
            is_cluster_row += [False, True]
            if random.random() < self.clusters_only_rate:
                nothing = EncodedText([])
                inputs.append(processor.build_input(nothing, gold, "labels"))
                targets.append(target)
                texts.append(nothing)
                is_cluster_row.append(False)
            of_rows += [feature] * (len(inputs) - len(of_rows))
        batch = self._pad(inputs, targets, texts, of_rows)
        batch["cluster_rows"] = torch.tensor(is_cluster_row)
        return batch

    def _with_noise(self, clusters: list[int], random: np.random.Generator) -> list[int]:
        kept = [cluster for cluster in clusters if random.random() >= self.cluster_noise]
        if random.random() < self.cluster_noise:
            wrong = int(random.integers(self._clusters.num_clusters))
            kept += [] if wrong in kept else [wrong]
        return kept


@dataclass
class ShareCollator:
    """Makes the batch of one of several processes out of the rows that they share.

    Where there are fewer rows than processes, one without any gets a row whose targets are ignored: it takes part in
    the step, and adds nothing to it.

    Args:
        collator: makes batches.
        process: number of this process.
        processes: number of processes.
    """

    collator: DataCollatorForXLGen
    process: int = 0
    processes: int = 1

    def __call__(self, features: Sequence[EncodedRow]) -> Batch:
        """All rows of a step -> the batch of this process."""
        own = features[self.process :: self.processes]
        if own:
            return self.collator(own)
        batch = self.collator(features[:1])
        batch["labels"] = torch.full_like(batch["labels"], IGNORED)
        if "candidate_targets" in batch:
            batch["candidate_targets"] = torch.full_like(batch["candidate_targets"], IGNORED)
        return batch


def _encoded_text(feature: EncodedRow) -> EncodedText:
    """The encoded text of a row of [`encode_dataset`]."""
    candidates = InputCandidates(feature["candidate_ids"], feature["candidate_levels"], feature["candidate_scores"])
    return EncodedText(feature["text_ids"], candidates)


def pad_rows(rows: Sequence[Sequence[float]], dtype: torch.dtype = torch.long) -> torch.Tensor:
    """Ragged rows of numbers, ids by default -> `(B, longest)`, padded with -100."""
    longest = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[IGNORED] * (longest - len(row))] for row in rows], dtype=dtype)

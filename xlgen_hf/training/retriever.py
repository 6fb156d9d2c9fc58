"""Contrastive training of the retrieval encoder: a text near the names of its labels, far from other names."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import datasets
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
    set_seed,
)
from transformers.utils import SAFE_WEIGHTS_NAME

from ..data.blocks import each_value
from ..encoders.embedding import embed_texts, recipe_of
from ..encoders.loaded import hash_of_weights, load_encoder, own_device
from ..encoders.number_types import NumberType, number_type
from ..encoders.pooling import pool
from ..encoders.recipe import EmbeddingRecipe, Pooling
from ..files.json_lines import digest
from ..files.serialization import JSON
from ..labels.space import LabelSpace
from ..retrieval.approximate import LARGE, QUERIES, make_approximate
from ..retrieval.documents import DocumentNames
from ..retrieval.retriever import LabelRetriever, RetrievalSettings
from ..retrieval.tuning import tune_retriever
from .arguments import OneGPU
from .best_encoder import BestEncoder, CandidateRecall, Comparison, place_of_state, remove_states
from .checkpoints import newest_checkpoint, remove_checkpoints
from .hard_negatives import draw_negatives, near_names
from .progress import run_training
from .resuming import ResumableTrainer
from .run_record import RECORD_FILE, Record, start_record
from .settings import ContrastiveSettings
from .shared_embedding import SharedEmbedding

__all__ = ["ContrastiveSettings", "fit_retriever", "remove_encoder_checkpoints", "train_encoder"]

logger = logging.getLogger(__name__)

SAVE_STEPS = 100
"""Steps of an encoder's training between checkpoints."""
_GROUPS = 4  # parts of a batch that are padded apart, each to its own longest text
_NAME_LENGTH = 64
_ENCODER_FOLDER = "encoder"  # where its checkpoints are, in the folder of the retriever's training
_MASKED = -1e4


class _Part(TypedDict):
    """Some texts, or label names, of a step: their numbers and tokens."""

    rows: torch.Tensor
    input_ids: torch.Tensor
    attention_mask: torch.Tensor


class _Batch(TypedDict):
    """What [`_LabelMatcher`] is given in a step."""

    texts: list[_Part]
    names: list[_Part]
    positive: torch.Tensor


class _LabelMatcher(nn.Module):
    """An encoder with the loss over texts and label names."""

    def __init__(self, encoder: PreTrainedModel, temperature: float, pooling: Pooling) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperature = temperature
        self.pooling = pooling

    def train(self, mode: bool = True) -> _LabelMatcher:
        """Leave dropout off: it costs a third of the time, and few epochs overfit little."""
        super().train(mode)
        self.encoder.eval()
        return self

    def state_dict(  # type: ignore[override]
        self, *, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, torch.Tensor]:
        """Each tensor once: a T5 ties two names to one, which safetensors refuses to write."""
        once = {name for name, _ in [*self.named_parameters(), *self.named_buffers()]}
        state = super().state_dict(prefix=prefix, keep_vars=keep_vars)
        return {name: value for name, value in state.items() if name.removeprefix(prefix) in once}

    def forward(self, texts: list[_Part], names: list[_Part], positive: torch.Tensor) -> dict[str, torch.Tensor]:
        """Loss of a step.

        Args:
            texts, names: parts with `rows`, `input_ids` and `attention_mask`.
            positive: which name is a label of which text, `(B, M)`, bool.

        Returns:
            The mean, over texts and their labels, of the cross-entropy of a label against the names that are no
            labels of the text. A text's other labels do not count against it.

        Source: Gupta et al., "Dual-Encoders for Extreme Multi-Label Classification" (decoupled softmax), ICLR 2024.
        """
        similarity = self._embed(texts) @ self._embed(names).T / self.temperature
        negatives = similarity.masked_fill(positive, _MASKED).logsumexp(1, keepdim=True)
        return {"loss": (torch.logaddexp(similarity, negatives) - similarity)[positive].mean()}

    def _embed(self, parts: list[_Part]) -> torch.Tensor:
        """Pooled last hidden states in the order of `rows`, length 1, `(B, H)`."""
        pooled = []
        for part in parts:
            mask = part["attention_mask"]
            hidden = self.encoder(input_ids=part["input_ids"], attention_mask=mask).last_hidden_state
            pooled.append(pool(hidden, mask, self.pooling))
        order = torch.cat([part["rows"] for part in parts]).argsort()
        return functional.normalize(torch.cat(pooled), dim=-1)[order]


class _Numbers(Dataset):
    """Numbers of the texts to learn from."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> int:
        return position


@dataclass
class _Collator:
    """Numbers of texts -> parts of texts, parts of names, and which belong together."""

    text_tokens: list[list[int]]
    name_tokens: list[list[int]]
    label_ids: Sequence[Sequence[int]]
    near: np.ndarray
    settings: ContrastiveSettings
    pad_token_id: int
    seed: int

    def __call__(self, rows: list[int]) -> _Batch:
        random = np.random.default_rng([self.seed, *rows])
        drawn = random.integers(len(self.name_tokens), size=self.settings.random_negatives)
        hard = draw_negatives(self.near[rows], self.settings.hard_negatives, random)
        names = np.unique(np.concatenate([drawn, hard, *(self.label_ids[row] for row in rows)])).astype(np.int64)
        positive = torch.zeros(len(rows), len(names), dtype=torch.bool)
        for position, row in enumerate(rows):
            positive[position, np.searchsorted(names, np.asarray(self.label_ids[row]))] = True
        return {
            "texts": self._parts([self.text_tokens[row] for row in rows]),
            "names": self._parts([self.name_tokens[name] for name in names]),
            "positive": positive,
        }

    def _parts(self, tokens: list[list[int]]) -> list[_Part]:
        by_length = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        parts: list[_Part] = []
        for rows in np.array_split(np.array(by_length), min(_GROUPS, len(tokens))):
            longest = max(len(tokens[i]) for i in rows)
            ids = [tokens[i] + [self.pad_token_id] * (longest - len(tokens[i])) for i in rows]
            mask = [[1] * len(tokens[i]) + [0] * (longest - len(tokens[i])) for i in rows]
            parts.append(
                {
                    "rows": torch.tensor(rows.tolist()),
                    "input_ids": torch.tensor(ids),
                    "attention_mask": torch.tensor(mask),
                }
            )
        return parts


class _EncoderArguments(OneGPU, TrainingArguments):
    """Arguments of transformers, for one GPU."""


class _EncoderTrainer(ResumableTrainer):
    """Keeps checkpoints of the weights alone, without the pickle of arguments that the base class adds."""

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        state = self.model.state_dict() if state_dict is None else state_dict
        save_file(state, Path(output_dir or self.args.output_dir) / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})


def train_encoder(
    encoder: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    label_space: LabelSpace,
    texts: Sequence[str],
    label_ids: Sequence[Sequence[int]],
    folder: str | Path,
    *,
    recipe: EmbeddingRecipe | None = None,
    settings: ContrastiveSettings | None = None,
    dtype: NumberType = "float32",
    comparison: Comparison | None = None,
    seed: int = 0,
) -> None:
    """Train an encoder, in place, to put texts near the names of their labels.

    In each step the names of a text's labels compete with those of the other texts' labels, and with names that the
    encoder found near to one of these texts before it was trained (hard negatives).

    With a comparison the encoder ends in the best of its states before the training and after each epoch, see
    [`BestEncoder`].

    A run that was interrupted continues from its last checkpoint in the folder; that of another run is refused.

    Args:
        encoder: the encoder and its tokenizer; it is trained on the CPU where it is there, else on a GPU.
        label_space: the labels.
        texts: training texts.
        label_ids: label ids of each text.
        folder: where checkpoints are kept.
        recipe: how texts become embeddings; by the mean, without prompts, if None.
        settings: how it is trained.
        dtype: what it computes in; its weights stay as they are.
        comparison: what its states are compared by; it ends as the last epoch leaves it if None.
        seed: of the order of the texts and the drawn negatives.

    Raises:
        ConfigurationError: if the folder has the checkpoint of a run with another encoder, other settings, texts or
            labels.
        KeyboardInterrupt: after an interrupt, once a checkpoint is written.
    """
    settings, recipe, folder = settings or ContrastiveSettings(), recipe or EmbeddingRecipe(), Path(folder)
    model = encoder[0]
    set_seed(seed)
    computes = str(number_type(dtype, model.device)).removeprefix("torch.")
    chosen = {**asdict(settings), **asdict(recipe), "dtype": computes, "seed": seed, "encoder": hash_of_weights(model)}
    rows = {"training": (texts, label_ids)}
    if comparison is not None:
        rows["validation"] = (comparison.texts, comparison.label_ids)
        chosen |= comparison.described()
    record = _described(label_space, rows, chosen)
    start_record(folder, record, write=True)
    matcher, best = _LabelMatcher(model, settings.temperature, recipe.pooling), None
    if comparison is not None:  # before hard negatives are embedded: it removes what another run left there
        compare, known = comparison.measure, (label_space, texts, label_ids)

        def measured(cache: Path) -> CandidateRecall:
            return compare(*known, _computing_in(dtype, encoder), recipe, cache)

        best = BestEncoder(matcher, folder, digest([json.dumps(record, sort_keys=True)]), measured)
    taught = [row for row, labels in enumerate(label_ids) if labels]
    texts, label_ids = [texts[row] for row in taught], [label_ids[row] for row in taught]
    trainer = _EncoderTrainer(
        matcher,
        _arguments(folder, settings, seed, dtype, model.device),
        train_dataset=_Numbers(len(taught)),
        data_collator=_collator(encoder, label_space, texts, label_ids, folder, recipe, settings, dtype, seed),
        callbacks=None if best is None else [best],
    )
    logger.info("Training the retrieval encoder: %d texts, epochs: %g.", len(texts), settings.epochs)
    checkpoint = newest_checkpoint(folder)
    run_training(trainer, None if checkpoint is None else str(checkpoint.folder))
    if best is not None and comparison is not None:
        best.restore(comparison.cache)
    model.eval()


def _collator(
    encoder: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    label_space: LabelSpace,
    texts: Sequence[str],
    label_ids: Sequence[Sequence[int]],
    folder: Path,
    recipe: EmbeddingRecipe,
    settings: ContrastiveSettings,
    dtype: NumberType,
    seed: int,
) -> _Collator:
    """What makes the batches: tokens of texts and names, and the names that the encoder finds near to each text."""
    near = np.empty((len(texts), 0), dtype=np.int32)
    if settings.hard_negatives:
        computing, cache = _computing_in(dtype, encoder), place_of_state(folder)
        embed = partial(embed_texts, encoder=computing, recipe=recipe, cache_dir=cache)
        near = near_names(
            embed(texts, side="query", max_length=settings.max_length),
            embed(label_space.names, max_length=_NAME_LENGTH),
            label_ids,
            seed=seed,
        )
    tokenizer = encoder[1]
    queries = [recipe.query_prompt + text for text in texts]
    passages = [recipe.passage_prompt + name for name in label_space.names]
    return _Collator(
        _tokens(tokenizer, queries, settings.max_length, "texts"),
        _tokens(tokenizer, passages, _NAME_LENGTH, "label names"),
        label_ids,
        near,
        settings,
        tokenizer.pad_token_id or 0,
        seed,
    )


def _described(
    label_space: LabelSpace,
    rows: Mapping[str, tuple[Sequence[str], Sequence[Sequence[int]]]],
    settings: dict[str, JSON],
) -> Record:
    """All that decides the result of a training, as `run_record` keeps it."""

    def told(texts: Sequence[str], label_ids: Sequence[Sequence[int]]) -> str:
        lines = (json.dumps([text, list(labels)]) for text, labels in zip(texts, label_ids, strict=True))
        return f"{len(texts)} rows, {digest(lines)[:12]}"

    return {
        "settings": settings,
        "rows": {name: told(*some) for name, some in rows.items()},
        "labels": {"names": f"{len(label_space)} names, {digest(label_space.names)[:12]}"},
    }


def fit_retriever(
    label_space: LabelSpace,
    train_rows: datasets.Dataset,
    validation_rows: datasets.Dataset | None,
    encoder: str,
    folder: str | Path,
    *,
    query_prompt: str | None = None,
    passage_prompt: str | None = None,
    contrastive: ContrastiveSettings | None = None,
    settings: RetrievalSettings | None = None,
    lexical: bool = True,
    further: Sequence[tuple[int, str]] = (),
    document_names: DocumentNames | None = None,
    dtype: NumberType = "float32",
    approximate: bool = False,
    shared: SharedEmbedding | None = None,
    device: str | None = None,
    seed: int = 0,
) -> LabelRetriever:
    """Make a retriever: train its encoder, index the training rows and label names, tune how they are weighed.

    Args:
        label_space: the labels.
        train_rows: rows with `text` and `labels`, all of them in the label space.
        validation_rows: rows that the best state of the encoder in its training, and the weights, are chosen on; None
            takes the last one, and the weights of `settings`.
        encoder: checkpoint of an encoder.
        folder: for checkpoints and embeddings, so that an interrupted run continues.
        query_prompt: put before texts to predict labels for; the checkpoint's own if None.
        passage_prompt: put before indexed texts and label names; the checkpoint's own if None.
        contrastive: how the encoder is trained; it stays as it is if None, or with 0 epochs.
        settings: how similarities become scores.
        lexical: let spelling count as well, as far as the validation rows, or the settings, say.
        further: label ids, ascending, and what counts as names of theirs as well: aliases, definitions ...; see
            `Vocabulary.further_names`.
        document_names: what evidence calls the training rows; by their number, from 1, if None.
        dtype: what the encoder is trained, and texts and names are embedded in; its weights stay in float32.
        approximate: search it approximately where it is large enough, see `make_approximate`.
        shared: the processes that embed texts and names together, of which this is the first; None for this one alone.
        device: where the encoder computes, and stays; on a GPU where there is one if None.
        seed: of the training, and of approximate search.

    Raises:
        CheckpointError: if the encoder cannot be loaded.
        ConfigurationError: if there is no such device.
        MissingExtraError: if it is to be approximate, and faiss is not installed.
    """
    folder = Path(folder)
    recipe = recipe_of(encoder, query_prompt, passage_prompt)
    loaded = load_encoder(encoder, recipe, device or own_device())
    texts = train_rows["text"][:]
    label_ids = [label_space.encode(labels) for labels in each_value(train_rows, "labels")]
    validation = [] if validation_rows is None else validation_rows["text"][:]
    given = [] if validation_rows is None else each_value(validation_rows, "labels")
    references, cache = [label_space.encode_known(labels)[0] for labels in given], folder / "embeddings"
    if contrastive is not None and contrastive.epochs > 0:
        comparison = Comparison(validation, references, cache, further, settings) if any(references) else None
        train_encoder(
            loaded, label_space, texts, label_ids, folder / _ENCODER_FOLDER,
            recipe=recipe, settings=contrastive, dtype=dtype, comparison=comparison, seed=seed,
        )  # fmt: skip
    if further:
        logger.info("Further names, or definitions, that count in retrieval: %d.", len(further))
    computing = _computing_in(dtype, loaded)
    if shared is not None:
        names = [*label_space.names, *(name for _, name in further)]
        shared.lead([texts, names], computing, recipe, (settings or RetrievalSettings()).max_length)
    retriever = LabelRetriever.fit(
        label_space,
        texts,
        label_ids,
        computing,
        recipe=recipe,
        settings=settings,
        lexical=lexical,
        further=further,
        document_names=document_names,
        cache_dir=cache,
    )
    if approximate:
        some = retriever.embed(validation[:QUERIES]) if validation else None
        retriever = make_approximate(retriever, some, seed=seed)
    elif len(retriever.documents) + len(retriever.names) > LARGE:
        logger.info("The index is large: --search approximate of `xlgen index` makes its search faster.")
    if validation_rows is not None:
        retriever = tune_retriever(retriever, validation, references)
    return retriever.with_encoder(loaded)


def _computing_in(
    name: NumberType, encoder: tuple[PreTrainedModel, PreTrainedTokenizerBase]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An encoder that computes in another type; the given one stays as it is."""
    model, tokenizer = encoder
    dtype = number_type(name, model.device)
    return encoder if dtype == model.dtype else (copy.deepcopy(model).to(dtype), tokenizer)


def remove_encoder_checkpoints(folder: str | Path) -> None:
    """Remove the checkpoints that [`fit_retriever`] left, once the retriever is saved.

    Args:
        folder: what it was given.
    """
    place = Path(folder) / _ENCODER_FOLDER
    remove_checkpoints(place)
    remove_states(place)
    (place / RECORD_FILE).unlink(missing_ok=True)
    with suppress(OSError):  # it is not there, or holds files of others
        place.rmdir()


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, what: str) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(list(texts), verbose=False)["input_ids"]
    cut = sum(len(row) > max_length for row in ids)
    if not cut:
        return ids
    logger.warning(
        "Training the retrieval encoder: %d of %d %s are cut at %d tokens.", cut, len(ids), what, max_length
    )
    ids = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    return ids


def _arguments(
    folder: Path, settings: ContrastiveSettings, seed: int, dtype: NumberType, device: torch.device
) -> TrainingArguments:
    in_half, on_cpu = number_type(dtype, device) is torch.bfloat16, device.type == "cpu"
    return _EncoderArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=0.01,
        warmup_steps=0.1,
        save_steps=SAVE_STEPS,
        save_total_limit=1,
        logging_steps=20,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        report_to=[],
        seed=seed,
        bf16=in_half,
        use_cpu=on_cpu and (in_half or torch.accelerator.is_available()),  # transformers would look for a GPU
    )

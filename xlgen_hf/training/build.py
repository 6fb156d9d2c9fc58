"""From settings and rows to an untrained model: label space, clusters, candidates, processor."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from datasets import Dataset
from transformers import AutoConfig, PreTrainedTokenizerBase, set_seed

from ..data.blocks import each_value
from ..data.rows import row_ids
from ..encoders.causal import is_causal
from ..encoders.checkpoints import checkpoint_errors, fetch_checkpoint
from ..encoders.loaded import own_device
from ..encoders.number_types import NumberType
from ..encoders.trimming import trim_checkpoint
from ..errors import ConfigurationError
from ..files.model_checks import load_config
from ..files.saving import current_folder, local_model, read_folder
from ..files.tokenizer_checks import try_tokenizer
from ..labels.clustering import fit_clusters
from ..labels.clusters import LabelClusters
from ..labels.space import LabelSpace
from ..labels.vocabulary import Vocabulary, vocabulary_labels
from ..modeling_xlgen import XLGenForConditionalGeneration
from ..modules.backbone import longest_sequence
from ..processing_xlgen import XLGenProcessor
from ..retrieval.candidate_inputs import CandidateInputs
from ..retrieval.documents import DocumentNames
from ..retrieval.model_sources import load_index
from .retriever import ContrastiveSettings, fit_retriever
from .settings import TrainingSettings
from .warm_start import start_from

__all__ = ["prepare_model", "retriever_cache", "texts_to_keep_tokens_of"]

logger = logging.getLogger(__name__)


_LEVEL_TEXTS = 5_000  # training texts whose candidates part the levels of their scores


def _concepts(settings: TrainingSettings) -> Vocabulary | None:
    return settings.vocabulary if isinstance(settings.vocabulary, Vocabulary) else None


def _further_names(settings: TrainingSettings, label_space: LabelSpace) -> list[tuple[int, str]]:
    """What counts in a new retriever besides labels."""
    vocabulary = _concepts(settings)
    if vocabulary is None:
        return []
    return vocabulary.further_names(
        label_space.index,
        names=settings.aliases is not False,
        other_languages=settings.other_languages is not False,
        definitions=settings.definitions,
    )


def _make_clusters(
    settings: TrainingSettings,
    label_space: LabelSpace,
    rows: Dataset,
    seed: int,
    cache_dir: Path,
    device: str | None,
) -> LabelClusters | None:
    if settings.variant in ("base", "rcl"):
        return None
    if settings.clusters is not None:
        space = LabelSpace.load(current_folder(settings.clusters))
        if space.names != label_space.names:
            raise ConfigurationError(
                f"The clusters in {settings.clusters} are for other labels ({len(space)}) than those of the training "
                f"data and vocabulary ({len(label_space)}). Make them from the same files, or leave --clusters out."
            )
        return read_folder(settings.clusters, lambda place: LabelClusters.load(place, num_labels=len(label_space)))
    return fit_clusters(
        label_space,
        rows["text"][:],
        [label_space.encode(labels) for labels in each_value(rows, "labels")],
        settings.encoder or settings.backbone,
        passage_prompt=settings.passage_prompt,
        num_clusters=settings.num_clusters,
        name_weight=settings.name_weight,
        hierarchy=_concepts(settings) if settings.cluster_by == "hierarchy" else None,
        seed=seed,
        cache_dir=cache_dir,
        device=device,
    )


def _label_space(settings: TrainingSettings, rows: Dataset, seed: int) -> LabelSpace:
    """The labels of rows and vocabulary, or those of the index that candidates come from, which may know more rows."""
    names = vocabulary_labels(settings.vocabulary)
    of_rows = LabelSpace.from_label_lists(each_value(rows, "labels"), names, settings.decode_order, seed)
    if settings.retriever is None or not settings.reads_candidates or settings.drop_labels:
        return of_rows
    indexed = LabelSpace.load(current_folder(settings.retriever))
    if of_rows.names == indexed.names or not set(of_rows.names) <= set(indexed.names):
        return of_rows  # others are refused when the index is loaded
    logger.info(
        "Labels, and how many training rows each one has, are those of the index %s: %d labels, %d of the training"
        " rows and the vocabulary here.",
        settings.retriever, len(indexed), len(of_rows),
    )  # fmt: skip
    return LabelSpace(indexed.names, indexed.counts, settings.decode_order, seed)


def _make_candidates(
    settings: TrainingSettings,
    label_space: LabelSpace,
    rows: Dataset,
    validation_rows: Dataset | None,
    seed: int,
    cache_dir: Path,
    dtype: NumberType,
    device: str | None,
) -> CandidateInputs | None:
    if not settings.reads_candidates:
        return None
    column = settings.id_column
    if settings.retriever is not None:
        retriever = load_index(settings.retriever, label_space)
        retriever.encoder[0].to(device or own_device())
    else:
        retriever = fit_retriever(
            label_space,
            rows,
            validation_rows,
            settings.encoder or settings.backbone,
            retriever_cache(cache_dir),
            query_prompt=settings.query_prompt,
            passage_prompt=settings.passage_prompt,
            contrastive=ContrastiveSettings(epochs=settings.retriever_epochs),
            lexical=settings.lexical,
            further=_further_names(settings, label_space),
            document_names=None if column is None else DocumentNames.of(row_ids(rows, column), []),
            dtype=dtype,
            device=device,
            seed=seed,
        )
    return CandidateInputs.fit(
        retriever,
        rows["text"][:_LEVEL_TEXTS],
        num_input_candidates=settings.num_input_candidates,
        conditioning=settings.chosen_conditioning() if settings.variant == "rcl" else "tokens",
    )


def retriever_cache(cache_dir: Path) -> Path:
    """Where the training of a model's own retriever keeps checkpoints and embeddings."""
    return cache_dir / "retriever"


def prepare_model(
    settings: TrainingSettings,
    rows: Dataset,
    validation_rows: Dataset | None = None,
    *,
    seed: int = 0,
    cache_dir: Path,
    dtype: NumberType = "float32",
    device: str | None = None,
) -> tuple[XLGenForConditionalGeneration, XLGenProcessor]:
    """Make label space, clusters, processor and an untrained model.

    Args:
        settings: what is trained.
        rows: the training rows, with `text` and `labels`.
        validation_rows: rows that a retriever is tuned on.
        seed: of clusters and fresh weights.
        cache_dir: where document embeddings are kept between runs.
        dtype: what a retriever that is made here is trained, and embeds the rows in.
        device: where texts and names are embedded; on a GPU where there is one if None. The model is on the CPU.

    Raises:
        CheckpointError: if a checkpoint cannot be loaded.
        ConfigurationError: if settings contradict each other or the data.
        ModelFolderError: if `start_from` names no XLGen model.
    """
    if settings.start_from is not None:
        load_config(local_model(settings.start_from, {}))  # a wrong name is refused now, not after hours
    label_space = _label_space(settings, rows, seed)
    if settings.trim_vocabulary:
        settings = _with_trimmed_checkpoints(settings, label_space, (rows, validation_rows), cache_dir)
    tokenizer, lengths = _tokenizer_and_lengths(settings)
    clusters = _make_clusters(settings, label_space, rows, seed, cache_dir, device)
    candidates = _make_candidates(settings, label_space, rows, validation_rows, seed, cache_dir, dtype, device)
    processor = XLGenProcessor(tokenizer, label_space, clusters, *lengths, candidates, vocabulary=_concepts(settings))
    if settings.alias_spellings:
        processor.spell_aliases()
    options = settings.model_options()
    if options["max_labels"] is None:
        options["max_labels"] = max(settings.min_labels, *map(len, each_value(rows, "labels")))
    set_seed(seed)
    model = XLGenForConditionalGeneration.from_backbone(
        settings.backbone,
        processor,
        variant=settings.variant,
        decoder_layers=settings.decoder_layers,
        dropout=settings.dropout,
        **options,
    )
    if settings.start_from is not None:
        start_from(model, processor, settings.start_from)
    return model, processor


def texts_to_keep_tokens_of(
    label_space: LabelSpace, splits: Iterable[Dataset | None], vocabulary: Vocabulary | list[str] | None
) -> list[str]:
    """Texts, label names, and further names and definitions of concepts, whose tokens a trimmed vocabulary keeps."""
    texts = [text for split in splits if split is not None for text in each_value(split, "text")]
    further = []
    if isinstance(vocabulary, Vocabulary):
        further = vocabulary.further_names(label_space.index, definitions=True)
    return [*texts, *label_space.names, *(name for _, name in further)]


def _with_trimmed_checkpoints(
    settings: TrainingSettings, label_space: LabelSpace, splits: Iterable[Dataset | None], cache_dir: Path
) -> TrainingSettings:
    texts = texts_to_keep_tokens_of(label_space, splits, settings.vocabulary)
    texts += filter(None, (settings.query_prompt, settings.passage_prompt))
    backbone = trim_checkpoint(settings.backbone, texts, cache_dir)
    encoder = None if settings.encoder is None else trim_checkpoint(settings.encoder, texts, cache_dir)
    return replace(settings, backbone=backbone, encoder=encoder)


def _tokenizer_and_lengths(settings: TrainingSettings) -> tuple[PreTrainedTokenizerBase, tuple[int, int]]:
    """The backbone's tokenizer, and the lengths of inputs and targets, cut down to the positions that it has."""
    path = fetch_checkpoint(settings.backbone)
    with checkpoint_errors(settings.backbone):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        tokenizer = try_tokenizer(Path(path), config)
    lengths = (settings.max_source_length, settings.max_target_length)
    limit = longest_sequence(config, tokenizer)
    if limit is not None and is_causal(config):
        return tokenizer, _lengths_in_one_row(settings.backbone, lengths, limit)
    if limit is not None and limit < max(lengths):
        logger.info("%s has positions for %d tokens; inputs and targets are cut there.", settings.backbone, limit)
        lengths = (min(lengths[0], limit), min(lengths[1], limit))
    return tokenizer, lengths


def _lengths_in_one_row(name: str, lengths: tuple[int, int], limit: int) -> tuple[int, int]:
    """Lengths of inputs and targets that a decoder-only model can read one after the other.

    Where both do not fit, inputs get half of its positions and targets a quarter; the rest is for what guides them.
    """
    if sum(lengths) <= limit * 3 // 4:
        return lengths
    lengths = (min(lengths[0], limit // 2), min(lengths[1], limit // 4))
    logger.info("%s has positions for %d tokens; inputs are cut at %d, targets at %d.", name, limit, *lengths)
    return lengths

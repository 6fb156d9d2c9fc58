"""The whole way from rows to a trained model folder: label space, clusters, model, training, decision."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from .adapter_base import BASE_FOLDER, is_adapter
from .backbone import longest_sequence
from .candidate_inputs import CandidateInputs
from .checkpoints import checkpoint_errors, resolve_checkpoint
from .clusters import LabelClusters
from .configuration_xlgen import Variant
from .data_collator import labelled_rows
from .errors import ConfigurationError
from .label_dropping import drop_labels
from .label_rows import label_side_rows
from .labels import DecodeOrder, LabelSpace
from .lora import Quantization, add_lora, check_quantization, require_peft, save_settings
from .modeling_xlgen import XLGenForConditionalGeneration
from .processing_xlgen import XLGenProcessor
from .retrieval import DenseRetriever
from .retriever_training import ContrastiveSettings, fit_retriever
from .trainer import XLGenTrainer
from .training_args import XLGenTrainingArguments
from .training_progress import run_training
from .training_report import write_training_report
from .warm_start import start_from

__all__ = ["TrainingSettings", "prepare_model", "train_model"]

logger = logging.getLogger(__name__)

_LEVEL_TEXTS = 5_000  # training texts whose candidates part the levels of their scores


@dataclass
class TrainingSettings:
    """What is trained, beside the training arguments.

    Attributes:
        backbone: checkpoint of a seq2seq model or of an encoder.
        variant: `base`, `bcl`, `mcg` or `rcl`.
        start_from: trained XLGen model, of any variant, whose weights the training starts from; its backbone must be
            the same.
        vocabulary: names beyond those of the training rows.
        clusters: folder that `xlgen cluster` wrote; clusters are made if None.
        encoder: checkpoint that embeds documents for clusters and retrieval; the backbone if None.
        num_clusters: number of clusters; grows with the label space if None.
        name_weight: weight of a label's name in its embedding, from 0 (documents alone) to 1.
        decode_order: order in which labels are generated, see [`LabelSpace`]; the paper has `freq_forward`.
        decoder_layers: layers of the decoder that an encoder checkpoint gets.
        dropout: dropout of the backbone; the checkpoint's own if None.
        drop_labels: share of each training row's labels that is dropped (PU), in [0, 1].
        label_rows: label-side rows for each training row, at least 0; the paper has none.
        retriever: `rcl`: folder that `xlgen index` wrote; one is made from the rows if None.
        retriever_epochs: `rcl`: epochs in which the encoder of a retriever that is made learns to match texts and
            label names; 0 takes it as it is.
        lexical: `rcl`: let spelling count in a retriever that is made, see [`LexicalIndex`].
        num_candidates: `rcl`: candidate labels that retrieval finds for a text.
        max_source_length: most tokens of an input.
        max_target_length: most tokens of a target.
        model_options: further fields of `XLGenConfig`.
        lora: train an adapter (see `xlgen_hf.lora`) in place of the whole model.
        lora_rank: its rank.
        lora_alpha: its changes are scaled by `lora_alpha / lora_rank`.
        quantize: hold the adapter's base in 4 or 8 bits; needs a GPU.
        sources: split -> where its rows come from, for the report of the training.
    """

    backbone: str
    variant: Variant = "base"
    start_from: str | None = None
    vocabulary: list[str] | None = None
    clusters: str | Path | None = None
    encoder: str | None = None
    num_clusters: int | None = None
    name_weight: float = 0.0
    decode_order: DecodeOrder = "freq_backward"
    decoder_layers: int = 2
    dropout: float | None = None
    drop_labels: float = 0.0
    label_rows: float = 0.3
    retriever: str | Path | None = None
    retriever_epochs: float = 1.0
    lexical: bool = True
    num_candidates: int = 16
    max_source_length: int = 256
    max_target_length: int = 256
    model_options: dict[str, Any] = field(default_factory=dict)
    lora: bool = False
    lora_rank: int = 16
    lora_alpha: float = 32
    quantize: Quantization | None = None
    sources: dict[str, str] = field(default_factory=dict)

    def check_lora(self) -> None:
        """Refuse, before anything is computed, an adapter that cannot be trained here.

        Raises:
            ConfigurationError: if a quantized base is asked for without an adapter, or without a GPU.
            MissingExtraError: if peft or bitsandbytes is needed and not installed.
        """
        if self.lora:
            require_peft()
            check_quantization(self.quantize)
        elif self.quantize is not None:
            raise ConfigurationError("--quantize holds the base of an adapter in fewer bits; add --lora.")


def _make_clusters(
    settings: TrainingSettings, label_space: LabelSpace, rows: Dataset, seed: int, cache_dir: Path
) -> LabelClusters | None:
    if settings.variant in ("base", "rcl"):
        return None
    if settings.clusters is not None:
        space = LabelSpace.load(settings.clusters)
        if space.names != label_space.names:
            raise ConfigurationError(
                f"The clusters in {settings.clusters} are for other labels ({len(space)}) than those of the training "
                f"data and vocabulary ({len(label_space)}). Make them from the same files, or leave --clusters out."
            )
        return LabelClusters.load(settings.clusters, num_labels=len(label_space))
    return LabelClusters.fit(
        label_space,
        rows["text"][:],
        [label_space.encode(labels) for labels in rows["labels"]],
        settings.encoder or settings.backbone,
        num_clusters=settings.num_clusters,
        name_weight=settings.name_weight,
        seed=seed,
        cache_dir=cache_dir,
    )


def _make_candidates(
    settings: TrainingSettings,
    label_space: LabelSpace,
    rows: Dataset,
    validation_rows: Dataset | None,
    seed: int,
    cache_dir: Path,
) -> CandidateInputs | None:
    if settings.variant != "rcl":
        return None
    if settings.retriever is not None:
        retriever = DenseRetriever.load_index(settings.retriever, label_space)
    else:
        retriever = fit_retriever(
            label_space,
            rows,
            validation_rows,
            settings.encoder or settings.backbone,
            cache_dir / "retriever",
            contrastive=ContrastiveSettings(epochs=settings.retriever_epochs),
            lexical=settings.lexical,
            seed=seed,
        )
    return CandidateInputs.fit(
        retriever,
        rows["text"][:_LEVEL_TEXTS],
        num_candidates=settings.num_candidates,
        conditioning=settings.model_options.get("conditioning", "tokens"),
    )


def prepare_model(
    settings: TrainingSettings,
    rows: Dataset,
    validation_rows: Dataset | None = None,
    *,
    seed: int = 0,
    cache_dir: Path,
) -> tuple[XLGenForConditionalGeneration, XLGenProcessor]:
    """Make label space, clusters, processor and an untrained model.

    Args:
        settings: what is trained.
        rows: the training rows, with `text` and `labels`.
        validation_rows: rows that a retriever is tuned on.
        seed: of clusters and fresh weights.
        cache_dir: where document embeddings are kept between runs.

    Raises:
        CheckpointError: if a checkpoint cannot be loaded.
        ConfigurationError: if settings contradict each other or the data.
    """
    tokenizer, lengths = _tokenizer_and_lengths(settings)
    label_space = LabelSpace.from_label_lists(rows["labels"], settings.vocabulary, settings.decode_order, seed)
    clusters = _make_clusters(settings, label_space, rows, seed, cache_dir)
    candidates = _make_candidates(settings, label_space, rows, validation_rows, seed, cache_dir)
    processor = XLGenProcessor(tokenizer, label_space, clusters, *lengths, candidates)
    most_labels = max(len(labels) for labels in rows["labels"])
    set_seed(seed)
    model = XLGenForConditionalGeneration.from_backbone(
        settings.backbone,
        processor,
        variant=settings.variant,
        decoder_layers=settings.decoder_layers,
        dropout=settings.dropout,
        **{"max_labels": most_labels, **settings.model_options},
    )
    if settings.start_from is not None:
        start_from(model, processor, settings.start_from)
    return model, processor


def _tokenizer_and_lengths(settings: TrainingSettings) -> tuple[PreTrainedTokenizerBase, tuple[int, int]]:
    """The backbone's tokenizer, and the lengths of inputs and targets, cut down to the positions that it has."""
    path = resolve_checkpoint(settings.backbone)
    with checkpoint_errors(settings.backbone):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    lengths = (settings.max_source_length, settings.max_target_length)
    limit = longest_sequence(config, tokenizer)
    if limit is not None and limit < max(lengths):
        logger.info("%s has positions for %d tokens; inputs and targets are cut there.", settings.backbone, limit)
        lengths = (min(lengths[0], limit), min(lengths[1], limit))
    return tokenizer, lengths


def train_model(
    settings: TrainingSettings,
    args: XLGenTrainingArguments,
    train_rows: Dataset,
    validation_rows: Dataset | None = None,
) -> tuple[XLGenForConditionalGeneration, XLGenProcessor, dict[str, float]]:
    """Train a model and leave in `args.output_dir` all that predicting needs.

    A run that was interrupted goes on from the last checkpoint in that folder, with the result of a run that was not.

    Args:
        settings: what is trained.
        args: how it is trained.
        train_rows: rows with `text` and `labels`.
        validation_rows: rows that choose the best checkpoint, and the least number of labels.

    Returns:
        The trained model (with `settings.lora` a `PeftModel` around it), its processor, and the scores on the
        validation rows (empty without such rows).

    Raises:
        ConfigurationError: if settings contradict each other, the data or what is in the folder.
        KeyboardInterrupt: after an interrupt, once the checkpoint is written.
    """
    settings.check_lora()
    output_dir, started = Path(args.output_dir), time.monotonic()
    train_rows = labelled_rows(train_rows)
    if settings.drop_labels:
        train_rows = labelled_rows(drop_labels(train_rows, settings.drop_labels, args.seed))
    model, processor = prepare_model(
        settings, train_rows, validation_rows, seed=args.seed, cache_dir=output_dir / "cache"
    )
    if settings.lora:
        model = _with_adapter(model, processor, settings, args)
    logger.info(
        "%s: %d parameters, %d training rows, %r, %s.",
        settings.variant,
        model.num_parameters(),
        len(train_rows),
        processor.label_space,
        processor.clusters,
    )
    rows = _with_label_rows(train_rows, processor.label_space, settings.label_rows, args.seed)
    trainer = XLGenTrainer(
        model,
        args,
        processing_class=processor,
        train_dataset=rows,
        eval_dataset=validation_rows,
    )
    checkpoint = _checkpoint_of(output_dir, lora=settings.lora)
    run_training(trainer, checkpoint)
    scores: dict[str, float] = {}
    if validation_rows is not None:
        if args.tune_decisions:
            trainer.tune_decisions()
        scores = trainer.evaluate()
    if settings.lora:
        save_settings(model, output_dir / BASE_FOLDER)
    trainer.save_model()
    trainer.save_state()
    seconds = None if checkpoint else time.monotonic() - started
    _report(trainer, settings, {"train": train_rows, "validation": validation_rows}, scores, seconds)
    return model, processor, scores


def _with_adapter(
    model: Any, processor: XLGenProcessor, settings: TrainingSettings, args: XLGenTrainingArguments
) -> Any:
    """Put an adapter on the model and keep its base in the output folder."""
    base = Path(args.output_dir) / BASE_FOLDER
    set_seed(args.seed)  # a base that is loaded, not made, has drawn other numbers
    adapted = add_lora(
        model, processor, base, r=settings.lora_rank, alpha=settings.lora_alpha, quantize=settings.quantize
    )
    trained, whole = adapted.get_nb_trainable_parameters()
    logger.info("LoRA: %d of %d parameters are trained (%.1f %%).", trained, whole, 100 * trained / whole)
    return adapted


def _report(
    trainer: XLGenTrainer,
    settings: TrainingSettings,
    rows: dict[str, Dataset | None],
    scores: dict[str, float],
    seconds: float | None,
) -> None:
    write_training_report(
        Path(trainer.args.output_dir),
        _reported(settings),
        trainer.args,
        rows,
        settings.sources,
        model=trainer.model,
        processor=trainer.processing_class,
        scores=scores,
        seconds=seconds,
    )


def _reported(settings: TrainingSettings) -> dict[str, Any]:
    """The settings that decide the result, without paths and lists of names."""
    left_out = ("vocabulary", "clusters", "encoder", "retriever", "sources", "model_options")
    values = {name: value for name, value in vars(settings).items() if name not in left_out and value is not None}
    return {**values, **settings.model_options, "backbone": settings.backbone, "variant": settings.variant}


def _with_label_rows(rows: Dataset, label_space: LabelSpace, rate: float, seed: int) -> Dataset:
    if rate < 0:
        raise ConfigurationError(
            f"label_rows={rate}; the number of label-side rows for a training row is not negative."
        )
    if rate == 0:
        return rows
    extra = Dataset.from_list(label_side_rows(label_space, round(rate * len(rows)), seed), features=rows.features)
    return concatenate_datasets([rows, extra])


def _checkpoint_of(output_dir: Path, *, lora: bool) -> str | None:
    """The last checkpoint of a run in the folder, if there is one."""
    checkpoint: str | None = get_last_checkpoint(output_dir) if output_dir.is_dir() else None
    if checkpoint is not None and is_adapter(checkpoint) != lora:
        raise ConfigurationError(
            f"{checkpoint} is of a run {'without' if lora else 'with'} LoRA, this one is "
            f"{'with' if lora else 'without'} it. Choose another output folder, or remove that one."
        )
    return checkpoint

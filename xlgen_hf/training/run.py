"""The whole way from rows to a trained model folder: label space, clusters, model, training, decision."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import generate_random_fingerprint
from transformers import PreTrainedModel, set_seed

from ..data.transforms import LABEL_SIDE, drop_labels, label_side_rows, numbers_of_labels, rows_that_teach
from ..errors import ConfigurationError
from ..files.adapter_base import BASE_FOLDER, is_adapter
from ..files.training_report import read_report
from ..hub.card_text import CARD_FILE
from ..hub.local_cards import write_local_card
from ..hub.push import push_model
from ..labels.space import LabelSpace
from ..labels.vocabulary import Vocabulary
from ..loading import load_model
from ..modeling_xlgen import XLGenForConditionalGeneration
from ..processing_xlgen import XLGenProcessor
from .arguments import XLGenTrainingArguments, first_process_first
from .build import prepare_model, retriever_cache
from .checkpoints import newest_checkpoint, remove_checkpoints
from .lazy_rows import LazyRows
from .lora import add_lora, save_settings
from .progress import run_training
from .report import write_training_report
from .retriever import remove_encoder_checkpoints
from .run_record import describe_run, finished_scores, holds_earlier_work, start_record
from .settings import TrainingSettings
from .trainer import XLGenTrainer, make_repository, repository_of

__all__ = ["train_model", "with_label_rows"]

logger = logging.getLogger(__name__)


def train_model(
    settings: TrainingSettings,
    args: XLGenTrainingArguments,
    train_rows: Dataset,
    validation_rows: Dataset | None = None,
    *,
    on_start: Callable[[], None] | None = None,
) -> tuple[XLGenForConditionalGeneration, XLGenProcessor, dict[str, float]]:
    """Train a model and leave in `args.output_dir` all that predicting needs.

    A run that was interrupted continues from the last checkpoint in that folder, with the result of a run that was
    not; one that is complete is not repeated, and keeps its checkpoints only with `args.keep_checkpoints`. Of several
    processes the first one writes.

    Args:
        settings: what is trained.
        args: how it is trained.
        train_rows: rows with `text` and `labels`.
        validation_rows: rows that choose the best checkpoint, and the minimum number of labels.
        on_start: called in the process that writes, once the output folder is known to be free for this run.

    Returns:
        The trained model (with `settings.lora` a `PeftModel` around it, unless the run was complete before), its
        processor, and the scores on the validation rows (empty without such rows).

    Raises:
        ConfigurationError: if settings contradict each other, the data or what is in the folder.
        HubError: if the model is to go to the Hub, and that refuses or cannot be reached.
        KeyboardInterrupt: after an interrupt, once the checkpoint is written.
    """
    _check_retriever(settings, args)
    settings.check_folders()
    _check_what_predicts(settings, args)
    settings = settings.resolved()
    settings.check_lora()
    rows = {"train": train_rows, "validation": validation_rows}
    output_dir = Path(args.output_dir)
    is_known = start_record(output_dir, describe_run(settings, args, rows), write=args.should_save)
    complete = finished_scores(output_dir) if is_known else None
    if complete is not None:
        logger.info("%s holds the finished result of this run; there is nothing to do.", output_dir)
        if args.should_save:
            _tidy(args)
        return *load_model(str(output_dir), device=str(args.device)), complete
    if args.should_save and args.push_to_hub:
        make_repository(args)  # what is wrong with it is told before the work
    if args.should_save and on_start is not None:
        on_start()
    return _train(settings, args, train_rows, validation_rows)


def _train(
    settings: TrainingSettings, args: XLGenTrainingArguments, train_rows: Dataset, validation_rows: Dataset | None
) -> tuple[XLGenForConditionalGeneration, XLGenProcessor, dict[str, float]]:
    """[`train_model`], where something is left to do."""
    started, continues = time.monotonic(), holds_earlier_work(_cache_of(args))
    train_rows = train_rows.select(rows_that_teach(train_rows))
    if settings.drop_labels:
        train_rows = drop_labels(train_rows, settings.drop_labels, args.seed)
    with first_process_first(args):  # the others read its caches
        model, processor = _prepared(settings, args, train_rows, validation_rows)
    logger.info(
        "%s: %d parameters, %d training rows, %r, %s.",
        settings.variant,
        model.num_parameters(),
        len(train_rows),
        processor.label_space,
        processor.clusters,
    )
    to_learn = with_label_rows(train_rows, processor.label_space, settings, args.seed)
    trainer = XLGenTrainer(
        model,
        args,
        processing_class=processor,
        train_dataset=LazyRows(to_learn, processor) if args.streaming else to_learn,
        eval_dataset=validation_rows,
    )
    if args.predict_with is not None:
        trainer.base_model().config.predicts_with = args.predict_with
    checkpoint = _checkpoint_of(Path(args.output_dir), lora=bool(settings.lora))
    run_training(trainer, checkpoint)
    logs = list(trainer.state.log_history)  # of the training alone: what follows decides in another way
    scores = _finish(trainer, settings, has_validation=validation_rows is not None)
    seconds = None if checkpoint or continues else time.monotonic() - started
    if args.should_save:
        _report(trainer, settings, {"train": train_rows, "validation": validation_rows}, scores, seconds, logs)
        write_local_card(Path(args.output_dir))
    if args.push_to_hub:
        trainer.push_to_hub()
    if args.should_save and not args.keep_checkpoints:
        _remove_checkpoints(args)
    return model, trainer.processing_class, scores


def _tidy(args: XLGenTrainingArguments) -> None:
    """Do what comes after the report, as far as the run was killed before it."""
    folder = Path(args.output_dir)
    if not (folder / CARD_FILE).exists():
        write_local_card(folder)
    if args.push_to_hub:  # where it is there already, no commit is made
        private = bool(args.hub_private_repo)
        push_model(str(folder), repository_of(args), token=args.hub_token, revision=args.hub_revision, private=private)
    if not read_report(folder).get("keeps_checkpoints", True):
        _remove_checkpoints(args)


def _remove_checkpoints(args: XLGenTrainingArguments) -> None:
    remove_checkpoints(args.output_dir)
    remove_encoder_checkpoints(retriever_cache(_cache_of(args)))


def _finish(trainer: XLGenTrainer, settings: TrainingSettings, *, has_validation: bool) -> dict[str, float]:
    """Choose how the trained model decides, score it on the validation rows if there are any, and save it."""
    scores: dict[str, float] = {}
    if has_validation:
        with trainer.keeping_weights():
            if trainer.args.tune_decisions:
                trainer.tune_decisions()
            scores = trainer.evaluate()
    if settings.lora and trainer.args.should_save:
        save_settings(trainer.model, Path(trainer.args.output_dir) / BASE_FOLDER)
    trainer.save_model(_internal_call=True)  # the card of a push wants the report, which comes last
    trainer.save_state()
    return scores


def _check_retriever(settings: TrainingSettings, args: XLGenTrainingArguments) -> None:
    if settings.drop_labels and settings.retriever is not None and settings.reads_candidates:
        raise ConfigurationError(
            f"The index {settings.retriever} knows the labels that drop_labels={settings.drop_labels} takes from the "
            "training rows. Leave out --retriever: the training makes an index of the labels that are left "
            "(--retriever-epochs 0 takes the encoder as it is)."
        )
    if args.world_size > 1 and settings.reads_candidates and settings.retriever is None and settings.retriever_epochs:
        raise ConfigurationError(
            "Several processes cannot train a retriever together. Train it first, with `xlgen index`, and name its "
            "folder with --retriever; or take the encoder as it is, with --retriever-epochs 0."
        )


def _check_what_predicts(settings: TrainingSettings, args: XLGenTrainingArguments) -> None:
    """Refuse, before anything is computed, predictions by a part of the model that is not trained, and its targets."""
    as_vectors = settings.variant == "rcl" and settings.chosen_conditioning() == "memory"
    has_head = settings.reads_candidates and settings.candidate_loss_weight > 0 and not as_vectors
    if args.soft_targets and not has_head:
        raise ConfigurationError(
            f"soft_targets={args.soft_targets!r} has no effect: these settings train no candidate head, which takes "
            "candidates as tokens and a candidate_loss_weight above 0."
        )
    lacks = {
        "candidate_head": not has_head or settings.variant == "mcg",
        "generator": settings.generation_loss_weight == 0,
    }
    if args.predict_with is not None and lacks[args.predict_with]:
        raise ConfigurationError(
            f"predict_with={args.predict_with!r}: these settings do not train it. A candidate head takes "
            "variant='rcl' or candidates, as tokens, and a candidate_loss_weight above 0; a generator takes a "
            "generation_loss_weight above 0."
        )


def _prepared(
    settings: TrainingSettings, args: XLGenTrainingArguments, train_rows: Dataset, validation_rows: Dataset | None
) -> tuple[PreTrainedModel, XLGenProcessor]:
    """The model to train, with an adapter if it is to have one, and its processor."""
    model, processor = prepare_model(
        settings,
        train_rows,
        validation_rows,
        seed=args.seed,
        cache_dir=_cache_of(args),
        dtype="bfloat16" if args.bf16 else "float32",
        device=str(args.device),
    )
    return (_with_adapter(model, processor, settings, args) if settings.lora else model), processor


def _cache_of(args: XLGenTrainingArguments) -> Path:
    return Path(args.output_dir) / "cache"


def _with_adapter(
    model: XLGenForConditionalGeneration,
    processor: XLGenProcessor,
    settings: TrainingSettings,
    args: XLGenTrainingArguments,
) -> PreTrainedModel:
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
    logs: list[dict[str, float]],
) -> None:
    write_training_report(
        Path(trainer.args.output_dir),
        {**settings.published(), "backbone": settings.backbone, "variant": settings.variant},
        trainer.args,
        rows,
        settings.sources,
        model=trainer.model,
        processor=trainer.processing_class,
        scores=scores,
        seconds=seconds,
        logs=logs,
    )


def _label_row_rate(settings: TrainingSettings) -> float:
    """Label-side rows for each training row; they teach to generate, and the candidate head nothing."""
    return settings.label_rows if settings.generation_loss_weight > 0 else 0.0


def with_label_rows(rows: Dataset, label_space: LabelSpace, settings: TrainingSettings, seed: int) -> Dataset:
    """Training rows and, marked, the label-side rows that the settings ask for, see [`label_side_rows`]."""
    number = round(_label_row_rate(settings) * np.count_nonzero(numbers_of_labels(rows)))
    if number == 0:
        return rows
    further = []
    if settings.alias_rows and isinstance(settings.vocabulary, Vocabulary):
        further = settings.vocabulary.further_names(label_space.index)
    rows = rows.select_columns(["text", "labels"])  # label-side rows have no ids
    extra = Dataset.from_list(label_side_rows(label_space, number, seed, further), features=rows.features)
    return concatenate_datasets([_marked(rows, False), _marked(extra, True)])


def _marked(rows: Dataset, label_side: bool) -> Dataset:
    """Rows with the mark of label-side rows; without a fingerprint of the content, which would pickle all of it."""
    mark = np.full(len(rows), label_side)
    return rows.add_column(LABEL_SIDE, mark, new_fingerprint=generate_random_fingerprint())


def _checkpoint_of(output_dir: Path, *, lora: bool) -> str | None:
    """The last checkpoint of a run in the folder, if there is one."""
    newest = newest_checkpoint(output_dir)
    checkpoint = None if newest is None else str(newest.folder)
    if checkpoint is not None and is_adapter(checkpoint) != lora:
        raise ConfigurationError(
            f"{checkpoint} is of a run {'without' if lora else 'with'} LoRA, this one is "
            f"{'with' if lora else 'without'} it. Choose another output folder, or remove that one."
        )
    return checkpoint

"""The trainer: `Seq2SeqTrainer` with two learning rates, length buckets, and evaluation by generated label sets."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Sampler, SequentialSampler
from transformers import Seq2SeqTrainer, TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalPrediction

from ..data.transforms import labelled_rows
from ..decoding.decoded_sets import DecodingOptions
from ..errors import ConfigurationError
from ..evaluation.scoring import score_ids
from ..files.saving import replace_files
from ..files.serialization import write_json
from ..hub.push import PushReport, push_model
from ..modeling_xlgen import XLGenForConditionalGeneration
from ..prediction.generator import Generator
from ..processing_xlgen import XLGenProcessor
from .arguments import XLGenTrainingArguments
from .collator import DataCollatorForXLGen, encode_dataset
from .sampler import LengthBucketSampler
from .tuning import tune_model

__all__ = ["XLGenTrainer"]

logger = logging.getLogger(__name__)

_FILL = -100  # fills ragged rows of label ids up
_ENCODED_COLUMN = "text_ids"


class _EpochCallback(TrainerCallback):
    """Tells collator and model which epoch it is."""

    def __init__(self, trainer: XLGenTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the epoch that the collator draws for, and anneal the cluster loss."""
        epoch = int(state.epoch or 0)
        self.trainer.data_collator.epoch = epoch
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        model = model.get_base_model() if _has_adapter(model) else model
        if model.config.cluster_loss_annealing:
            model.cluster_loss_scale = 1.0 / (epoch + 1)


class XLGenTrainer(Seq2SeqTrainer):
    """Trains an XLGen model.

    Args:
        model: the model, or an adapter on one (see `xlgen_hf.training.lora`).
        args: the arguments.
        train_dataset: rows with `text` and `labels` (or rows from [`encode_dataset`]); rows without labels are left
            out and counted.
        eval_dataset: rows of the same kind, or a dictionary of such; labels outside the label space are reported and
            count as missed.
        processing_class: the model's processor.
        kwargs: further arguments of `Seq2SeqTrainer`.

    Evaluation generates label sets (by the model's own search, or with `generation_num_beams`) and reports micro and
    macro F1 with the project's metric, by shot where training counts are known.
    """

    optimizer: torch.optim.Optimizer | None
    data_collator: Any

    processing_class: XLGenProcessor

    def __init__(
        self,
        model: XLGenForConditionalGeneration,
        args: XLGenTrainingArguments,
        *,
        processing_class: XLGenProcessor,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(processing_class, XLGenProcessor):
            raise ConfigurationError(
                f"processing_class is a {type(processing_class).__name__}; an XLGenProcessor is needed."
            )
        if _has_adapter(model) and not model.active_peft_config.base_model_name_or_path:
            raise ConfigurationError(
                "The adapter's base is in no folder, so nobody could load the adapter. Make the adapter with "
                "xlgen_hf.training.lora.add_lora, which saves the base, or on a model that from_pretrained has loaded."
            )
        collator = DataCollatorForXLGen(
            processing_class,
            model.config.variant,
            clusters_only_rate=args.clusters_only_rate,
            cluster_noise=args.cluster_noise,
            seed=args.seed,
        )
        kwargs.setdefault("data_collator", collator)
        kwargs.setdefault("compute_metrics", self._label_set_metrics)
        self._loss_parts: dict[str, list[torch.Tensor]] = {}
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            train_dataset=_encode_training_rows(train_dataset, processing_class),
            eval_dataset=_encode_evaluation_rows(eval_dataset, processing_class),
            **kwargs,
        )
        self.add_callback(_EpochCallback(self))

    # ------------------------------------------------------------------------------------------------ training

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW (or what the arguments say) with a learning rate for fresh and one for pretrained parameters."""
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(self._parameter_groups(model), **options)
        return self.optimizer

    def _parameter_groups(self, model: Any) -> list[dict[str, Any]]:
        decayed = set(self.get_decay_parameter_names(model))
        is_fresh = self.accelerator.unwrap_model(model).is_fresh
        groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                key = (is_fresh(name.removeprefix("module.")), name in decayed)
                groups.setdefault(key, []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": self.args.fresh_learning_rate if fresh else self.args.learning_rate,
                "weight_decay": self.args.weight_decay if decay else 0.0,
            }
            for (fresh, decay), parameters in groups.items()
        ]

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not self.args.length_bucketing or dataset is None or not hasattr(dataset, "__len__"):
            return super()._get_train_sampler(train_dataset)
        batch_size = self.args.train_batch_size * self.args.world_size
        return LengthBucketSampler(dataset["length"][:], batch_size, self.args.data_seed or self.args.seed)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        if self.args.world_size > 1:
            return super()._get_eval_sampler(eval_dataset)
        return SequentialSampler(eval_dataset)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any) -> Any:
        """The model's loss; keeps its parts for the log."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        if model.training:
            for name in ("generation_loss", "cluster_loss"):
                if outputs.get(name) is not None:
                    self._loss_parts.setdefault(name, []).append(outputs[name].detach())
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the means of generation loss and cluster loss since the last log of a loss."""
        if "loss" in logs:
            for name, values in self._loss_parts.items():
                logs[name] = round(float(torch.stack(values).float().mean()), 4)
            self._loss_parts = {}
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save model (of an adapter: adapter and config) and processor, all of them or nothing.

        The arguments are written as JSON instead of the pickle that the base class writes.
        """
        if not self.args.should_save:
            super()._save(output_dir, state_dict)
            return
        with replace_files(output_dir or self.args.output_dir) as folder:
            super()._save(str(folder), state_dict)
            if _has_adapter(self.model):
                self.model.config.save_pretrained(folder)
            (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
            write_json(folder / "training_args.json", json.loads(self.args.to_json_string()))

    def push_to_hub(
        self,
        commit_message: str | None = None,
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> PushReport | None:
        """Save model and processor, and put them up with a card in one commit.

        Args:
            commit_message: message of the commit.
            blocking: kept from the base class; the push is always waited for.
            token: in place of `args.hub_token`.
            revision: branch, in place of `args.hub_revision`.
            private: make a new repository private, in place of `args.hub_private_repo`.
            kwargs: further options of `xlgen_hf.hub.push.push_model`.

        Returns:
            Files and commit; None on processes other than the first.

        Raises:
            HubError: if the Hub refuses or cannot be reached.
        """
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        return push_model(
            str(self.args.output_dir),
            self.args.hub_model_id or Path(self.args.output_dir).name,
            message=commit_message,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
            private=bool(self.args.hub_private_repo if private is None else private),
            **kwargs,
        )

    # ------------------------------------------------------------------------------------------------ evaluation

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Evaluation batches, which carry what generation and scoring need."""
        return self._with_references(super().get_eval_dataloader, eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """Prediction batches, which carry what generation and scoring need."""
        rows = _encode_evaluation_rows(test_dataset, self.processing_class)
        return self._with_references(super().get_test_dataloader, rows)

    def _with_references(self, make: Any, dataset: Any) -> Any:
        training_collator = self.data_collator
        self.data_collator = DataCollatorForXLGen(
            self.processing_class, self.model.config.variant, references=True, clusters_only_rate=0, cluster_noise=0
        )
        try:
            return make(dataset)
        finally:
            self.data_collator = training_collator

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Loss, predicted label ids `(B, max_labels)` and reference label ids, both filled up with -100."""
        inputs = self._prepare_inputs(dict(inputs))
        references, texts = inputs.pop("reference_ids"), inputs.pop("texts")
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs).detach().mean()
        if prediction_loss_only or not self.args.predict_with_generate:
            return loss, None, None
        options = {**self._gen_kwargs, **gen_kwargs} if hasattr(self, "_gen_kwargs") else gen_kwargs
        beams = options.get("num_beams") or self.args.generation_num_beams  # if None, the model's own search
        unwrapped = self.accelerator.unwrap_model(model)
        generator = Generator(unwrapped, self.processing_class, DecodingOptions(num_beams=beams))
        decoded = generator.decode(generator.encode(texts))
        width = model.config.max_labels
        predicted = [(one.labels + [_FILL] * width)[:width] for one in decoded]
        return loss, torch.tensor(predicted, device=references.device), references

    def _label_set_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        return self._score(_ragged(prediction.predictions), _ragged(prediction.label_ids))

    def _score(self, predicted: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        """Scores of label ids; those from `L` on are names outside the label space, which training never saw."""
        counts = self.processing_class.label_space.counts
        size = max([len(counts), *(max(ids) + 1 for ids in references if ids)])
        counts = np.pad(counts, (0, size - len(counts)))
        return score_ids(predicted, references, num_labels=size, train_counts=counts, k=())

    @torch.no_grad()
    def tune_decisions(self, choices: Sequence[int] = (1, 2, 3, 4, 5, 6)) -> int:
        """Choose, on the evaluation rows, how the model searches and decides, and calibrate its scores.

        See [`tune_model`]; `args.decision_beams` beams compete with greedy search.

        Returns:
            The chosen `min_labels`, which the model's config keeps, as it does the search.
        """
        self.model.eval()
        batches, references = [], []
        for batch in self.get_eval_dataloader():
            batches.append(batch["texts"])
            references += _ragged(batch["reference_ids"].cpu().numpy())
        highest = self.model.config.max_labels
        score_model = tune_model(
            self.model,
            self.processing_class,
            batches,
            references,
            lambda sets: self._score(sets, references)["micro_f1"],
            num_beams=self.args.decision_beams,
            choices=sorted({min(choice, highest) for choice in choices}),
        )
        self.processing_class = self.processing_class.with_score_model(score_model)
        chosen: int = self.model.config.min_labels
        return chosen


def _has_adapter(model: Any) -> bool:
    """Whether a model is a `PeftModel`, told without an import of peft."""
    return hasattr(model, "active_peft_config")


def _ragged(matrix: np.ndarray) -> list[list[int]]:
    """Rows filled up with -100 -> ragged rows."""
    return [row[row != _FILL].tolist() for row in matrix]


def _is_encoded(dataset: Dataset) -> bool:
    return _ENCODED_COLUMN in dataset.column_names


def _encode_training_rows(dataset: Dataset | None, processor: XLGenProcessor) -> Dataset | None:
    if dataset is None or _is_encoded(dataset):
        return dataset
    kept = labelled_rows(dataset)
    return encode_dataset(kept, processor, "Training data", training=True)


def _encode_evaluation_rows(dataset: Any, processor: XLGenProcessor) -> Any:
    if isinstance(dataset, dict):
        return {name: _encode_evaluation_rows(rows, processor) for name, rows in dataset.items()}
    if dataset is None or _is_encoded(dataset):
        return dataset
    return encode_dataset(dataset, processor, "Evaluation data", allow_unknown=True)

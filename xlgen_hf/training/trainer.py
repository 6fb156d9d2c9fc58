"""The trainer: `Seq2SeqTrainer` with two learning rates, length buckets, and evaluation by generated label sets."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import EvalPrediction

from ..configuration_xlgen import TUNED_FIELDS
from ..data.options import RowOptions
from ..data.rows import RowSource
from ..errors import ConfigurationError, XLGenError
from ..evaluation.scoring import score_ids
from ..files.saving import replace_files
from ..files.serialization import write_json
from ..hub.commits import HubTarget, prepare_repository
from ..hub.push import PushReport, push_model
from ..modeling_xlgen import XLGenForConditionalGeneration, XLGenOutput
from ..processing_xlgen import XLGenProcessor
from .arguments import XLGenTrainingArguments, check_processes
from .collator import Batch, DataCollatorForXLGen, ShareCollator
from .evaluating import EvaluatingTrainer, has_adapter, ragged
from .inputs import EvaluationRows, encode_evaluation_rows, encode_training_rows
from .lazy_rows import LazyRows
from .lora import save_active_adapter
from .losses import LOSSES, check_batch, loss_sums
from .partners import (
    check_best_metric,
    check_epochs,
    check_partners,
    check_processor,
    check_stream,
    place_encoder,
    prepare_model,
)
from .sampler import LengthBucketSampler
from .searching import SearchingTrainer
from .streaming import EncodedStream
from .tuning import tune_model

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..hub.push import ModelOptions

__all__ = ["XLGenTrainer", "make_repository", "repository_of"]

logger = logging.getLogger(__name__)


def repository_of(args: XLGenTrainingArguments) -> str:
    """The repository that a model goes to: `hub_model_id`, or one called as the output folder is."""
    return args.hub_model_id or Path(args.output_dir).absolute().name


def make_repository(args: XLGenTrainingArguments, *, token: str | None = None, private: bool | None = None) -> str:
    """Make the repository that a model goes to, where it does not exist yet.

    Args:
        args: they name it, and say who may see it.
        token: instead of `args.hub_token`.
        private: instead of `args.hub_private_repo`.

    Returns:
        Its whole id.

    Raises:
        HubError: if the Hub refuses or cannot be reached.
    """
    private = args.hub_private_repo if private is None else private
    return prepare_repository(HubTarget(repository_of(args), private, token=token or args.hub_token), "model").repo_id


class _EpochCallback(TrainerCallback):
    """Tells collator, sampler and model which epoch it is."""

    def __init__(self, trainer: XLGenTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: XLGenTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Weigh the cluster loss as in the epoch that was under way: a resumed run may begin with its evaluation."""
        self._anneal(max(math.ceil(state.epoch or 0) - 1, 0))

    def on_epoch_begin(
        self, args: XLGenTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Set the epoch that collator and sampler draw for, and anneal the cluster loss."""
        epoch = int(state.epoch or 0)
        if isinstance(self.trainer.data_collator, DataCollatorForXLGen):
            self.trainer.data_collator.epoch = epoch
        if isinstance(self.trainer.train_sampler, LengthBucketSampler):
            self.trainer.train_sampler.set_epoch(epoch)
        self._anneal(epoch)

    def _anneal(self, epoch: int) -> None:
        model = self.trainer.base_model()
        if model.config.cluster_loss_annealing:
            model.cluster_loss_scale = 1.0 / (epoch + 1)


class XLGenTrainer(SearchingTrainer, EvaluatingTrainer):
    """Trains an XLGen model.

    Several processes (`torchrun`, `accelerate launch`) share each batch of `per_device_train_batch_size` times their
    number: losses and gradients are those of one process with the whole batch, its incomplete last one included.

    Args:
        model: the model, or an adapter on one (see `xlgen_hf.training.lora`).
        args: the arguments.
        processing_class: the model's processor.
        train_dataset: rows in memory in any form that `load_rows` reads (data sets of `datasets` or torch, lists of
            dictionaries, data frames, ...), or a stream of rows (an `IterableDataset` of `datasets` or torch). Few
            rows without labels are left out and counted, see [`learns_from_none`]. Rows from [`encode_dataset`] are
            taken as they are.
        eval_dataset: rows of the same kinds but streams, or a dictionary of such; labels outside the label space are
            reported and count as missed.
        row_options: the columns of these rows, and how they are read; by default `text` and `labels`.
        model_init: a function that makes the model, instead of `model`; of no argument, or of the trial of
            [`hyperparameter_search`]. Every training begins with a new one.
        kwargs: further arguments of `Seq2SeqTrainer`. A `data_collator` gets the rows of [`encode_dataset`];
            `compute_metrics` gets label ids, those from `L` on for labels outside the label space, padded with -100;
            `compute_loss_func` gets the model's output, the columns of its logits that are the targets `(B, T)`, -100
            where no loss counts, and `num_items_in_batch` (`eval_loss` stays the model's own). There are no logits for
            `preprocess_logits_for_metrics`, which is refused.

    Evaluation generates label sets (by the model's own search, or with `generation_num_beams`) and reports micro and
    macro F1 with the project's metric, by shot where training counts are known. Each process evaluates its share of
    the rows, and all get the scores of all rows. `eval_loss` is the mean over the label tokens of all rows.

    Attributes:
        loss_parts: the parts of the loss since the last log of a loss, by name: their sum and number, `(2,)`.

    Raises:
        ConfigurationError: if processor, model, adapter or arguments cannot be trained with.
        DataError: if a row is not as `load_rows` wants it; names the row.
    """

    optimizer: torch.optim.Optimizer | None
    optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, object]] | None
    data_collator: DataCollatorForXLGen
    train_sampler: Sampler | None = None

    processing_class: XLGenProcessor

    def __init__(
        self,
        model: XLGenForConditionalGeneration | None = None,
        args: XLGenTrainingArguments | None = None,
        *,
        processing_class: XLGenProcessor | None = None,
        train_dataset: RowSource | LazyRows | None = None,
        eval_dataset: EvaluationRows = None,
        row_options: RowOptions | None = None,
        model_init: Callable[..., XLGenForConditionalGeneration] | None = None,
        **kwargs: object,
    ) -> None:
        processor, args = check_partners(processing_class, args, kwargs)
        check_processes(args.world_size)
        place_encoder(processor, args)
        if model is not None:
            prepare_model(model, args)
            check_processor(model, processor)
        self.row_options = row_options
        self.evaluation_collator = DataCollatorForXLGen(
            processor, references=True, clusters_only_rate=0, cluster_noise=0
        )
        self._has_own_collator = kwargs.get("data_collator") is None
        has_own_metrics = kwargs.get("compute_metrics") is None
        if self._has_own_collator:
            kwargs["data_collator"] = DataCollatorForXLGen(processor)
        if has_own_metrics:
            kwargs["compute_metrics"] = self._label_set_metrics
        self.loss_parts = {}
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False  # there are none left, and looking for them takes time
        training_rows = encode_training_rows(train_dataset, processor, row_options, lazily=args.streaming)
        if isinstance(training_rows, EncodedStream):
            check_stream(args)
        super().__init__(
            model=model,
            args=args,
            processing_class=processor,
            train_dataset=training_rows,
            eval_dataset=encode_evaluation_rows(eval_dataset, processor, row_options),
            model_init=model_init,
            **kwargs,
        )
        if isinstance(training_rows, EncodedStream):
            check_epochs(self.base_model().config)
        self.label_smoother = None  # the model smooths, over the tokens that it scores
        self._configure_collators()
        if has_own_metrics:
            check_best_metric(args, self.eval_dataset, set(self._score([[0]], [[0]])))
        self.add_callback(_EpochCallback(self))

    def call_model_init(self, trial: object = None) -> PreTrainedModel:
        """A new model from `model_init`, ready to be trained."""
        model = super().call_model_init(trial)
        prepare_model(model, self.args)
        check_processor(model, self.evaluation_collator.processor)  # the base class calls this before it has its own
        return model

    def _configure_collators(self) -> None:
        """Let the collators make what model and arguments want now; both may change from training to training."""
        self.evaluation_collator.variant = variant = self.base_model().config.variant
        if isinstance(self.data_collator, DataCollatorForXLGen):
            self.data_collator.variant = variant  # one that was given cannot make inputs of another kind either
        if self._has_own_collator:
            for name in ("clusters_only_rate", "cluster_noise", "soft_targets", "seed"):
                setattr(self.data_collator, name, getattr(self.args, name))

    # ------------------------------------------------------------------------------------------------ training

    def create_optimizer(self, model: PreTrainedModel | None = None) -> torch.optim.Optimizer:
        """AdamW (or what the arguments say) with a learning rate for fresh and one for pretrained parameters."""
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer_cls_and_kwargs = (optimizer_class, {**options, "params": self._parameter_groups(model)})
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        self.optimizer_cls_and_kwargs = None  # it would keep the parameters of a model that is replaced
        return optimizer

    def _parameter_groups(self, model: PreTrainedModel) -> list[dict[str, object]]:
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

    def _get_train_sampler(self, train_dataset: Dataset | LazyRows | None = None) -> Sampler | None:
        """Batches of similar lengths, a random order, or that of the data; all follow from seed and epoch alone."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        strategy = self.args.train_sampling_strategy
        if isinstance(dataset, EncodedStream):
            return None  # it has an order
        if strategy == "sequential":
            return SequentialSampler(dataset)
        in_buckets = self.args.length_bucketing or strategy == "group_by_length"
        lengths = _lengths(dataset) if in_buckets else [0] * len(dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LengthBucketSampler(lengths, self._global_batch_size, seed)

    @property
    def _global_batch_size(self) -> int:
        """Rows of a step, before accumulation, over all processes."""
        return self._train_batch_size * self.args.world_size

    def get_train_dataloader(self) -> DataLoader:
        """Training batches; of several processes, each gets its share of every batch."""
        if self.train_dataset is None:
            raise ConfigurationError("Training needs a train_dataset.")
        self._configure_collators()
        self.train_sampler = self._get_train_sampler()
        rows = len(self.train_dataset) if isinstance(self.train_dataset, Sized) else self._global_batch_size
        if self.args.dataloader_drop_last and rows < self._global_batch_size:
            raise ConfigurationError(
                f"dataloader_drop_last leaves no batch: there are {rows} training rows, and a step takes "
                f"{self._global_batch_size}. Leave it out, or take smaller batches."
            )
        return DataLoader(
            self.train_dataset,
            batch_size=self._global_batch_size,
            sampler=self.train_sampler,
            collate_fn=ShareCollator(self.data_collator, self.args.process_index, self.args.world_size),
            drop_last=self.args.dataloader_drop_last,
            **self.loading_options(),
        )

    def compute_loss(
        self, model: PreTrainedModel, inputs: Batch, return_outputs: bool = False, **kwargs: object
    ) -> torch.Tensor | tuple[torch.Tensor, XLGenOutput]:
        """The model's loss, or this process's part of the loss of the whole batch; keeps its parts for the log.

        With a `compute_loss_func`: what that gives.
        """
        if model.training:
            check_batch(self.base_model().config.variant, inputs)
        if self.compute_loss_func is None:
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        else:
            outputs = model(**inputs)
            loss = self._given_loss(outputs, inputs, kwargs.get("num_items_in_batch"))
        if model.training:
            parts = {name: outputs.get(name) for name in LOSSES}
            if self.args.world_size > 1 and self.compute_loss_func is None:
                means = loss_sums(outputs, inputs).means(
                    lambda counts: self.accelerator.reduce(counts, "sum"), self.args.world_size
                )
                parts = {name: None if parts[name] is None else mean for name, mean in means.items()}
                loss = sum(weight * means[name] for name, weight in self.loss_weights().items())
            for name, value in parts.items():
                if value is not None:
                    value = value.detach().float()
                    self.loss_parts[name] = self.loss_parts.get(name, 0) + torch.stack([value, torch.ones_like(value)])
        return (loss, outputs) if return_outputs else loss

    def _given_loss(self, outputs: XLGenOutput, inputs: Batch, num_items: object) -> torch.Tensor:
        """The loss of `compute_loss_func`, times the processes: it is divided by the items of all of them."""
        columns = self.base_model().output_positions(inputs["labels"])
        loss: torch.Tensor = self.compute_loss_func(outputs, columns, num_items_in_batch=num_items)
        return loss if num_items is None else loss * self.accelerator.num_processes

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the means of generation loss and cluster loss since the last log of a loss."""
        if "loss" in logs:
            for name, (total, number) in self.loss_parts.items():
                logs[name] = round(float(self.accelerator.reduce(total / number, "mean")), 4)
            self.loss_parts.clear()
        super().log(logs, start_time)

    # ------------------------------------------------------------------------------------------------ saving

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save model (of an adapter: adapter and config) and processor, all of them or nothing.

        The arguments are written as JSON without tokens; the base class would write a pickle with them.
        """
        if not self.args.should_save:
            return
        with replace_files(output_dir or self.args.output_dir) as folder:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            if has_adapter(model):
                save_active_adapter(model, folder, state_dict)
                model.config.save_pretrained(folder)
            else:
                model.save_pretrained(folder, state_dict=state_dict)
            self.processing_class.save_pretrained(folder)
            arguments = json.loads(self.args.to_json_string())
            told = {name: value for name, value in arguments.items() if not name.endswith("_token")}
            write_json(folder / "training_args.json", told)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository that `args` name, where it does not exist yet.

        Args:
            token: instead of `args.hub_token`.
            private: instead of `args.hub_private_repo`.

        Raises:
            HubError: if the Hub refuses or cannot be reached.
        """
        if self.is_world_process_zero():
            self.hub_model_id = make_repository(self.args, token=token, private=private)
            self.push_in_progress = None

    def push_to_hub(
        self,
        commit_message: str | None = None,
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        create_pr: bool = False,
        dry_run: bool = False,
        commit_description: str | None = None,
        allow_patterns: Sequence[str] | str | None = None,
        ignore_patterns: Sequence[str] | str | None = None,
        license: str | None = None,
        **kwargs: Unpack[ModelOptions],
    ) -> PushReport | None:
        """Save model and processor, and put them up with a card in one commit.

        Args:
            commit_message: message of the commit.
            blocking: kept from the base class; the push is always waited for.
            token: instead of `args.hub_token`.
            revision: branch, instead of `args.hub_revision`.
            private: make a new repository private, instead of `args.hub_private_repo`.
            create_pr: open a pull request instead of a commit to the branch.
            dry_run: only plan what would go; the Hub is not asked.
            commit_description: what the message has below its first line, or the text of the pull request.
            allow_patterns, ignore_patterns: which of the model's files go, see `xlgen_hf.hub.commits.HubTarget`.
            license: the base class's name for `license_id`.
            kwargs: further options of `xlgen_hf.push_model`: `tags`, `language`, `dataset`, `scores`, ...

        Returns:
            Files and commit; None on processes other than the first.

        Raises:
            HubError: if the Hub refuses or cannot be reached.
        """
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        kwargs["license_id"] = kwargs.get("license_id") or license
        return push_model(
            str(self.args.output_dir),
            self._repository(),
            message=commit_message,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
            private=self.args.hub_private_repo if private is None else private,
            create_pr=create_pr,
            dry_run=dry_run,
            description=commit_description,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
            **kwargs,
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Put the model of a checkpoint on the Hub, if `args.hub_strategy` asks for it; training continues anyway."""
        if not self.is_world_process_zero() or self.args.hub_strategy == "end":
            return
        try:
            push_model(
                checkpoint_folder,
                self._repository(),
                message=f"Training in progress, step {self.state.global_step}",
                token=self.args.hub_token,
                revision=self.args.hub_revision,
                private=bool(self.args.hub_private_repo),
            )
        except XLGenError as err:  # a card that someone damaged there is no reason to lose a training
            logger.warning("%s was not put on the Hub: %s", checkpoint_folder, err)

    def _repository(self) -> str:
        return self.hub_model_id or repository_of(self.args)

    # ------------------------------------------------------------------------------------------------ evaluation

    def _label_set_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        return self._score(ragged(prediction.predictions), ragged(prediction.label_ids))

    def _score(self, predicted: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        """Scores of label ids; those from `L` on are names outside the label space, which training never saw."""
        counts = self.processing_class.label_space.counts
        size = max([len(counts), *(max(ids) + 1 for ids in references if ids)])
        counts = np.pad(counts, (0, size - len(counts)))
        return score_ids(predicted, references, num_labels=size, train_counts=counts, k=())

    @torch.no_grad()
    def tune_decisions(self, choices: Sequence[int] = (1, 2, 3, 4, 5, 6)) -> int:
        """Choose, on the evaluation rows, how the model searches and decides, and calibrate its scores.

        See [`tune_model`]; `args.decision_beams` beams compete with greedy search, and `args.predict_with` may say
        what predicts. Every process works on all rows,
        and takes over what the first one chose.

        Returns:
            The chosen `min_labels`, which the model's config keeps, as it does the search.
        """
        self.prepare_evaluation()
        batches, references = [], []
        for batch in self.evaluation_batches(self.eval_dataset):
            batches.append(batch["texts"])
            references += ragged(batch["reference_ids"].numpy())
        config = self.model.config
        score_model = tune_model(
            self.base_model(),
            self.processing_class,
            batches,
            references,
            lambda sets: self._score(sets, references)["micro_f1"],
            num_beams=self.args.decision_beams,
            choices=sorted({min(choice, config.max_labels) for choice in choices}),
            predict_with=self.args.predict_with,
        )
        if self.args.world_size > 1:
            chosen = [{name: getattr(config, name) for name in TUNED_FIELDS}, score_model]
            fields, score_model = broadcast_object_list(chosen)
            for name, value in fields.items():
                setattr(config, name, value)
        self.processing_class = self.processing_class.with_score_model(score_model)
        least: int = config.min_labels
        return least


def _lengths(rows: Dataset | LazyRows) -> Sequence[int]:
    """Tokens of input and target of each row."""
    lengths: Sequence[int] = rows.lengths.tolist() if isinstance(rows, LazyRows) else rows["length"][:]
    return lengths

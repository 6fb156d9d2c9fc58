"""Training arguments of transformers that XLGen does not support: refused when they are made, each with advice."""

from __future__ import annotations

import os
from typing import NamedTuple

from transformers import Seq2SeqTrainingArguments

from ..errors import ConfigurationError

__all__ = ["UNSUPPORTED", "check_supported", "needs_metric"]


class _Limit(NamedTuple):
    """The values that an argument may have, the default first, and what to do instead of another one."""

    allowed: tuple[object, ...]
    advice: str


_SHARDED = (
    "Each process needs the whole model, because evaluation generates with it. Start several processes with torchrun; "
    "LoRA and activation_checkpointing save memory."
)
_LAUNCHED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")  # what `accelerate launch` sets

_LIMITS = {
    # rows and batches
    "train_sampling_strategy": _Limit(
        ("random", "sequential", "group_by_length"),
        "length_bucketing (on by default) and 'group_by_length' make batches of rows of similar length.",
    ),
    "length_column_name": _Limit(("length",), "The lengths are those of the tokenized rows."),
    "sortish_sampler": _Limit((False,), "Use length_bucketing, which is on by default."),
    "label_names": _Limit((["labels"], None), "The targets are made of the rows' labels; leave it out."),
    "dataloader_persistent_workers": _Limit(
        (False,), "Workers are started in each epoch, because what they draw for a row depends on it."
    ),
    "dataloader_in_order": _Limit(
        (True,), "The seed decides the order of training rows, the data that of the others."
    ),
    # loss and model
    "average_tokens_across_devices": _Limit((True,), "The loss is always the mean over the tokens of all processes."),
    "use_liger_kernel": _Limit((False,), "Its kernels replace parts of causal language models, not of XLGen."),
    "debug": _Limit(
        ([], ["tpu_metrics_debug"]),
        "Its detector fails at masks. torch.autograd.set_detect_anomaly(True) shows where values become infinite.",
    ),
    "fsdp": _Limit((None, "", [], False), _SHARDED),
    "deepspeed": _Limit((None,), _SHARDED),
    "parallelism_config": _Limit((None,), _SHARDED),
    # evaluation
    "batch_eval_metrics": _Limit(
        (False,), "compute_metrics gets the label ids of all rows at once; they need little memory. Leave it out."
    ),
    "include_for_metrics": _Limit(([],), "compute_metrics gets predicted and true label ids alone. Leave it out."),
    "eval_do_concat_batches": _Limit((True,), "compute_metrics gets the label ids of all rows in one array."),
    "generation_max_length": _Limit(
        (None,), "Set max_target_length of the processor, which holds for training and prediction."
    ),
    "generation_config": _Limit(
        (None,), "Set generation_num_beams, or num_beams, min_labels and max_labels of the model's config."
    ),
    # pushing
    "hub_strategy": _Limit(
        ("every_save", "end"), "It would upload optimizer states, which are pickles; only models go to the Hub."
    ),
}

_OWN_GROUPS = ("galore", "apollo", "lomo", "adalomo")
_PLATEAU = ("reduce_lr_on_plateau", "greedy")  # schedulers that follow a metric

_BATCH_DEFAULTS = {
    "split_batches": False,
    "dispatch_batches": None,
    "even_batches": True,
    "use_seedable_sampler": True,
    "non_blocking": False,
}
"""Fields of `accelerator_config` that are about batches, and their defaults."""


UNSUPPORTED = (*_LIMITS, "optim_target_modules", "accelerator_config")
"""Arguments of which some values are refused."""


def check_supported(args: Seq2SeqTrainingArguments) -> None:
    """Refuse arguments that would have no effect, or fail when the training has begun.

    Args:
        args: complete arguments.

    Raises:
        ConfigurationError: for the first such argument; names the values that are allowed, and what to do.
    """
    for name, limit in _LIMITS.items():
        value = getattr(args, name, limit.allowed[0])  # not every version of transformers has every one
        if value not in limit.allowed:
            raise ConfigurationError(f"{name}={_plain(value)!r} is not supported. {limit.advice}")
    for name, default in _BATCH_DEFAULTS.items():
        value = getattr(args.accelerator_config, name, default)
        if value != default:
            raise ConfigurationError(
                f"accelerator_config: {name}={value!r} is not supported. XLGen shares each batch among the processes "
                "itself; leave it out."
            )
    for name in _LAUNCHED:
        if os.environ.get(name, "").lower() in ("1", "true"):
            raise ConfigurationError(f"{name} is set in the environment. {_SHARDED}")
    if not 0 <= args.label_smoothing_factor < 1:
        raise ConfigurationError(
            f"label_smoothing_factor={args.label_smoothing_factor}; it must be at least 0 and below 1."
        )
    _check_optimizer(args)
    _check_scheduler(args)
    _check_best_metric(args)


def _plain(value: object) -> object:
    """A value with those of enumerations instead of their members."""
    return [_plain(one) for one in value] if isinstance(value, list) else getattr(value, "value", value)


def _check_optimizer(args: Seq2SeqTrainingArguments) -> None:
    """Refuse optimizers that group the parameters themselves, and those that cannot be made here."""
    optimizer = args.optim.value
    if optimizer.startswith(_OWN_GROUPS) or args.optim_target_modules is not None:
        named = f"optim={optimizer!r}"
        if args.optim_target_modules is not None:
            named += f", optim_target_modules={args.optim_target_modules!r}"
        raise ConfigurationError(
            f"{named} is not supported. Such an optimizer groups the parameters itself, so fresh_learning_rate would "
            "have no effect. Choose one that does not, such as 'adamw_torch', 'adafactor' or 'schedule_free_adamw'."
        )
    if optimizer in ("adamw_torch", "adamw_torch_fused") and not args.optim_args:
        return
    from transformers import Trainer

    try:
        Trainer.get_optimizer_cls_and_kwargs(args)
    except (ImportError, ValueError) as err:
        chosen = f"optim={optimizer!r} with optim_args={args.optim_args!r}"
        raise ConfigurationError(f"{chosen} cannot be used here: {' '.join(str(err).split())}") from err


def _check_scheduler(args: Seq2SeqTrainingArguments) -> None:
    """Refuse a scheduler that lacks an argument of its own, or gets one that it does not know."""
    if args.lr_scheduler_type == "linear" and not args.lr_scheduler_kwargs:
        return
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    given = dict(args.lr_scheduler_kwargs or {})
    try:
        get_scheduler(args.lr_scheduler_type, optimizer, 0, 1, scheduler_specific_kwargs=given)
    except (TypeError, ValueError) as err:
        name = args.lr_scheduler_type.value
        chosen = f"lr_scheduler_type={name!r} with lr_scheduler_kwargs={given!r}"
        raise ConfigurationError(f"{chosen} cannot be used: {' '.join(str(err).split())}") from err


def needs_metric(args: Seq2SeqTrainingArguments) -> bool:
    """Whether a score of the evaluations decides something: the best model, or the learning rate."""
    chooses = args.load_best_model_at_end or args.save_strategy == "best"
    return bool(chooses or args.lr_scheduler_type in _PLATEAU)


def _check_best_metric(args: Seq2SeqTrainingArguments) -> None:
    """Refuse to choose by a metric that no evaluation will give."""
    if args.save_strategy == "best" and args.eval_strategy == "no":
        raise ConfigurationError(
            "save_strategy='best' saves after evaluations, and eval_strategy='no' means that there are none. Give "
            "eval_strategy='epoch' or 'steps'."
        )
    metric = args.metric_for_best_model or "loss"
    if (
        not needs_metric(args)
        or metric.endswith("loss")
        or (args.predict_with_generate and not args.prediction_loss_only)
    ):
        return
    chosen = "prediction_loss_only=True" if args.prediction_loss_only else "predict_with_generate=False"
    raise ConfigurationError(
        f"{chosen} leaves the label sets out of the evaluation, so there is no metric_for_best_model={metric!r} to "
        "choose by. Give metric_for_best_model='loss'."
    )

"""What a trainer is made of, checked before the work begins: model, arguments, processor, and the user's functions."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from datasets import Dataset
from transformers import PreTrainedModel

from ..configuration_xlgen import XLGenConfig
from ..errors import ConfigurationError, ModelFolderError
from ..loading import check_pair
from ..modeling_xlgen import XLGenForConditionalGeneration
from ..modules.adapters import check_adapter
from ..processing_xlgen import XLGenProcessor
from .arguments import XLGenTrainingArguments
from .evaluating import has_adapter
from .unsupported import needs_metric

__all__ = [
    "check_best_metric",
    "check_epochs",
    "check_partners",
    "check_processor",
    "check_stream",
    "place_encoder",
    "prepare_model",
]

_UNUSED = "pooler"  # BERT's, which only its classifiers read
_SHOWN = 12  # names of scores that an error spells out


def check_partners(
    processor: object, args: object, further: Mapping[str, object]
) -> tuple[XLGenProcessor, XLGenTrainingArguments]:
    """Refuse partners of other kinds; those of the right kinds come back.

    Args:
        processor: what was given as `processing_class`.
        args: what was given as the arguments.
        further: further arguments of `Seq2SeqTrainer`.

    Raises:
        ConfigurationError: if one is of another kind, or would never be asked.
    """
    if not isinstance(processor, XLGenProcessor):
        raise ConfigurationError(f"processing_class is a {type(processor).__name__}; an XLGenProcessor is needed.")
    if not isinstance(args, XLGenTrainingArguments):
        raise ConfigurationError(
            f"args is a {type(args).__name__}; XLGenTrainingArguments are needed, which take the same arguments."
        )
    if further.get("preprocess_logits_for_metrics") is not None:
        raise ConfigurationError(
            "preprocess_logits_for_metrics is not supported: evaluation generates label sets, there are no logits. "
            "compute_metrics gets predicted and true label ids."
        )
    collator = further.get("data_collator")
    if str(getattr(collator, "__module__", "")).partition(".")[0] == "transformers":
        name = getattr(collator, "__name__", type(collator).__name__)
        raise ConfigurationError(
            f"data_collator is {name} of transformers, which does not know XLGen's rows. Leave it out, or derive one "
            "from DataCollatorForXLGen."
        )
    return processor, args


def check_processor(model: XLGenForConditionalGeneration, processor: XLGenProcessor) -> None:
    """Refuse a processor that is not the model's: nobody could load what is trained.

    Args:
        model: the model, or an adapter on one.
        processor: what was given as `processing_class`.

    Raises:
        ConfigurationError: if their tokens, labels, clusters or candidates differ.
    """
    try:
        check_pair(model, processor, "processing_class")
    except ModelFolderError as err:
        what = str(err).partition(";")[0]
        raise ConfigurationError(f"{what}. Give the processor that the model was made with.") from err


def place_encoder(processor: XLGenProcessor, args: XLGenTrainingArguments) -> None:
    """Let what finds candidates compute where the model is trained.

    It stays on the CPU where workers of a data loader may ask it: a forked process cannot use a GPU.
    """
    if processor.retriever is not None:
        processor.retriever.encoder[0].to("cpu" if args.dataloader_num_workers else args.device)


def prepare_model(model: PreTrainedModel, args: XLGenTrainingArguments) -> None:
    """Make a model ready for a training: what no loss reaches is left out of it, and its targets are smoothed.

    Args:
        model: the model, or an adapter on one.
        args: the arguments.

    Raises:
        ConfigurationError: if it is not an XLGen model, or an adapter that nobody could load, or the arguments ask for
            something that it does not do.
    """
    base = model.get_base_model() if has_adapter(model) else model
    if not isinstance(base, XLGenForConditionalGeneration):
        raise ConfigurationError(
            f"model is a {type(base).__name__}; an XLGenForConditionalGeneration is needed, as from_backbone makes "
            "it, or model_init, a function that returns one."
        )
    _check_adapter(model)
    if args.label_smoothing_factor and not base.config.generation_loss_weight:
        raise ConfigurationError(
            f"label_smoothing_factor={args.label_smoothing_factor} is about generated tokens, and "
            "generation_loss_weight=0 trains the candidate head alone; leave it out."
        )
    base.label_smoothing = args.label_smoothing_factor
    _freeze_unused(model)


def _check_adapter(model: PreTrainedModel) -> None:
    """Refuse an adapter that nobody could load."""
    if not has_adapter(model):
        if hasattr(model, "peft_config"):
            raise ConfigurationError(
                f"The {type(model).__name__} has an adapter outside of a PeftModel (by its own add_adapter, or mixed "
                "with others), which cannot be resumed from a checkpoint. Put the same settings on the model "
                "with peft.get_peft_model(model, settings), or use xlgen_hf.add_lora."
            )
        return
    check_adapter(model)
    if not model.active_peft_config.base_model_name_or_path:
        raise ConfigurationError(
            "The adapter's base is in no folder, so nobody could load the adapter. Make the adapter with "
            "xlgen_hf.training.lora.add_lora, which saves the base, or on a model that from_pretrained has loaded."
        )


def _freeze_unused(model: PreTrainedModel) -> None:
    """Leave out of the training what no loss reaches: where nothing is generated, what is for the decoder alone."""
    kept = {id(parameter) for parameter in model.get_encoder().parameters()}
    head_alone = not model.config.generation_loss_weight
    for name, parameter in model.named_parameters():
        of_decoder = id(parameter) not in kept and not {"candidate_head", "cluster_head"} & {*name.split(".")}
        if _UNUSED in name.split(".") or (head_alone and of_decoder):
            parameter.requires_grad_(False)


def check_stream(args: XLGenTrainingArguments) -> None:
    """Refuse arguments that a stream of training rows cannot follow.

    Args:
        args: the arguments.

    Raises:
        ConfigurationError: if the number of steps is not given, or several workers would each read all rows.
    """
    if args.max_steps <= 0:
        raise ConfigurationError(
            "train_dataset is a stream of rows, whose number nobody knows. Give max_steps, the number of optimizer "
            "steps; it is read again from its start as often as they need."
        )
    if args.dataloader_num_workers > 1:
        raise ConfigurationError(
            f"dataloader_num_workers={args.dataloader_num_workers}: each worker would read the whole stream of "
            "training rows. Give 0 or 1."
        )


def check_epochs(config: XLGenConfig) -> None:
    """Refuse a model whose training goes by epochs, which a stream of training rows does not have.

    Args:
        config: the model's.

    Raises:
        ConfigurationError: if it does.
    """
    if config.cluster_loss_annealing:
        raise ConfigurationError(
            "cluster_loss_annealing lowers the cluster loss from epoch to epoch, and a stream of training rows has no "
            "epochs. Set it to False in the model's config."
        )


def check_best_metric(
    args: XLGenTrainingArguments, evaluation: Dataset | Mapping[str, Dataset] | None, names: set[str]
) -> None:
    """Refuse a metric that no evaluation will give.

    Args:
        args: the arguments.
        evaluation: the evaluation rows.
        names: names of the scores of one set of rows.

    Raises:
        ConfigurationError: if the best model is chosen by another one; names those that there are.
    """
    if evaluation is None or not needs_metric(args):
        return
    wanted = str(args.metric_for_best_model).removeprefix("eval_")
    prefixes = [f"{name}_" for name in evaluation] if isinstance(evaluation, dict) else [""]
    known = {f"{prefix}{name}" for prefix in prefixes for name in (*names, "loss")}
    if wanted not in known:
        near = get_close_matches(wanted, sorted(known), n=_SHOWN, cutoff=0.5) or sorted(known)[:_SHOWN]
        raise ConfigurationError(
            f"metric_for_best_model={wanted!r} is none of the {len(known)} scores that an evaluation gives; choose "
            f"one of them, such as {', '.join(near)}."
        )

"""Training arguments of XLGen: those of `Seq2SeqTrainingArguments`, and a few more."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import distributed
from transformers import Seq2SeqTrainingArguments, TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.utils import is_torch_bf16_gpu_available

from ..encoders.number_types import has_bfloat16, number_type
from ..errors import ConfigurationError
from ..settings import check_values, definitions
from .trainer_settings import TrainerSettings
from .unsupported import check_supported

__all__ = ["OneGPU", "XLGenTrainingArguments", "check_processes", "first_process_first"]

logger = logging.getLogger(__name__)

_LONGEST = timedelta(days=30)  # until the first process has prepared what the others wait for


class OneGPU:
    """Keeps training arguments of transformers to one GPU for each process.

    A process that sees several would split its batches between them (`torch.nn.DataParallel`): ours do not split, and
    the rows of a step, so the result, would depend on the machine. Several GPUs take as many processes.
    """

    @property
    def n_gpu(self) -> int:
        """GPUs that this process computes on, 0 or 1."""
        return min(int(super().n_gpu), 1)  # type: ignore[misc]


@dataclass
class XLGenTrainingArguments(OneGPU, TrainerSettings, Seq2SeqTrainingArguments):
    """Arguments of [`XLGenTrainer`].

    [`TrainerSettings`] has those that are XLGen's own, and the defaults that differ from `Seq2SeqTrainingArguments`.
    Other defaults that differ: `predict_with_generate` True, `remove_unused_columns` False (it has no effect: the
    collator picks its columns), `metric_for_best_model` micro_f1 (so `greater_is_better` True), `label_names`
    ["labels"]; `dataloader_pin_memory` is off on a CPU.

    Arguments of transformers that would have no effect, or fail when the training has begun, are refused; the page
    Training of the documentation lists them.

    Raises:
        ConfigurationError: if a value is out of range or not supported, or this machine cannot do what is asked for.
    """

    predict_with_generate: bool = field(default=True, metadata={"help": "Evaluate by generating label sets."})
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "No effect: the collator picks its columns."}
    )
    metric_for_best_model: str | None = field(
        default="micro_f1", metadata={"help": "Metric that picks the best model."}
    )
    label_names: list[str] | None = field(default_factory=lambda: ["labels"], metadata={"help": "Leave as it is."})

    def __post_init__(self) -> None:
        """Check the values, before and by means of transformers."""
        if not {"RANK", "MASTER_ADDR"} <= os.environ.keys():
            check_processes(1)
        checked = [name for name in definitions(TrainerSettings) if name != "report_to"]  # which may be a list, too
        check_values(TrainerSettings, {name: getattr(self, name) for name in checked})
        self._choose_type()
        self._check_bf16()
        try:
            super().__post_init__()
        except (ImportError, RuntimeError, ValueError) as err:  # torch and transformers say what the machine lacks
            raise ConfigurationError(f"These training arguments cannot be used here: {_in_a_line(err)}") from err
        unknown = sorted(set(self.report_to or ()) - set(get_available_reporting_integrations()))
        if unknown:
            known = ", ".join(["none", "all", *get_available_reporting_integrations()])
            raise ConfigurationError(
                f"report_to={unknown[0]!r}; it must be one of {known}, or a tracker that is installed first."
            )
        check_supported(self)
        if self.fp16 and self.device.type == "cpu":
            raise ConfigurationError(
                "fp16: only a GPU computes in float16. Leave fp16 out, or compute in bfloat16 on the CPU: "
                "dtype='bfloat16' (--dtype bfloat16)."
            )
        if self.device.type == "cuda" and self.world_size == 1 and torch.cuda.device_count() > 1:
            logger.info("One of %d GPUs is used; torchrun starts a process for each.", torch.cuda.device_count())
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # nothing to copy to; torch would warn

    def _choose_type(self) -> None:
        """Let `dtype` decide `bf16`; without both a GPU computes in bfloat16 if it can."""
        if self.dtype is None:
            self.bf16 = self.bf16 or (not self.fp16 and not self.use_cpu and has_bfloat16("cuda"))
            return
        on_gpu = torch.accelerator.is_available() and not self.use_cpu
        wanted = number_type(self.dtype, "cuda" if on_gpu else "cpu") is torch.bfloat16
        if self.fp16 or (self.bf16 and not wanted):
            other = "fp16" if self.fp16 else "bf16"
            raise ConfigurationError(
                f"dtype={self.dtype!r} and {other}=True: both choose the type of numbers to compute in. Leave one out."
            )
        self.bf16 = wanted
        self.use_cpu = self.use_cpu or (wanted and not on_gpu)  # which transformers wants to hear

    def _check_bf16(self) -> None:
        if not self.bf16 or self.use_cpu or is_torch_bf16_gpu_available():
            return
        raise ConfigurationError(
            "bf16: this machine has no GPU that computes in bfloat16. Leave bf16 (or dtype) out, or add use_cpu "
            "(--use-cpu) to compute in bfloat16 on the CPU."
        )


def check_processes(together: int) -> None:
    """Refuse to train alone where several processes are wanted.

    Args:
        together: number of processes in this one's group.

    Raises:
        ConfigurationError: if the environment names more.
    """
    wanted = int(os.environ.get("WORLD_SIZE") or 1)
    if wanted > 1 and together == 1:
        raise ConfigurationError(
            f"WORLD_SIZE={wanted} says that {wanted} processes train together, but this one belongs to no group of "
            "processes: each would train on its own, into the same folder. Start the training with `torchrun "
            f"--nproc_per_node {wanted} -m xlgen_hf train ...` or `accelerate launch`, or unset WORLD_SIZE."
        )


@contextmanager
def first_process_first(args: TrainingArguments) -> Iterator[None]:
    """Let the first process do something before the others do it, and end when all have done it.

    The others wait as long as that takes. `main_process_first` of transformers ends their wait after `ddp_timeout`,
    half an hour, which is meant for steps; to embed a large training set takes longer.

    Args:
        args: they know the processes.
    """
    if args.world_size == 1:
        yield
        return
    group = distributed.new_group(backend="gloo", timeout=_LONGEST)
    try:
        if args.process_index > 0:
            distributed.barrier(group)
        try:
            yield
        finally:  # where it fails, it fails in the others as well
            if args.process_index == 0:
                distributed.barrier(group)
        distributed.barrier(group)
    finally:
        distributed.destroy_process_group(group)


def _in_a_line(err: Exception) -> str:
    return " ".join(str(err).split()) or type(err).__name__

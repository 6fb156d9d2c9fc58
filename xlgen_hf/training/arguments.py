"""Training arguments of XLGen: those of `Seq2SeqTrainingArguments`, and a few more."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import Seq2SeqTrainingArguments

from ..errors import ConfigurationError

__all__ = ["XLGenTrainingArguments"]


@dataclass
class XLGenTrainingArguments(Seq2SeqTrainingArguments):
    """Arguments of [`XLGenTrainer`].

    Defaults that differ from `Seq2SeqTrainingArguments`: `learning_rate` 2e-4, `per_device_train_batch_size` 32,
    `per_device_eval_batch_size` 64, `num_train_epochs` 5, `warmup_steps` 0.05 (a share of all steps),
    `weight_decay` 0.01, `predict_with_generate` True, `remove_unused_columns` False (the collator picks its columns),
    `metric_for_best_model` micro_f1 (so `greater_is_better` True), `label_names` ["labels"], `report_to` none;
    `dataloader_pin_memory` is off on a CPU.

    Args:
        fresh_learning_rate: learning rate of parameters that no pretraining has seen (cluster parts, a warm-started
            decoder); `learning_rate` is that of all others.
        length_bucketing: batch rows of similar length; the order of evaluation stays that of the data.
        clusters_only_rate: `mcg`: share of texts with a further row clusters -> labels.
        cluster_noise: `mcg`: chance that a gold cluster is left out of the input, or a wrong one put in.
        tune_decisions: after training, choose on the validation rows how the model searches and decides: the least
            number of labels, greedy search or beams, the calibration of scores, and thresholds.
        decision_beams: beams that compete with greedy search then; 1 for greedy search alone.
    """

    learning_rate: float = field(default=2e-4, metadata={"help": "Learning rate of pretrained parameters."})
    fresh_learning_rate: float = field(
        default=1e-3, metadata={"help": "Learning rate of parameters that no pretraining has seen."}
    )
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Texts in a training batch, a device."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Texts in an evaluation batch, a device."})
    num_train_epochs: float = field(default=5.0, metadata={"help": "Passes over the training rows."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Steps of warm-up; below 1 a share of all steps."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of matrices."})
    predict_with_generate: bool = field(default=True, metadata={"help": "Evaluate by generating label sets."})
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Keep it off: the collator picks its columns."}
    )
    metric_for_best_model: str | None = field(
        default="micro_f1", metadata={"help": "Metric that picks the best model."}
    )
    label_names: list[str] | None = field(default_factory=lambda: ["labels"], metadata={"help": "Leave as it is."})
    length_bucketing: bool = field(default=True, metadata={"help": "Batch rows of similar length."})
    clusters_only_rate: float = field(
        default=0.1, metadata={"help": "mcg: share of texts with a further row clusters -> labels, in [0, 1]."}
    )
    cluster_noise: float = field(
        default=0.1, metadata={"help": "mcg: chance of a missing and of a wrong cluster in the input, in [0, 1]."}
    )
    tune_decisions: bool = field(
        default=True,
        metadata={"help": "After training, tune search, least labels, calibration and thresholds on validation rows."},
    )
    decision_beams: int = field(default=5, metadata={"help": "Beams that compete with greedy search in that tuning."})

    def __post_init__(self) -> None:
        """Check the added arguments."""
        super().__post_init__()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # nothing to copy to; torch would warn
        for name in ("clusters_only_rate", "cluster_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name}={getattr(self, name)}; a share in [0, 1] is needed.")
        if self.decision_beams < 1:
            raise ConfigurationError(f"decision_beams={self.decision_beams}; at least 1 is needed.")
        if self.fresh_learning_rate <= 0:
            raise ConfigurationError(f"fresh_learning_rate={self.fresh_learning_rate}; it must be positive.")

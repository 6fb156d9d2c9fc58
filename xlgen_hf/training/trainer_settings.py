"""How a model is trained: the trainer's settings. `xlgen train` has an option for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..settings import CLUSTERS, RETRIEVAL, PredictsWith, setting

__all__ = ["TrainerSettings"]

_TRAINING = "Training"
_CHECKPOINTS = "Checkpoints and evaluation"


@dataclass
class TrainerSettings:
    """The arguments of the trainer that `xlgen train` shows: XLGen's own, and those of transformers that matter most.

    [`XLGenTrainingArguments`] takes their defaults from here.

    Attributes:
        num_train_epochs: passes over the training rows.
        max_steps: number of training steps, instead of epochs; -1 for epochs.
        learning_rate: learning rate of pretrained parameters.
        fresh_learning_rate: learning rate of newly initialised parameters (cluster parts, a warm-started decoder).
        per_device_train_batch_size: texts in a training batch on a device.
        per_device_eval_batch_size: texts in an evaluation batch on a device.
        gradient_accumulation_steps: batches whose gradients are added up for a step.
        warmup_steps: steps in which the learning rate rises; below 1 a fraction of all steps.
        weight_decay: weight decay of matrices.
        streaming: encode training rows as the steps need them, instead of all of them before the first step: for rows
            whose tokens do not fit into memory.
        length_bucketing: put rows of similar length into a batch; the order of evaluation stays that of the data.
        clusters_only_rate: `mcg`: fraction of texts with a further row clusters -> labels.
        cluster_noise: `mcg`: chance that a true cluster is left out of the input, or a wrong one put in.
        soft_targets: `rcl`: what share of its retrieval score a candidate counts as right for the candidate head where
            the row does not list it, for rows that lack labels.
        seed: seed of clusters, new parameters, the order of rows, dropout.
        dtype: what steps are computed in: `float32`, `bfloat16`, or `auto`, which is bfloat16 where the GPU or CPU has
            instructions for it. If None what `bf16` and `fp16` say; where they say nothing bfloat16 on a GPU that has
            it. Weights, and the embeddings for clusters and retrieval, are in float32.
        bf16: compute in bfloat16, as transformers calls it; on a CPU together with `use_cpu`.
        use_cpu: train on the CPU, even where there is a GPU.
        eval_strategy: when the validation rows are scored during a training.
        save_strategy: when a checkpoint is written.
        save_total_limit: maximum number of checkpoints that are kept.
        keep_checkpoints: keep the checkpoints when the training is finished, and those of the retriever's encoder.
        logging_steps: steps between two lines of the log; below 1 a fraction of all steps.
        report_to: experiment tracker.
        tune_decisions: after training, choose on the validation rows how the model searches and decides: the minimum
            number of labels, greedy search or beams, the calibration of scores, thresholds, and `predict_with`.
        decision_beams: beams that compete with greedy search then; 1 for greedy search alone.
        predict_with: what a model predicts with that has learned to generate and has a candidate head. If None the
            better on the validation rows; the generator without any.
    """

    num_train_epochs: float = setting(5.0, help="Passes over the training rows.", minimum=0, group=_TRAINING)
    max_steps: int = setting(
        -1, help="Number of training steps, instead of epochs.", minimum=-1, default_text="by epochs", group=_TRAINING
    )
    learning_rate: float = setting(2e-4, help="Learning rate of pretrained parameters.", minimum=0, group=_TRAINING)
    fresh_learning_rate: float = setting(
        1e-3, help="Learning rate of newly initialised parameters.", above=0, group=_TRAINING
    )
    per_device_train_batch_size: int = setting(32, help="Texts per training batch.", minimum=1, group=_TRAINING)
    per_device_eval_batch_size: int = setting(64, help="Texts per evaluation batch.", minimum=1, group=_TRAINING)
    gradient_accumulation_steps: int = setting(
        1, help="Batches whose gradients are added up for a step.", minimum=1, group=_TRAINING
    )
    warmup_steps: float = setting(
        0.05, help="Steps of warm-up; below 1 a fraction of all steps.", minimum=0, group=_TRAINING
    )
    weight_decay: float = setting(0.01, help="Weight decay of matrices.", minimum=0, group=_TRAINING)
    length_bucketing: bool = setting(True, help="Put rows of similar length into a batch.", group=_TRAINING)
    streaming: bool = setting(
        False,
        help="Encode training rows as the steps need them, not all before the first: less memory and time before it.",
        group=_TRAINING,
    )
    clusters_only_rate: float = setting(
        0.0,
        help="Fraction of texts with a further row clusters -> labels.",
        minimum=0,
        maximum=1,
        group=CLUSTERS,
        variants=("mcg",),
    )
    cluster_noise: float = setting(
        0.5,
        help="Chance of a missing and of a wrong cluster in the input.",
        minimum=0,
        maximum=1,
        group=CLUSTERS,
        variants=("mcg",),
    )
    soft_targets: float = setting(
        0.0,
        help="Share of its retrieval score that a candidate which the row lacks counts as right; for incomplete rows.",
        minimum=0,
        maximum=1,
        group=RETRIEVAL,
        variants=("rcl",),
    )
    seed: int = setting(42, help="Seed of everything random.", minimum=0, maximum=2**32 - 1, group=_TRAINING)
    dtype: Literal["auto", "float32", "bfloat16"] | None = setting(
        None,
        help="Type of numbers to compute in; auto is bfloat16 where the GPU or CPU has instructions for it (faster),"
        " else float32. Weights stay in float32.",
        default_text="bfloat16 on a GPU that has it, else float32",
        group=_TRAINING,
    )
    bf16: bool = setting(
        False, help="The same as --dtype bfloat16; on a CPU with --use-cpu.", group=_TRAINING, unless=("dtype",)
    )
    use_cpu: bool = setting(
        False, help="Train on the CPU, even where there is a GPU.", group=_TRAINING, published=False
    )
    eval_strategy: Literal["no", "steps", "epoch"] = setting(
        "no",
        help="When the validation rows are scored during the training.",
        default_text="epoch with validation rows",
        group=_CHECKPOINTS,
        published=False,
    )
    save_strategy: Literal["no", "steps", "epoch", "best"] = setting(
        "epoch", help="When a checkpoint is written.", group=_CHECKPOINTS, published=False
    )
    save_total_limit: int | None = setting(
        2,
        help="Maximum number of checkpoints that are kept during the training.",
        minimum=1,
        group=_CHECKPOINTS,
        published=False,
    )
    keep_checkpoints: bool = setting(
        False,
        help="Keep the checkpoints when the training is finished; an interrupted one always keeps them.",
        group=_CHECKPOINTS,
        published=False,
    )
    logging_steps: float = setting(
        0.02, help="Steps between two lines of the log; below 1 a fraction of all steps.", above=0, group=_CHECKPOINTS,
        published=False,
    )  # fmt: skip
    report_to: str | None = setting(
        "none", help="Experiment tracker, e.g. tensorboard or wandb.", group=_CHECKPOINTS, published=False
    )
    tune_decisions: bool = setting(
        True,
        help="After training, choose search, minimum number of labels, calibration and thresholds on validation rows.",
        group=_CHECKPOINTS,
    )
    decision_beams: int = setting(
        5, help="Beams that compete with greedy search in that choice.", minimum=1, group=_CHECKPOINTS
    )
    predict_with: PredictsWith | None = setting(
        None,
        help="What the model predicts with.",
        default_text="what is better on validation rows",
        group=RETRIEVAL,
        variants=("rcl",),
    )

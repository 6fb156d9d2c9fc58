"""Evaluation by generated label sets: each process does its share of the rows, each row once, all get the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Seq2SeqTrainer, TrainerControl
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, denumpify_detensorize

from ..data.options import RowOptions
from ..data.rows import RowSource
from ..decoding.decoded_sets import DecodingOptions
from ..errors import ConfigurationError
from ..modeling_xlgen import XLGenForConditionalGeneration, XLGenOutput
from ..modules.output_layer import IGNORED
from ..prediction.candidate_ranker import CandidateRanker
from ..prediction.generator import Generator
from ..prediction.predictor import Predictor
from ..processing_xlgen import EncodedText
from ..ranking.fitting import decided_sets
from .collator import Batch, DataCollatorForXLGen, pad_rows
from .inputs import EvaluationRows, encode_evaluation_rows, encode_test_rows
from .losses import LOSSES, LossSums, loss_sums
from .resuming import ResumableTrainer
from .unsupported import needs_metric

__all__ = [
    "EvaluatedRows",
    "EvaluatingTrainer",
    "has_adapter",
    "ragged",
    "share_of",
]


class _LoadingOptions(TypedDict):
    num_workers: int
    pin_memory: bool
    prefetch_factor: int | None
    multiprocessing_context: str | None


@dataclass
class EvaluatedRows:
    """What was found for some rows.

    Attributes:
        predicted: label ids of each row; empty where only losses are wanted.
        references: label ids that each row has.
        losses: sums of the losses in `LOSSES`, and what they are summed over, `(2, 3)`.
        rows: number of rows.
    """

    predicted: list[list[int]] = field(default_factory=list)
    references: list[list[int]] = field(default_factory=list)
    losses: np.ndarray = field(default_factory=lambda: np.zeros((2, len(LOSSES))))
    rows: int = 0

    def add(self, sums: LossSums, rows: int) -> None:
        """Take in the losses of a batch."""
        self.losses = self.losses + torch.stack([sums.values, sums.counts]).double().cpu().numpy()
        self.rows += rows

    def gathered(self) -> EvaluatedRows:
        """The rows of all processes, in the order of the data set; the same in each process."""
        shares: list[EvaluatedRows] = gather_object([self])
        return EvaluatedRows(
            _interleaved([share.predicted for share in shares]),
            _interleaved([share.references for share in shares]),
            np.sum([share.losses for share in shares], axis=0),
            sum(share.rows for share in shares),
        )

    def loss(self, weights: Mapping[str, float]) -> float | None:
        """Weighted sum of the means of the losses over all label tokens, clusters and candidates; None without rows.

        Args:
            weights: weight of each of `LOSSES`.
        """
        sums, counts = self.losses
        if not counts.any():
            return None
        return float(np.array([weights[name] for name in LOSSES]) @ (sums / counts.clip(min=1)))


class EvaluatingTrainer(ResumableTrainer, Seq2SeqTrainer):
    """The part of [`XLGenTrainer`] that evaluates.

    Attributes:
        evaluation_collator: makes the batches of evaluation rows.
        row_options: how rows are read that are not encoded yet.
    """

    evaluation_collator: DataCollatorForXLGen
    row_options: RowOptions | None
    control: TrainerControl

    def base_model(self) -> XLGenForConditionalGeneration:
        """The model itself, out of what wraps it for training."""
        model = self.accelerator.unwrap_model(self.model)
        base: XLGenForConditionalGeneration = model.get_base_model() if has_adapter(model) else model
        return base

    def loss_weights(self) -> dict[str, float]:
        """Weights of the parts of the loss in this epoch."""
        model = self.base_model()
        config = model.config
        return {
            "generation_loss": config.generation_loss_weight,
            "cluster_loss": config.cluster_loss_weight * model.cluster_loss_scale,
            "candidate_loss": config.candidate_loss_weight,
        }

    def get_eval_dataloader(self, eval_dataset: EvaluationRows = None) -> DataLoader:
        """Batches of this process's share of the evaluation rows, with what generation and scoring need.

        Args:
            eval_dataset: rows, or the name of one of several sets; those of the trainer if None.
        """
        if isinstance(eval_dataset, str):
            eval_dataset = self.eval_dataset[eval_dataset]
        given = self.eval_dataset if eval_dataset is None else eval_dataset
        rows = encode_evaluation_rows(given, self.processing_class, self.row_options)
        return self.evaluation_batches(rows, self.args.process_index, self.args.world_size)

    def get_test_dataloader(self, test_dataset: RowSource) -> DataLoader:
        """Batches of this process's share of rows to predict; without labels they are only predicted."""
        rows = encode_test_rows(test_dataset, self.processing_class, self.row_options)
        return self.evaluation_batches(rows, self.args.process_index, self.args.world_size)

    def evaluation_batches(
        self, rows: Dataset | dict[str, Dataset] | None, process: int = 0, processes: int = 1
    ) -> DataLoader:
        """Batches of a process's share of encoded rows; by default all of them.

        Args:
            rows: rows from [`encode_dataset`].
            process: number of the process.
            processes: number of processes.

        Raises:
            ConfigurationError: if there is no, or more than one set of rows.
        """
        if rows is None or isinstance(rows, dict):
            raise ConfigurationError("One evaluation set is needed; give it as eval_dataset.")
        return DataLoader(
            rows if processes == 1 else rows.select(share_of(len(rows), process, processes)),
            batch_size=self.args.eval_batch_size,
            collate_fn=self.evaluation_collator,
            generator=torch.Generator(),  # so that whether a model is evaluated does not change its training
            **self.loading_options(),
        )

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Losses, predicted and true label ids of all rows, and the scores; each row counts once.

        Args:
            dataloader: this process's share of the rows, see [`get_eval_dataloader`].
            description: not used.
            prediction_loss_only: leave out the label sets; that of the arguments if None.
            ignore_keys: not used.
            metric_key_prefix: before the names of the scores.

        Returns:
            Predicted and true label ids `(N, longest)`, padded with -100 and in the order of the rows, and the scores;
            the same in each process. Where no row has labels: predicted ones alone.

        Raises:
            ConfigurationError: if `evaluate` or `predict` was given more of the search than `num_beams`.
        """
        self._check_search()
        loss_only = self.args.prediction_loss_only if prediction_loss_only is None else prediction_loss_only
        self.prepare_evaluation()
        self.callback_handler.eval_dataloader = dataloader
        mine = EvaluatedRows()
        for batch in dataloader:
            self._evaluate_batch(batch, mine, with_sets=self.args.predict_with_generate and not loss_only)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        return self._scored(mine.gathered(), metric_key_prefix)

    def _scored(self, found: EvaluatedRows, prefix: str) -> EvalLoopOutput:
        """Scores of all rows, with the prefix before their names."""
        metrics: dict[str, float] = {}
        predictions = references = None
        if found.predicted and not any(found.references):
            predictions = pad_rows(found.predicted).numpy()
            return EvalLoopOutput(predictions=predictions, label_ids=None, metrics=metrics, num_samples=found.rows)
        loss = found.loss(self.loss_weights())
        if loss is not None:
            metrics[f"{prefix}_loss"] = loss
        if found.predicted:
            predictions, references = (pad_rows(rows).numpy() for rows in (found.predicted, found.references))
        if self.compute_metrics is not None and predictions is not None:
            scores = self.compute_metrics(EvalPrediction(predictions=predictions, label_ids=references))
            scores = denumpify_detensorize(scores)  # checkpoints keep them as JSON, which has no numbers of numpy
            metrics |= {f"{prefix}_{name.removeprefix(f'{prefix}_')}": value for name, value in scores.items()}
        return EvalLoopOutput(predictions=predictions, label_ids=references, metrics=metrics, num_samples=found.rows)

    def _check_search(self) -> None:
        """Refuse arguments of `generate` that the search of label sets does not have."""
        given = {name for name, value in getattr(self, "_gen_kwargs", {}).items() if value is not None}
        if given - {"num_beams"}:
            name = min(given - {"num_beams"})
            raise ConfigurationError(
                f"{name}: evaluation searches label sets with num_beams alone. Set min_labels and max_labels of the "
                "model's config, and max_target_length of the processor, for anything else."
            )

    def _determine_best_metric(self, metrics: dict[str, float], trial: object) -> bool:
        """Whether an evaluation is the best so far; never where nothing asks for it and the metric is not there."""
        name = f"eval_{str(self.args.metric_for_best_model).removeprefix('eval_')}"
        if name not in metrics and not needs_metric(self.args):
            return False
        is_best: bool = super()._determine_best_metric(metrics=metrics, trial=trial)
        return is_best

    def loading_options(self) -> _LoadingOptions:
        """What the arguments say of the loading of rows."""
        return {
            "num_workers": self.args.dataloader_num_workers,
            "pin_memory": self.args.dataloader_pin_memory,
            "prefetch_factor": self.args.dataloader_prefetch_factor,
            "multiprocessing_context": self.args.dataloader_multiprocessing_context,
        }

    @contextmanager
    def keeping_weights(self) -> Iterator[None]:
        """Afterwards the weights are what they were, also those that evaluations in half precision have rounded."""
        rounds = self.args.fp16_full_eval or self.args.bf16_full_eval
        kept = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._tensors()} if rounds else {}
        try:
            yield
        finally:
            for name, tensor in self._tensors() if rounds else ():
                tensor.data = kept[name].to(tensor.device)

    def _tensors(self) -> list[tuple[str, torch.Tensor]]:
        return [*self.model.named_parameters(), *self.model.named_buffers()]

    def prepare_evaluation(self) -> None:
        """Bring the model into the state for evaluation, in the precision that the arguments ask for."""
        half = {"fp16_full_eval": torch.float16, "bf16_full_eval": torch.bfloat16}
        for name, dtype in half.items():
            if getattr(self.args, name) and not self.is_in_train:
                self.model.to(dtype=dtype, device=self.args.device)
        self.model.eval()
        to_evaluation = getattr(self.optimizer, "eval", None)  # of a schedule-free one
        if to_evaluation is not None:
            to_evaluation()

    @torch.no_grad()
    def _evaluate_batch(self, batch: Batch, found: EvaluatedRows, *, with_sets: bool) -> None:
        """Take in the losses and label sets of a batch."""
        inputs = self._prepare_inputs(dict(batch))
        references, texts = inputs.pop("reference_ids"), inputs.pop("texts")
        with self.accelerator.autocast():
            output: XLGenOutput = self.model(**inputs)
        found.add(loss_sums(output, inputs), len(texts))
        if not with_sets:
            return
        found.references += ragged(references.cpu().numpy())
        found.predicted += self._label_sets(texts)

    def _label_sets(self, texts: Sequence[EncodedText]) -> list[list[int]]:
        """Label ids that the model predicts for encoded texts."""
        model, processor = self.base_model(), self.processing_class
        if model.config.predicts_with == "candidate_head":
            ranked = CandidateRanker(model, processor).encode(texts).ranked_candidates()
            score_model = Predictor.from_model(model, processor).score_model  # with a rule, tuned or not
            return decided_sets(score_model, ranked, processor.label_space.counts, "candidate_head")
        beams = getattr(self, "_gen_kwargs", {}).get("num_beams") or self.args.generation_num_beams
        options = DecodingOptions(num_beams=beams)  # if None, the model's own search
        generator = Generator(model, processor, options)
        return [one.labels for one in generator.decode(generator.encode(texts))]


def share_of(rows: int, process: int, processes: int) -> range:
    """The numbers of the rows that a process evaluates.

    Args:
        rows: number of all rows.
        process: number of the process.
        processes: number of processes.
    """
    return range(process, rows, processes)


def _interleaved(shares: Sequence[list[list[int]]]) -> list[list[int]]:
    """Rows of the shares of [`share_of`] -> all rows in their order."""
    rows: list[list[int]] = [[] for _ in range(sum(map(len, shares)))]
    for process, share in enumerate(shares):
        rows[process :: len(shares)] = share
    return rows


def ragged(matrix: np.ndarray) -> list[list[int]]:
    """Rows padded with -100 -> ragged rows."""
    return [row[row != IGNORED].tolist() for row in matrix]


def has_adapter(model: PreTrainedModel) -> bool:
    """Whether a model is a `PeftModel`, told without an import of peft."""
    return hasattr(model, "active_peft_config")

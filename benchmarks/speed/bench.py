"""The comparisons of `make_speed.py`: two ways to do the same work, in turns."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from shares import step_shares
from task import Task, make_backbone, make_model, write_tensors
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments, T5ForConditionalGeneration

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.encoders.checkpoints import fetch_checkpoint
from xlgen_hf.encoders.embedding import embed_texts, recipe_of
from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.settings import DEFAULT_BACKBONE
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.trainer import XLGenTrainer

__all__ = ["Bench"]

BATCH = 8
BEAMS = 5


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compared(other: Callable[[], float], ours: Callable[[], float], rounds: int) -> dict[str, object]:
    """Ratios of the CPU seconds of `other` to ours, the two in turns."""
    other(), ours()
    return ratios([(other(), ours()) for _ in range(rounds)])


def ratios(pairs: list[tuple[float, float]]) -> dict[str, object]:
    """Least, median and greatest ratio of seconds of others to ours."""
    found = sorted(one / own for one, own in pairs)
    return {
        "least": round(found[0], 2), "median": round(statistics.median(found), 2), "greatest": round(found[-1], 2),
        "seconds": [[round(one, 2), round(own, 2)] for one, own in pairs],
    }  # fmt: skip


class Bench:
    """One kind of texts, and models of ours on one backbone, for all comparisons.

    Args:
        folder: for checkpoints and what trainers write.
        task: the texts of slow comparisons.
        more: so many that batches of like lengths can be made of them; the slow ones are the first of these.
        given: the options of the command line.
    """

    def __init__(self, folder: Path, task: Task, more: Task, given: argparse.Namespace) -> None:
        self.folder, self.task, self.more, self.given = folder, task, more, given
        self.backbone = make_backbone(folder / "t5", more.texts)
        self.space = LabelSpace.from_label_lists(more.labels)

    def model(self, variant: str = "base") -> tuple[XLGenForConditionalGeneration, XLGenProcessor]:
        """A new untrained model of ours."""
        return make_model(self.backbone, self.space, variant, (500, 90))

    def shares(self) -> dict[str, dict[str, float]]:
        """Where the time of our training goes, by variant."""
        found = {}
        for variant in ("base", "bcl"):
            self.our_trainer(variant, self.task)[0].train()  # what is made once is made
            trainer, model = self.our_trainer(variant, self.task)
            found[variant] = step_shares(trainer.train, model)
        return found

    def our_trainer(self, variant: str, task: Task) -> tuple[XLGenTrainer, XLGenForConditionalGeneration]:
        """A trainer of a new model, for an epoch."""
        model, processor = self.model(variant)
        args = XLGenTrainingArguments(
            str(self.folder / "ours"), use_cpu=True, disable_tqdm=True, save_strategy="no", num_train_epochs=1,
            per_device_train_batch_size=BATCH,
        )  # fmt: skip
        return XLGenTrainer(model, args, processing_class=processor, train_dataset=task.rows), model

    def our_training(self, variant: str, task: Task) -> Callable[[], float]:
        """An epoch of ours, all that comes before it included; CPU seconds of a call."""

        def train() -> float:
            model, processor = self.model(variant)
            args = XLGenTrainingArguments(
                str(self.folder / "ours"), use_cpu=True, disable_tqdm=True, save_strategy="no", num_train_epochs=1,
                per_device_train_batch_size=BATCH,
            )  # fmt: skip
            return cpu_seconds(
                lambda: XLGenTrainer(model, args, processing_class=processor, train_dataset=task.rows).train()
            )

        return train

    def plain_training(self) -> Callable[[], float]:
        """An epoch of transformers' own trainer and model on the same tokens, padded to the longest of a batch."""
        _, processor = self.model()
        encoded = processor.encode_texts(self.more.texts)
        rows = [
            {
                "input_ids": processor.build_input(text),
                "labels": processor.label_tokenizer.build_target(self.space.order(self.space.encode(labels))),
            }
            for text, labels in zip(encoded, self.more.labels, strict=True)
        ]

        def train() -> float:
            model = T5ForConditionalGeneration.from_pretrained(self.backbone)
            args = Seq2SeqTrainingArguments(
                str(self.folder / "plain"), use_cpu=True, disable_tqdm=True, save_strategy="no", num_train_epochs=1,
                per_device_train_batch_size=BATCH, report_to="none", dataloader_pin_memory=False,
            )  # fmt: skip
            collator = DataCollatorForSeq2Seq(processor.tokenizer, model)
            trainer = Seq2SeqTrainer(model, args, data_collator=collator, train_dataset=rows)
            return cpu_seconds(trainer.train)

        return train

    def train(self) -> dict[str, object]:
        """A plain trainer."""
        return compared(self.plain_training(), self.our_training("base", self.more), self.given.rounds)

    def decode(self, beams: int, *, constrained: bool) -> dict[str, object]:
        """`generate` of transformers, with the usual prefix function or none, for as many steps as our search."""
        model, processor = self.model()
        model.eval()
        options = DecodingOptions(num_beams=beams, min_labels=3, max_labels=3)

        def ours() -> None:
            model.predict(self.task.texts, processor, decoding=options, batch_size=BATCH)

        steps = _steps(model, ours)
        allowed = _prefix_function(processor) if constrained else None
        inputs = sorted(map(processor.build_input, processor.encode_texts(self.task.texts)), key=len, reverse=True)

        def usual() -> None:
            for number, start in enumerate(range(0, len(inputs), BATCH)):
                with torch.no_grad():
                    model.generate(
                        **processor.pad(inputs[start : start + BATCH]), prefix_allowed_tokens_fn=allowed,
                        num_beams=beams, do_sample=False, min_new_tokens=steps[number], max_new_tokens=steps[number],
                    )  # fmt: skip

        found = compared(lambda: cpu_seconds(usual), lambda: cpu_seconds(ours), self.given.rounds)
        return {**found, "steps": round(statistics.mean(steps), 1)}

    def authors(self) -> dict[str, dict[str, object]]:
        """The authors' training and generation of BCL; both in one process of theirs for each round."""
        model, processor = self.model("bcl")
        tensors = self.folder / "task.json"
        write_tensors(tensors, processor, self.task)
        options = DecodingOptions(num_beams=BEAMS, min_labels=3, max_labels=3)
        train = self.our_training("bcl", self.task)

        def predict() -> None:
            model.predict(self.task.texts, processor, decoding=options, batch_size=BATCH)

        model.eval()
        steps = round(statistics.mean(_steps(model, predict)))
        command = [Path(__file__).parent / "authors.py", self.given.authors.resolve(), tensors, str(BATCH), str(steps)]
        environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}

        def theirs() -> dict[str, float]:
            done = subprocess.run(
                [self.given.authors_python, *command], env=environment, stdout=subprocess.PIPE, text=True, check=True,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
            return seconds

        train(), predict()
        rounds = [(theirs(), train(), cpu_seconds(predict)) for _ in range(self.given.rounds)]
        found = {
            "train": ratios([(their["train"], own) for their, own, _ in rounds]),
            "predict": ratios([(their["predict"], own) for their, _, own in rounds]),
        }
        found["predict"]["steps"] = steps
        return found

    def embed(self) -> dict[str, object]:
        """sentence-transformers with the same encoder, batch size and texts."""
        from sentence_transformers import SentenceTransformer

        folder = fetch_checkpoint(DEFAULT_BACKBONE)
        encoder, loaded = SentenceTransformer(folder, device="cpu"), load_encoder(folder)
        texts, recipe = self.more.texts, recipe_of(folder)

        def usual() -> np.ndarray:
            return encoder.encode(texts, batch_size=32)

        def ours() -> np.ndarray:
            return embed_texts(texts, loaded, recipe=recipe, batch_size=32, max_length=256, progress=False)

        np.testing.assert_allclose(usual(), ours(), atol=1e-4)
        return compared(lambda: cpu_seconds(usual), lambda: cpu_seconds(ours), self.given.rounds)


def _steps(model: XLGenForConditionalGeneration, work: Callable[[], object]) -> list[int]:
    """Runs of the decoder in each batch, those after one run of the encoder."""
    steps: list[int] = []

    def count(*_: object) -> None:
        steps[-1] += 1

    hooks = [
        model.get_encoder().register_forward_pre_hook(lambda *_: steps.append(0)),
        model.get_decoder().register_forward_pre_hook(count),
    ]
    work()
    for hook in hooks:
        hook.remove()
    return steps


def _prefix_function(processor: XLGenProcessor) -> Callable[[int, torch.Tensor], list[int]]:
    """The usual `prefix_allowed_tokens_fn`: a nested dictionary, walked from the last separator on."""
    root: dict[int, dict] = {}
    for sequence in processor.label_tokenizer.label_token_ids:
        node = root
        for token in sequence:
            node = node.setdefault(token, {})
    between, separator = [*root, processor.eos_token_id], processor.label_tokenizer.separator_token_id

    def allowed(_: int, tokens: torch.Tensor) -> list[int]:
        row = tokens.tolist()[1:]
        last = max((place for place, token in enumerate(row) if token == separator), default=-1)
        node = root
        for token in row[last + 1 :]:
            node = node.get(token, {})
        return between if node is root else list(node) or [processor.eos_token_id]

    return allowed

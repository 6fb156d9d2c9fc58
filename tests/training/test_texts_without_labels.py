"""Training rows of which many have no label: models learn to give texts like these none."""

from __future__ import annotations

import pytest
from tiny import ROWS

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.trainer import XLGenTrainer

WITHOUT = [{"text": text, "labels": []} for text in ("playing in the church", "a history", "the modern")]


@pytest.mark.parametrize("variant", ["base", "bcl", "mcg"])
def test_a_generator_learns_which_texts_have_no_label(make_model, tmp_path, variant):
    """The fault: such rows were left out, and each text got a label at least."""
    rows = [*ROWS, *WITHOUT]
    model, processor = make_model("bert", variant, dropout=0.0, max_labels=4)
    args = XLGenTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, num_train_epochs=100, learning_rate=1e-2,
        fresh_learning_rate=1e-2, lr_scheduler_type="constant", per_device_train_batch_size=11, save_strategy="no",
        decision_beams=1,
    )  # fmt: skip
    trainer = XLGenTrainer(model, args, processing_class=processor, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    assert trainer.tune_decisions() == 0
    for least in (0, 3):  # labels that are scored beside the set change nothing in it
        decoding = DecodingOptions(min_candidates=least)
        predictions = model.predict([row["text"] for row in rows], trainer.processing_class, decoding=decoding)
        assert [set(one.labels) for one in predictions] == [set(row["labels"]) for row in rows]

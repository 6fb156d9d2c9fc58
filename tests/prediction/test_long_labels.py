"""A label that no target can hold: left out alone, reported by name, closed to the search, never an empty target."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import Made, make_rcl, sharpened
from tiny import make_bert_tokenizer
from transformers import AutoTokenizer

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import ConfigurationError, DataError
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.labels.tokens import LabelTokenizer, TruncationReport
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.collator import DataCollatorForXLGen, encode_dataset
from xlgen_hf.training.trainer import XLGenTrainer

LONG = " and ".join(["history of the organ in church music"] * 10)  # 79 tokens
TEXTS = ["on organs", "modern art", "printing and music"]
ROWS = [
    {"text": "one of many", "labels": [LONG]},
    {"text": "organ of the church", "labels": [LONG, "organ"]},
    {"text": "organ and art", "labels": ["organ", "art"]},
] * 4
LIMIT = 64


@pytest.fixture
def space():
    """The long label is the most frequent one, so it comes before the others in a target."""
    return LabelSpace.from_label_lists([row["labels"] for row in ROWS], ["music"], "freq_forward")


@pytest.fixture
def made(checkpoints, space):
    processor = XLGenProcessor(AutoTokenizer.from_pretrained(checkpoints["bert"]), space, None, LIMIT, LIMIT)
    torch.manual_seed(0)
    model = XLGenForConditionalGeneration.from_backbone(checkpoints["bert"], processor, decoder_layers=1)
    return sharpened(Made(model, processor))


# ------------------------------------------------------------------------------------------------ targets


def test_a_label_that_is_too_long_is_left_out_alone(made, space):
    labels = made.processor.label_tokenizer
    assert labels.oversized_labels.tolist() == space.encode([LONG]) == [0]
    report = TruncationReport()
    target = labels.build_target(space.encode([LONG, "organ", "art"]), report)
    assert target == labels.build_target(space.encode(["organ", "art"]))
    assert (report.labels, report.labels_lost, list(report.never_fit)) == (3, 1, [LONG])


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(2, 20), st.randoms())
def test_each_label_that_still_fits_is_in_the_target(sizes, limit, random):
    space = LabelSpace([f"{'x' * (size - 1)}{number}" for number, size in enumerate(sizes)], [0] * len(sizes))
    labels = LabelTokenizer(make_bert_tokenizer(), space, max_length=limit)
    ids = list(range(len(sizes)))
    random.shuffle(ids)
    expected, report = [], TruncationReport()
    for label in ids:
        spelled = labels.label_token_ids[label]
        if len(expected) + len(spelled) + 1 <= limit:
            expected += spelled
    assert labels.build_target(ids, report) == [*expected, labels.eos_token_id]
    lengths = [len(spelled) for spelled in labels.label_token_ids]
    assert labels.oversized_labels.tolist() == [label for label, size in enumerate(lengths) if size + 1 > limit]
    assert set(report.never_fit) == {space.names[label] for label in labels.oversized_labels}
    assert report.labels_lost == len(ids) - sum(token == labels.separator_token_id for token in expected)


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("variant", ["base", "bcl", "mcg"])
def test_no_row_is_trained_on_as_if_it_had_no_labels(make_model, space, caplog, variant):
    _, processor = make_model("bert", variant, space=space)
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        encoded = encode_dataset(Dataset.from_list(ROWS), processor, "Training data", training=True)
    assert len(encoded) == 8 and {row % 3 for row in encoded["row"]} == {1, 2}
    assert "Training data: 8 of 20 labels (40.00 %) did not fit into the target" in caplog.text
    assert "Training data: 1 labels are longer than any target and cannot be predicted: 'history of" in caplog.text
    assert f"({len(processor.label_tokenizer.label_token_ids[0])} tokens)" in caplog.text
    assert "Training data: 4 rows have no label that fits and are left out" in caplog.text
    batch = DataCollatorForXLGen(processor, variant, clusters_only_rate=1.0)(list(encoded))
    assert ((batch["labels"] != -100).sum(1) > 1).all()


def test_labels_that_never_fit_are_named_though_no_row_has_them(make_model, rows, caplog):
    _, processor = make_model("bert", space=LabelSpace.from_label_lists(rows["labels"], [LONG]))
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        encode_dataset(rows, processor, "Training data", training=True)
    assert "1 labels are longer than any target and cannot be predicted: 'history of" in caplog.text
    assert "rows have no label that fits" not in caplog.text


def test_rows_that_evaluate_are_kept(made, space):
    encoded = encode_dataset(Dataset.from_list(ROWS), made.processor, "Evaluation data", allow_unknown=True)
    assert len(encoded) == len(ROWS)
    assert encoded["label_ids"][0] == space.encode([LONG])


def test_training_learns_the_labels_after_a_long_one(made, tmp_path):
    model, processor = made
    args = XLGenTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, num_train_epochs=60, learning_rate=1e-2,
        fresh_learning_rate=1e-2, lr_scheduler_type="constant", per_device_train_batch_size=8, save_strategy="no",
    )  # fmt: skip
    rows = Dataset.from_list(ROWS)
    XLGenTrainer(model, args, processing_class=processor, train_dataset=rows).train()
    found = model.eval().predict([row["text"] for row in ROWS[1:3]], processor)
    assert [one.labels[0] for one in found] == ["organ", "organ"]
    assert "art" in found[1].labels


def test_rows_that_have_nothing_but_long_labels_are_refused(made, tmp_path):
    args = XLGenTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(DataError, match="no row has a label that fits into a target of 64 tokens"):
        XLGenTrainer(made.model, args, processing_class=made.processor, train_dataset=Dataset.from_list(ROWS[:1]))


# ------------------------------------------------------------------------------------------------ prediction


@pytest.mark.parametrize("decoding", [None, DecodingOptions(num_beams=4), DecodingOptions(num_samples=3)])
def test_it_is_closed_to_the_search(made, space, decoding):
    model, processor = made
    others = {name for name in space.names if name != LONG}
    for rule in (None, DecisionRule("top_k", 2), DecisionRule("top_k", 99)):
        for one in model.predict(TEXTS, processor, decoding=decoding, rule=rule):
            assert one.labels and set(one.labels) <= others
    assert all(set(one.labels) == others for one in model.predict(TEXTS, processor, rule=DecisionRule("top_k", 99)))


def test_it_alone_cannot_be_chosen_from(made, space):
    with pytest.raises(ConfigurationError, match=r"None of the 1 labels to choose from fits .* e\.g\. 'history of"):
        made.model.predict(TEXTS, made.processor, allowed=np.array(space.encode([LONG])))
    both = np.array(space.encode([LONG, "art"]))
    assert [one.labels for one in made.model.predict(TEXTS, made.processor, allowed=both)] == [["art"]] * len(TEXTS)


def test_a_longer_limit_opens_it(made):
    made.processor.max_target_length = 128
    assert made.processor.label_tokenizer.oversized_labels.size == 0
    found = made.model.predict(TEXTS, made.processor, rule=DecisionRule("top_k", 99))
    assert all(LONG in one.labels for one in found)


def test_it_has_no_probability_as_a_candidate(checkpoints, label_space):
    """Retrieval may bring it into the input of a model, which then does not score it."""
    space = label_space.extended([LONG])
    made = sharpened(make_rcl(checkpoints["bert"], space, "memory", 11))
    long = space.encode([LONG])[0]
    (encoded,) = made.processor.encode_texts([LONG])
    assert long in encoded.candidates.labels
    (found,) = Generator(*made, DecodingOptions(min_candidates=3)).decoded([LONG])
    assert long not in found.candidates and len(found.candidates) == 10
    assert made.model.score([LONG], [[LONG, "organ"]], made.processor)[0][0] == 0.0


def test_labels_that_do_not_fit_behind_given_ones_are_found_without_them(checkpoints):
    long = "organ of the church and the history of modern art"
    space = LabelSpace.from_label_lists([["art", "music"], [long]])
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["bert"])
    processor = XLGenProcessor(tokenizer, space, None, LIMIT, 14)
    spelled = dict(zip(space.names, map(len, processor.label_tokenizer.label_token_ids), strict=True))
    assert spelled["art"] + spelled["music"] + spelled[long] > 14 > spelled[long]
    model = XLGenForConditionalGeneration.from_backbone(checkpoints["bert"], processor, decoder_layers=1)
    (found,) = model.predict(["modern art"], processor, rule=DecisionRule("top_k", 3), given=[["art", "music"]])
    assert found.labels == [long]

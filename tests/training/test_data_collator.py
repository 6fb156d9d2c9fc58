"""Batches: padding, bits, tasks."""

from __future__ import annotations

import logging

import pytest
import torch
from datasets import Dataset

from xlgen_hf.errors import LabelSpaceError
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.collator import DataCollatorForXLGen, encode_dataset
from xlgen_hf.training.trainer import XLGenTrainer


def _features(processor, rows, numbers=(0, 1, 6)):
    return [encode_dataset(rows, processor)[number] for number in numbers]


def test_rows_are_padded_and_targets_end_in_minus_100(make_model, rows):
    _, processor = make_model("t5")
    batch = DataCollatorForXLGen(processor)(_features(processor, rows))
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    for ids, mask, target, row in zip(*batch.values(), [rows[0], rows[1], rows[6]], strict=True):
        assert (ids[mask == 0] == processor.pad_token_id).all()
        kept = target[target != -100].tolist()
        rarest_first = sorted(processor.label_space.encode(row["labels"]), reverse=True)
        assert kept == processor.label_tokenizer.build_target(rarest_first)
        assert (target[len(kept) :] == -100).all()


def test_bits_are_the_clusters_of_all_labels(make_model, rows):
    _, processor = make_model("t5", "bcl")
    batch = DataCollatorForXLGen(processor, "bcl")(_features(processor, rows))
    labels = [processor.label_space.encode(rows[number]["labels"]) for number in (0, 1, 6)]
    clusters = [set(processor.clusters.assignment[ids].tolist()) for ids in labels]
    assert batch["cluster_bits"].tolist() == [[float(c in of_row) for c in range(3)] for of_row in clusters]
    assert len(set(map(frozenset, clusters))) > 1
    assert batch["cluster_bits"].dtype == torch.float32


def test_multitask_rows(make_model, rows):
    _, processor = make_model("t5", "mcg")
    collator = DataCollatorForXLGen(processor, "mcg", clusters_only_rate=1.0, cluster_noise=0.0)
    batch = collator(_features(processor, rows, (0,)))
    assert batch["cluster_rows"].tolist() == [False, True, False]
    tokens = [
        processor.tokenizer.convert_ids_to_tokens(ids[mask.bool()])
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    clusters = processor.clusters.clusters_of(processor.label_space.encode(rows[0]["labels"]))
    names = [f"<xlgen:c{cluster}>" for cluster in clusters]
    text = rows[0]["text"].split()
    assert tokens[0] == ["<xlgen:labels>", *text, *names, "</s>"]
    assert tokens[1] == ["<xlgen:clusters>", *text, "</s>"]
    assert tokens[2] == ["<xlgen:labels>", *names, "</s>"]
    assert batch["labels"][1][batch["labels"][1] != -100].tolist() == processor.label_tokenizer.build_cluster_target(
        clusters
    )
    assert torch.equal(batch["labels"][0], batch["labels"][2])


def test_noise_changes_input_clusters_but_not_targets(make_model, rows):
    _, processor = make_model("t5", "mcg")
    features = _features(processor, rows, range(8))
    clean = DataCollatorForXLGen(processor, "mcg", clusters_only_rate=0, cluster_noise=0)(features)
    noisy = DataCollatorForXLGen(processor, "mcg", clusters_only_rate=0, cluster_noise=1.0)(features)
    assert torch.equal(clean["labels"], noisy["labels"])
    assert clean["input_ids"].tolist() != noisy["input_ids"].tolist()


def test_draws_depend_on_epoch_and_row_alone(make_model, rows):
    _, processor = make_model("t5", "mcg")
    features = _features(processor, rows, range(8))
    collator = DataCollatorForXLGen(processor, "mcg", cluster_noise=0.5)
    first = collator(features)["input_ids"]
    collator(features[:3])
    assert torch.equal(collator(features)["input_ids"], first)
    collator.epoch = 1
    assert collator(features)["input_ids"].tolist() != first.tolist()


def test_references_keep_labels_that_the_target_lost(make_model, rows):
    _, processor = make_model("t5")
    processor.max_target_length = 4
    batch = DataCollatorForXLGen(processor, references=True)(_features(processor, rows))
    ids = processor.label_space.encode(rows[0]["labels"])
    assert batch["reference_ids"].tolist()[0] == ids
    assert batch["reference_ids"][1].tolist()[2:] == [-100]
    assert (batch["labels"][0] != -100).sum() < 6
    assert batch["texts"][0] == processor.encode_texts([rows[0]["text"]])[0]


def test_losses_are_reported(make_model, rows, caplog):
    _, processor = make_model("t5")
    processor.max_source_length, processor.max_target_length = 5, 4
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        encode_dataset(rows, processor, "Training data")
    assert "Training data: 2 of 8 texts (25.00 %) were truncated." in caplog.text
    assert "Training data: 10 of 17 labels (58.82 %) did not fit" in caplog.text


def test_unknown_labels_of_evaluation_rows_count_as_missed(make_model, caplog):
    _, processor = make_model("t5")
    rows = Dataset.from_list([{"text": "x", "labels": ["opera", "art"]}, {"text": "y", "labels": ["dance", "opera"]}])
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        encoded = encode_dataset(rows, processor, "Evaluation data", allow_unknown=True)
    size, art = len(processor.label_space), processor.label_space.index["art"]
    assert "2 label names are outside the label space" in caplog.text
    batch = DataCollatorForXLGen(processor, references=True)(list(encoded))
    assert batch["reference_ids"].tolist() == [[art, size], [size + 1, size]]


def test_unknown_labels_are_refused(make_model):
    _, processor = make_model("t5")
    rows = Dataset.from_list([{"text": "x", "labels": ["opera"]}])
    with pytest.raises(LabelSpaceError, match="'opera' is none of the"):
        encode_dataset(rows, processor)


def test_a_collator_of_ones_own_makes_what_the_model_needs(make_model, rows, tmp_path):
    """The fault: without a variant it made the inputs of another one, and the clusters were not trained."""
    model, processor = make_model("bert", "bcl")
    args = XLGenTrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True)
    collator = DataCollatorForXLGen(processor)
    trainer = XLGenTrainer(model, args, processing_class=processor, train_dataset=rows, data_collator=collator)
    assert collator.variant == "bcl" and "cluster_bits" in next(iter(trainer.get_train_dataloader()))

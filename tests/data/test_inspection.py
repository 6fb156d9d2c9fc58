from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import Dataset
from tiny import make_bert_tokenizer

from xlgen_hf.data import inspection
from xlgen_hf.data.inspection import BENCHMARKS, Benchmark, Bucket, Distribution, inspect_rows
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.plots.inspection import plot_inspection


def rows_of(labels, texts):
    return Dataset.from_dict({"text": texts, "labels": labels})


TRAIN = rows_of([["a", "b"], ["a"], ["a", "c"], []], ["one two", "three", "One, two!", ""])
TEST = rows_of([["a", "c"], ["d"], ["C"]], ["three", "four five six", "seven"])


def test_what_is_counted():
    found = inspect_rows({"test": TEST, "train": TRAIN}, vocabulary=["a", "zero"])
    train, test = found.splits["train"], found.splits["test"]
    assert list(found.splits) == ["train", "test"]
    assert (train.documents, train.without_labels, train.empty_texts, train.repeated_texts) == (4, 1, 1, 1)
    assert (train.labels, train.occurrences, found.labels, found.vocabulary) == (3, 5, 6, 1)
    assert train.labels_per_document.mean == pytest.approx(1.25)
    assert (train.words.minimum, train.words.maximum, train.words.median) == (0, 2, 1.5)
    assert train.shots[:3] == [Bucket("0", 0, 0), Bucket("1", 2, 2), Bucket("2-4", 1, 3)]
    assert test.shots[:3] == [Bucket("0", 2, 2), Bucket("1", 1, 1), Bucket("2-4", 1, 1)]
    assert found.shared == {"test": {"train": 1}}
    assert found.look_alikes == [("c", "C")]
    assert {one.kind for one in found.suspicions} == {"shared_texts", "look_alikes"}
    assert found.benchmark is None
    assert json.loads(json.dumps(found.to_dict()))["splits"]["train"]["labels"] == 3


def test_lengths_in_tokens():
    found = inspect_rows({"train": TRAIN}, tokenizer=make_bert_tokenizer(), max_length=8)
    train = found.splits["train"]
    lengths = [len(tokens) for tokens in make_bert_tokenizer()(TRAIN["text"][:])["input_ids"]]
    assert (train.tokens.minimum, train.tokens.maximum) == (2, max(lengths))  # 2: an empty text's special tokens
    assert train.truncated == np.mean([length > 8 for length in lengths])
    assert "truncated" in {one.kind for one in found.suspicions}
    with pytest.raises(ConfigurationError, match="A maximum length counts tokens; give a tokenizer"):
        inspect_rows({"train": TRAIN}, max_length=8)


def test_published_splits_are_recognised(monkeypatch):
    assert [one.name for one in BENCHMARKS] == ["EUR-Lex", "Wiki10-31K", "AmazonCat-13K", "Wiki-500K"]
    monkeypatch.setattr(inspection, "BENCHMARKS", (Benchmark("Tiny", 4, 3, 5, 1.3, "a paper"),))
    assert (
        inspect_rows({"train": TRAIN, "test": TEST}).benchmark
        == "Tiny as in a paper: its rows, and 5 labels, 1.29 per document."
    )
    parts = {"train": TRAIN.select(range(3)), "validation": TRAIN.select([3]), "test": TEST}
    assert inspect_rows(parts).benchmark.startswith("Tiny as in")
    monkeypatch.setattr(inspection, "BENCHMARKS", (Benchmark("Tiny", 4, 3, 9, 1.2, "a paper"),))
    found = inspect_rows({"train": TRAIN, "test": TEST}).benchmark
    assert found.startswith("Tiny by its rows, but 5 labels, 1.29 per document instead of 9, 1.2 per document (a")
    assert inspect_rows({"train": TRAIN}).benchmark is None


@pytest.mark.parametrize("values", [[], [3], [1, 1, 2, 50], list(range(1000)), [0] * 99 + [10**6]])
def test_distributions_count_every_document(values):
    found = Distribution.of(np.array(values, dtype=np.int64))
    assert sum(found.documents) == len(values)
    assert len(found.edges) == len(found.documents) + 1
    assert len(found.documents) <= 31


def test_picture(tmp_path):
    found = inspect_rows({"train": TRAIN, "test": TEST}, tokenizer=make_bert_tokenizer())
    plot_inspection(found, tmp_path / "data.svg", title="my data")
    drawn = (tmp_path / "data.svg").read_text()
    assert drawn.startswith("<?xml")
    with pytest.raises(ConfigurationError, match=r"must end in \.png"):
        plot_inspection(found, tmp_path / "data.txt")


@pytest.mark.parametrize("empty", ["train", "test"])
def test_a_split_without_rows(tmp_path, empty):
    splits = {"train": TRAIN, "test": TEST, empty: TRAIN.select([])}
    found = inspect_rows(splits, tokenizer=make_bert_tokenizer(), max_length=2)
    assert (found.splits[empty].documents, found.splits[empty].labels, found.splits[empty].truncated) == (0, 0, 0)
    assert found.splits[empty].words == found.splits[empty].labels_per_document == Distribution.of(np.array([]))
    other = "test" if empty == "train" else "train"
    assert (found.splits[other].documents, found.shared) == (len(splits[other]), {"test": {"train": 0}})
    assert plot_inspection(found, tmp_path / "data.svg").get_axes()

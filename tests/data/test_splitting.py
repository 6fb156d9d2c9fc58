from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.data.splitting import split_rows
from xlgen_hf.data.suspicion import label_counts
from xlgen_hf.errors import ConfigurationError


def long_tail(documents, seed=0):
    """Labels with a long tail: `label n` is in about `documents / (n + 1)` texts."""
    random = np.random.default_rng(seed)
    labels = [[] for _ in range(documents)]
    for label in range(documents):
        count = max(1, documents // (label + 2))
        for row in random.choice(documents, size=count, replace=False):
            labels[row].append(f"label {label}")
    return Dataset.from_dict({"text": [f"text {row}" for row in range(documents)], "labels": labels})


def numbers(rows):
    return [int(text.split()[1]) for text in rows["text"][:]]


def test_sizes_are_exact_and_rows_stay_in_order():
    parts = split_rows(long_tail(1001), [0.8, 0.1, 0.1])
    assert [len(part) for part in parts] == [801, 100, 100]
    assert sorted(number for part in parts for number in numbers(part)) == list(range(1001))
    assert all(numbers(part) == sorted(numbers(part)) for part in parts)


def test_labels_are_spread_rare_ones_too():
    rows = long_tail(2000)
    counts = label_counts(rows)
    parts = split_rows(rows, [0.8, 0.1, 0.1])
    of_parts = [label_counts(part) for part in parts]
    for name, count in counts.items():
        if count >= 20:  # a frequent label has its fraction in every split, and a drawn one would not
            missed = [abs(part[name] - 0.1 * count) for part in of_parts[1:]]
            assert sum(missed) / 2 <= max(3, 0.1 * count), name
    frequent = [name for name, count in counts.items() if count >= 20]
    drawn = np.mean([np.sqrt(0.09 * counts[name]) for name in frequent])  # standard deviation of a random draw
    assert np.mean([abs(part[name] - 0.1 * counts[name]) for name in frequent for part in of_parts[1:]]) < drawn / 2
    for shots in (1, 2, 4):  # and of rare labels, each split its fraction of the occurrences
        names = [name for name, count in counts.items() if count == shots]
        assert len(names) > 50
        found = np.array([sum(part[name] for name in names) for part in of_parts]) / (shots * len(names))
        assert np.abs(found - [0.8, 0.1, 0.1]).max() < 0.02, shots


@pytest.mark.parametrize("seed", range(3))
def test_rows_without_labels_are_spread(seed):
    """The fault: 149, 6 and 1 of 156 such rows came into training, validation and test."""
    random = np.random.default_rng(seed)
    texts = [f"ticket {number}" for number in random.integers(200, size=600)]
    tags = {text: random.choice(12, size=random.integers(1, 4)) * (random.random() > 0.26) for text in texts}
    rows = {"text": texts, "labels": [[f"tag {n}" for n in set(tags[text].tolist()) if n] for text in texts]}
    whole = sum(not labels for labels in rows["labels"])
    for share, part in zip((0.8, 0.1, 0.1), split_rows(Dataset.from_dict(rows), [0.8, 0.1, 0.1]), strict=True):
        assert sum(not labels for labels in part["labels"]) == pytest.approx(share * whole, abs=0.05 * whole)


def test_the_seed_decides():
    rows = long_tail(200)
    assert [numbers(part) for part in split_rows(rows, [0.5, 0.5])] == [
        numbers(part) for part in split_rows(rows, [0.5, 0.5])
    ]
    assert numbers(split_rows(rows, [0.5, 0.5])[0]) != numbers(split_rows(rows, [0.5, 0.5], seed=1)[0])


def test_equal_texts_stay_together():
    rows = long_tail(300)
    texts = [f"Text, {number % 100}" if number % 2 else f"text {number % 100}" for number in range(300)]
    parts = split_rows(Dataset.from_dict({"text": texts, "labels": rows["labels"][:]}), [0.6, 0.4])
    folded = [{text.lower().replace(",", "") for text in part["text"][:]} for part in parts]
    assert not folded[0] & folded[1]


def test_groups_stay_together():
    rows = long_tail(300).add_column("work", [number // 3 for number in range(300)])
    parts = split_rows(rows, [0.7, 0.3], group_column="work")
    groups = [set(part["work"][:]) for part in parts]
    assert not groups[0] & groups[1]
    assert [len(part) for part in parts] == [210, 90]
    shared = rows.remove_columns("text").add_column("text", [f"text {number % 299}" for number in range(300)])
    parts = split_rows(shared, [0.7, 0.3], group_column="work")  # the first text is in the first and the last group
    works, texts = ([set(part[name][:]) for part in parts] for name in ("work", "text"))
    assert not works[0] & works[1]
    assert not texts[0] & texts[1]
    unknown = rows.remove_columns("work").add_column("work", [None, ""] * 150)  # rows without a group stand alone
    assert [len(part) for part in split_rows(unknown, [0.7, 0.3], group_column="work")] == [210, 90]
    with pytest.raises(ConfigurationError, match="There is no column 'author' to group by"):
        split_rows(rows, [0.5, 0.5], group_column="author")
    with pytest.raises(ConfigurationError, match=r"equal texts stay together, and rows of one 'work' .*dealt out: 1"):
        split_rows(rows.select(range(3)), [0.5, 0.5], group_column="work")


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ([1.0], "two or more fractions above 0 that sum to 1"),
        ([0.5, 0.6], "two or more fractions above 0 that sum to 1"),
        ([1.5, -0.5], "two or more fractions above 0 that sum to 1"),
        ([0.999, 0.001], "one would be empty"),
    ],
)
def test_fractions_that_make_no_sense(fractions, message):
    with pytest.raises(ConfigurationError, match=message):
        split_rows(long_tail(10), fractions)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.sampled_from("abcde"), unique=True), min_size=20, max_size=40),
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.integers(0, 5),
)
def test_every_row_is_in_one_split(labels, weights, seed):
    rows = Dataset.from_dict({"text": [f"text {row}" for row in range(len(labels))], "labels": labels})
    fractions = [weight / sum(weights) for weight in weights]
    parts = split_rows(rows, fractions, seed=seed)
    assert sorted(number for part in parts for number in numbers(part)) == list(range(len(labels)))
    assert all(abs(len(part) - len(labels) * one) < 1 for part, one in zip(parts, fractions, strict=True))

"""What looks wrong is said once, with an example and with what to do."""

from __future__ import annotations

import logging
import unicodedata

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_bert_tokenizer

from xlgen_hf import load_rows
from xlgen_hf.data.suspicion import (
    label_counts,
    log_split_suspicions,
    log_suspicions,
    look_alike_suspicions,
    look_alikes,
    row_suspicions,
    split_suspicions,
    text_keys,
    token_lengths,
    truncation_suspicions,
)
from xlgen_hf.labels.space import name_difference, normalize_name


def rows_of(labels, texts=None):
    texts = texts or [f"text {number}" for number in range(len(labels))]
    return Dataset.from_dict({"text": texts, "labels": labels})


def kinds(rows, **options):
    return {one.kind: one for one in row_suspicions(rows, **options)}


@pytest.mark.parametrize("name", ["ŞEHİR PLANLAMA", "Şehir Planlama", "şehir planlama"])
def test_turkish_capitals_are_folded(name):
    assert normalize_name(name) == "şehir planlama"


def test_healthy_rows_raise_no_suspicion(caplog):
    labels = [[f"label {number % 30}", f"other {number % 17}", "history, general"] for number in range(200)]
    assert row_suspicions(rows_of(labels)) == []
    with caplog.at_level(logging.INFO, "xlgen_hf"):
        load_rows(rows_of(labels))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("labels", "separator"),
    [
        ([["earn; usa"]], ";"),
        ([["a"], ["a|b"]], "|"),
        ([["a, b"], ["b, a"], ["c, a"], ["a"]], ","),
        ([["a\nb"]], "\n"),
    ],
)
def test_labels_that_look_unsplit(labels, separator, caplog):
    found = kinds(rows_of(labels))["unsplit"]
    assert f"hold {separator!r}, as if several were written in one, e.g." in found.message
    assert f"label_separator={separator!r} (--label-separator)" in found.advice
    load_rows(rows_of(labels))
    assert caplog.text.count("as if several were written in one") == 1
    assert "unsplit" not in kinds(load_rows(rows_of(labels), label_separator=separator))


def test_the_example_names_the_row():
    rows = rows_of([["x"], [], ["y", "earn; usa"]])
    assert "'earn; usa' in row 3" in kinds(rows)["unsplit"].message


def test_cells_with_commas_that_were_not_split(caplog):
    load_rows([{"text": "x", "labels": "a, b"}])
    assert "1 of 1 labels hold ',', as if several" in caplog.text
    caplog.clear()
    load_rows([{"text": "x", "labels": "a, b"}], label_separator="|")
    assert caplog.text == ""


@pytest.mark.parametrize("comma", ["\uff0c", "、", "،"])
def test_cells_with_other_commas_that_were_not_split(comma, caplog):
    load_rows([{"text": "x", "labels": f"a{comma} b"}])
    assert f"1 of 1 labels hold {comma!r}, as if several" in caplog.text
    assert "--label-separator" in caplog.text


@pytest.mark.parametrize("sign", [",", ";", "\uff1b", "、"])
def test_labels_that_end_in_a_separator(sign):
    rows = rows_of([["a"], [], [f"soy{sign}", "b"], [f"corn{sign}", f"oil{sign}", "b"]])
    found = kinds(rows)["unsplit"]
    assert found.message.startswith(f"2 of 3 rows with labels have one that ends in {sign!r}, as if it stood between")
    assert f"'soy{sign}' in row 3" in found.message
    assert f"label_separator={sign!r} (--label-separator)" in found.advice
    assert found.number == 2


@pytest.mark.parametrize("name", ["caf&eacute;", ",", "history, general"])
def test_labels_that_end_in_no_separator(name):
    assert "unsplit" not in kinds(rows_of([[name], ["b"]]))
    rare = [["soy,", "b"]] + [["b"]] * 30
    assert "unsplit" not in kinds(rows_of(rare))


def test_labels_in_brackets(caplog):
    load_rows([{"text": "x", "labels": "[music]"}, {"text": "y", "labels": "[art]"}, {"text": "z", "labels": "law"}])
    assert (
        "2 of 3 labels stand in square brackets, as if they were lists without quotes, e.g. '[music]'" in caplog.text
    )
    assert "bracketed" not in kinds(rows_of([["[s.n.]", "music"], ["art", "law"]]))


def test_one_label_a_row():
    rows = rows_of([[f"label {number % 5}"] for number in range(60)])
    found = kinds(rows, guessed_separator=True)["single_label"]
    assert "60 rows have 1.00 labels on average, e.g. ['label 0']" in found.message
    assert "--label-separator" in found.advice
    assert "--layout long" in found.advice
    assert "single_label" not in kinds(rows.select(range(10)))  # too few to say anything


def test_labels_that_hardly_repeat():
    found = kinds(rows_of([[f"a{number}", f"b{number}"] for number in range(40)]))["unique_labels"]
    assert "80 of 80 labels occur in one row only, e.g. 'a0' in row 1" in found.message


@pytest.mark.parametrize("labels", [[["12", "34"]], [["http://ex.org/c1"]]])
def test_labels_that_are_ids(labels):
    found = kinds(rows_of(labels))["label_ids"]
    assert "are numbers or URIs, which say nothing to a language model" in found.message
    assert "--label-names" in found.advice


def test_suspicions_can_be_left_to_the_caller(caplog):
    load_rows(rows_of([["earn; usa"]]), suspicions=False)
    assert caplog.text == ""


# ---------------------------------------------------------------------------------------------------- look-alikes

CAFE = "café culture"


@pytest.mark.parametrize(
    ("one", "other", "how"),
    [
        (CAFE, unicodedata.normalize("NFD", CAFE), "Unicode normal form (NFC, NFD)"),
        ("Music", "music", "case"),
        ("music", "mu\u200bsic", "invisible characters (zero-width)"),
        ("music hall", "music  hall", "white space"),
        ("A", "\uff21", "case, width, white space or Unicode form"),
    ],
)
def test_names_that_look_the_same(one, other, how):
    assert look_alikes([one, other, "else", one]) == [(one, other)]
    assert name_difference(one, other) == how
    (found,) = look_alike_suspicions([one, other])
    assert found.message.isascii()  # so that the difference shows
    assert how in found.message


def test_look_alikes_between_two_lists():
    nfd = unicodedata.normalize("NFD", CAFE)
    assert look_alike_suspicions([CAFE, "tea"], [CAFE, "TEA room"]) == []
    (found,) = look_alike_suspicions([nfd, "tea", CAFE], [CAFE], what="predicted and true labels")
    assert found.number == 1
    assert "predicted and true labels" in found.message


@given(st.text())
def test_folding_is_stable(name):
    assert normalize_name(normalize_name(name)) == normalize_name(name)
    assert normalize_name(unicodedata.normalize("NFD", name)) == normalize_name(unicodedata.normalize("NFC", name))


# ---------------------------------------------------------------------------------------------------- texts


def test_texts_of_two_splits(caplog):
    train = rows_of([["a"]] * 3, ["One title.", "two", ""])
    test = rows_of([["a"]] * 3, ["three", "one TITLE", ""])
    found = split_suspicions({"train": train, "validation": rows_of([["a"]], ["four"]), "test": test})
    assert [one.kind for one in found] == ["shared_texts"]
    assert "1 of 3 texts of test are texts of train, too" in found[0].message
    assert "row 2: 'one TITLE'" in found[0].message
    log_suspicions(found, "data")
    assert caplog.messages == [f"data: {found[0].message} {found[0].advice}"]


def test_many_repeated_texts(caplog):
    texts = [f"ticket {number}" for number in range(57)]
    few = rows_of([["a"]] * 60, ["", "Thanks!", *texts, "thanks"])
    assert split_suspicions({"train": few}) == []
    many = rows_of([["a"]] * 60, ["", "Thanks!", *texts[:55], "Ticket 7", "thanks", "THANKS."])
    (found,) = split_suspicions({"train": many, "test": rows_of([["a"]] * 60, ["x", "Many thanks!"] * 30)})
    assert found.kind == "repeated_texts" and found.number == 3 + 58
    assert (
        "(case and punctuation aside): 3 of 60 in train, 58 of 60 in test, e.g. 'Thanks!' in 3 rows" in found.message
    )
    log_split_suspicions({"train": many})
    assert "The data: Texts that an earlier row has, too" in caplog.messages[0]


def test_text_keys():
    keys = text_keys(rows_of([["a"]] * 4, ["A b", "a, B!", "?", "c"]))
    assert keys[0] == keys[1] != keys[3]
    assert keys[2] == 0
    exact = text_keys(rows_of([["a"]] * 2, ["A b", "a b"]), fold=False)
    assert exact[0] != exact[1]


def test_texts_that_will_be_truncated():
    rows = rows_of([["a"]] * 4, ["art", "art and music", "a history of church music", "art"])
    lengths = token_lengths(rows, make_bert_tokenizer())
    assert lengths.tolist() == [3, 5, 7, 3]
    assert token_lengths(rows, make_bert_tokenizer(), sample=2).tolist() == [3, 3]
    (found,) = truncation_suspicions(lengths, 4)
    assert found.number == 2
    assert "50.0% of 4 texts have more than 4 tokens and lose their end" in found.message
    assert "the longest (text 3) 3 tokens of 7; 95 %" in found.message
    assert truncation_suspicions(lengths, 7) == []


def test_label_counts_over_blocks(monkeypatch):
    rows = rows_of([[f"label {number % 3}", "all"] for number in range(30)])
    counts = label_counts(rows.select(range(29, -1, -1)))
    assert counts == {"all": 30, "label 0": 10, "label 1": 10, "label 2": 10}
    assert np.all([count > 0 for count in counts.values()])


def test_what_a_training_says_of_its_splits(caplog):
    train, test = rows_of([["a"]] * 2, ["art", "art and music"]), rows_of([["a"]], ["ART"])
    log_split_suspicions({"train": train, "test": test}, tokenizer=make_bert_tokenizer(), max_length=4)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "The data: 1 of 1 texts of test are texts of train" in caplog.messages[0]
    assert "The texts of train: 50.0% of 2 texts have more than 4 tokens" in caplog.messages[1]
    caplog.clear()
    log_split_suspicions({"train": train})
    assert caplog.messages == []


def test_a_split_without_labels_is_looked_at():
    features = Features({"text": Value("string"), "labels": List(Value("string"))})
    empty = Dataset.from_dict({"text": ["d", "e", "f"], "labels": [[]] * 3}, features=features)
    splits = {"train": rows_of([["organ"]] * 3), "validation": empty}
    (found,) = split_suspicions(splits)
    assert found.kind == "no_labels" and found.message == "None of the 3 rows of validation has a label."


def test_empty_lines_before_the_header_of_a_table_are_passed_over(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n\ntext,labels\na b c,x;y\nd e f,x\n", encoding="utf-8")
    assert load_rows(str(path))["labels"][:] == [["x", "y"], ["x"]]

"""Rows that name the concepts of a vocabulary: by id, by any name, in every format; counted and reported."""

from __future__ import annotations

import logging

import pyarrow as pa
import pytest
from datasets import Dataset

from xlgen_hf import load_rows
from xlgen_hf.data.vocabulary_files import write_vocabulary
from xlgen_hf.errors import ConfigurationError, DataError
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary

E = "http://example.org/"
VOCABULARY = Vocabulary(
    [
        Concept(E + "1", {"en": "mercury", "de": "Merkur"}, broader=(E + "3",)),
        Concept(E + "2", {"en": "mercury", "de": "Quecksilber"}, {"en": ("quicksilver",)}),
        Concept(E + "3", {"en": "planets"}, notation="52"),
    ],
    "en",
)
PLANET, METAL = "mercury (planets)", "mercury (2)"


def labels_of(rows, **options) -> list[list[str]]:
    return load_rows(rows, vocabulary=VOCABULARY, **options)["labels"][:]


def test_every_way_to_name_a_concept(caplog):
    caplog.set_level(logging.INFO)
    rows = [
        {"text": "a", "labels": [E + "1", "Quecksilber", "quicksilver", PLANET]},
        {"text": "b", "labels": ["planets", f"<{E}3>", 52]},
        {"text": "c", "labels": ["mercury", "planets", "mercury"]},
        {"text": "d", "labels": ["comets", E + "99", "planets"]},
    ]
    assert labels_of(rows) == [[PLANET, METAL], ["planets"], ["planets"], ["comets", "planets"]]
    for part in (
        "labels that name a concept: 9 of 13; by an id or another name than the label: 5",
        f"names that several concepts have, .*: 2 (different ones: 1), e.g. 'mercury' may be {E}1, {E}2 (row 3)",
        f"ids that the vocabulary does not have, .*: 1 (different ones: 1), e.g. '{E}99' (row 4)",
        "names that no concept has, .*: 1 (different ones: 1), e.g. 'comets' (row 4)",
        "labels that a row repeats, which count once: 4",
    ):
        start, _, end = part.partition(".*")
        assert any(start in line and end in line for line in caplog.text.splitlines()), part


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "a", "labels": "quicksilver|planets"}],
        [{"text": "a", "labels": "quicksilver; planets", "label_separator": ";"}],
        Dataset.from_dict({"text": ["a"], "labels": [[E + "2", "52"]]}),
        pa.table({"text": ["a", "a"], "labels": [E + "2", "planets"]}),
        [{"text": "a", "labels": [E + "2", 52]}],
    ],
)
def test_every_form_of_rows(rows):
    assert labels_of(rows) == [[METAL, "planets"]]


def test_numbers_are_ids_and_columns_are_names(tmp_path):
    numbered = Vocabulary([Concept("0", {"": "zero"}), Concept("1", {"": "one"})])
    rows = Dataset.from_dict({"text": ["a", "b"], "labels": [[0, 1], [7]]})
    assert load_rows(rows, vocabulary=numbered)["labels"][:] == [["zero", "one"], []]
    path = tmp_path / "rows.csv"
    path.write_text(f"text,{E}1,Quecksilber,planets\na,1,0,1\nb,0,1,0\n", encoding="utf-8")
    assert labels_of(path) == [[PLANET, "planets"], [METAL]]


def test_annif_corpora_need_no_further_vocabulary(tmp_path):
    (tmp_path / "train.tsv").write_text(f"Orbits\t<{E}1> <{E}3>\nMetals\t<{E}2>\n", encoding="utf-8")
    assert labels_of(tmp_path / "train.tsv") == [[PLANET, "planets"], [METAL]]
    for name, content in (("a.txt", "Orbits"), ("a.key", "Merkur\n"), ("b.txt", "Metals"), ("b.tsv", f"<{E}2>\tx\n")):
        (tmp_path / "documents").mkdir(exist_ok=True)
        (tmp_path / "documents" / name).write_text(content, encoding="utf-8")
    assert labels_of(tmp_path / "documents") == [[PLANET], [METAL]]


def test_names_in_another_unicode_form_are_names():
    names = {"de": "K\u00e4se", "el": "\u03a4\u03c5\u03c1\u03af"}, {"de": "A\u0308pfel", "vi": "qu\u1ea3 ta\u0301o"}
    vocabulary = Vocabulary([Concept(E + str(number), of_one) for number, of_one in enumerate(names)], "de")
    given = [
        ["Ka\u0308se", "\u00c4pfel"],
        ["\u03a4\u03c5\u03c1\u03b9\u0301"],
        ["qu\u1ea3 t\u00e1o"],
        ["K\u00e4se", "A\u0308pfel"],
    ]
    rows = load_rows([{"text": str(row), "labels": labels} for row, labels in enumerate(given)], vocabulary=vocabulary)
    cheese, apples = vocabulary.labels.values()
    assert rows["labels"][:] == [[cheese, apples], [cheese], [apples], [cheese, apples]]


def test_names_of_one_form_stay_apart_where_the_vocabulary_has_both():
    one, other = "K\u00e4se", "Ka\u0308se"
    vocabulary = Vocabulary([Concept("1", {"de": one}), Concept("2", {"de": other})], "de")
    assert vocabulary.find(one) == ("1",)
    assert vocabulary.find(other) == ("2",)
    both = Vocabulary([Concept("1", {"de": "x"}, {"de": (other,)}), Concept("2", {"de": "y"}, {"de": (other,)})], "de")
    assert both.find(one) == ("1", "2")


def test_ids_with_white_space_between_them_need_a_separator(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(f"text,subject_uris\na,{E}3\nb,{E}1 <{E}2>\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"rows\.csv, row 2: The label '.*' is 2 ids of concepts\. Give --label-separator"
    ):
        labels_of(path, labels_column="subject_uris")
    assert labels_of(path, labels_column="subject_uris", label_separator=" ") == [["planets"], [PLANET, METAL]]
    rows = [{"text": "a", "labels": ["planets", "planets mercury"]}]
    assert labels_of(rows) == [["planets", "planets mercury"]]  # names may be words of other names
    words = Vocabulary([Concept("art", {"en": "arts"}), Concept("law", {"en": "laws"})], "en")
    labels = [{"text": "a", "labels": ["law", "art law"]}]
    assert load_rows(labels, vocabulary=words)["labels"][:] == [["laws", "art law"]]  # and so may ids


def test_a_vocabulary_of_other_rows_is_refused():
    with pytest.raises(DataError, match=r"None of the 2 labels names one of the 3 concepts .*'art' \(row 1\)"):
        labels_of([{"text": "a", "labels": ["art", "history"]}])


def test_a_file_is_read_once(tmp_path, caplog):
    path = tmp_path / "v.jsonl"
    write_vocabulary(path, VOCABULARY)
    rows = [{"text": "a", "labels": ["quicksilver"]}]
    assert load_rows(rows, vocabulary=path, language="de")["labels"][:] == [["Quecksilber"]]
    assert load_rows(rows, vocabulary=path)["labels"][:] == [[METAL]]  # the labels that the file has
    caplog.clear()
    assert load_rows(rows, vocabulary=str(path))["labels"][:] == [[METAL]] and "names that several" not in caplog.text
    write_vocabulary(path, VOCABULARY.in_language("de"))
    assert load_rows(rows, vocabulary=path)["labels"][:] == [["Quecksilber"]]


def test_rows_of_a_folder_are_counted_in_their_file(tmp_path, caplog):
    for split, name in (("train", "quicksilver"), ("test", "mercury")):
        (tmp_path / f"{split}.csv").write_text(f"text,labels\na,{name}|planets\n,planets\n", encoding="utf-8")
        load_rows(tmp_path, vocabulary=VOCABULARY, split=split, require_labels=False)
    assert f"{tmp_path / 'test.csv'}: names that several concepts have" in caplog.text
    for split in ("train", "test"):
        assert f"{tmp_path / split}.csv: empty texts: 1 of 2, e.g. row 2." in caplog.text


def test_options_that_contradict_each_other(tmp_path):
    rows = [{"text": "a", "labels": ["planets"]}]
    with pytest.raises(ConfigurationError, match="vocabulary and label_names both say"):
        labels_of(rows, label_names="x.tsv")
    with pytest.raises(ConfigurationError, match="language='de' has no effect without a file"):
        labels_of(rows, language="de")
    with pytest.raises(ConfigurationError, match="language='de' has no effect"):
        load_rows(rows, language="de")
    with pytest.raises(DataError, match=r"none\.ttl: There is no such file"):
        load_rows(rows, vocabulary=tmp_path / "none.ttl")

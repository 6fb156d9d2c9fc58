from __future__ import annotations

import csv
import json

import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf import LabelPrediction, RowOptions, load_rows
from xlgen_hf.data.predictions import (
    PREDICTION_FORMATS,
    check_prediction_file,
    join_columns,
    read_predictions,
    write_predictions,
)
from xlgen_hf.errors import ConfigurationError, DataError

PREDICTIONS = [
    LabelPrediction(["music", "history, general"], [0.75, 0.5], ["cluster 1"]).to_dict(),
    LabelPrediction([], []).to_dict(),
    LabelPrediction(["a|b"], [0.125]).to_dict(),
]
FILES = [f"out{suffix}" for suffix in (*PREDICTION_FORMATS, *map(str.upper, PREDICTION_FORMATS))]


@pytest.mark.parametrize("name", FILES)
def test_predictions_come_back(tmp_path, name):
    assert write_predictions(tmp_path / name, iter(PREDICTIONS)) == 3
    found = read_predictions(tmp_path / name)
    assert found.labels == [row["labels"] for row in PREDICTIONS]
    assert found.scores == [row["scores"] for row in PREDICTIONS]
    assert found.ids is None


@pytest.mark.parametrize("name", FILES)
def test_predictions_carry_the_columns_of_their_rows(tmp_path, name):
    rows = [{"ppn": f"id {n}", "text": f"text {n}", "year": 1999 + n} for n in range(4)]
    options = RowOptions(id_column="ppn", keep_columns=("year,text",))
    rows = load_rows(rows, options, require_labels=False)
    joined = join_columns(PREDICTIONS, rows, options, start=1)
    assert [list(row)[:3] for row in joined] == [["ppn", "year", "text"]] * 3
    assert joined[0] == {"ppn": "id 1", "year": 2000, "text": "text 1", **PREDICTIONS[0]}
    write_predictions(tmp_path / name, joined)
    found = read_predictions(tmp_path / name, RowOptions(id_column="ppn"))
    assert found.ids == ["id 1", "id 2", "id 3"]
    assert found.labels == [row["labels"] for row in PREDICTIONS]


def test_csv_that_people_open(tmp_path):
    rows = [{"id": 7, **PREDICTIONS[0]}, {"id": 8, **PREDICTIONS[2]}]
    write_predictions(tmp_path / "out.csv", rows, label_separator="; ")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.reader(file))
    assert found == [
        ["id", "labels", "scores", "clusters", "novel_labels"],
        ["7", "music; history, general", "0.75; 0.5", "cluster 1", ""],
        ["8", '["a|b"]', "0.125", "", ""],
    ]
    assert read_predictions(tmp_path / "out.csv").labels == [["music", "history, general"], ["a|b"]]


@pytest.mark.parametrize("separator", [None, ";", "; ", ",", "\t", "\n"])
@pytest.mark.parametrize("name", ["out.csv", "out.tsv"])
@pytest.mark.parametrize(
    "labels",
    [
        [["a;b", "c|d"], ["history, general"], ["e;f"]],  # cells that are JSON lists
        [["a", "b"], *([f"label {number}"] for number in range(99)), ["history, general"]],  # few of several labels
        [["e"], [], ["f"]],
    ],
)
def test_whatever_separates_scores_they_come_back(tmp_path, name, separator, labels):
    rows = [
        {"labels": of_row, "scores": [0.5, 1e-05][: len(of_row)], "ids": list("xy")[: len(of_row)]}
        for of_row in labels
    ]
    write_predictions(tmp_path / name, rows, label_separator=separator)
    for options in (None, RowOptions(label_separator=separator), RowOptions(label_separator="|")):
        found = read_predictions(tmp_path / name, options, with_concepts=True)
        assert found.labels == labels
        assert found.scores == [row["scores"] for row in rows]
        assert found.concepts == [row["ids"] for row in rows]


@pytest.mark.parametrize("scores", ["0.5|0.25", "0.5;0.25", "0.5, 0.25", "[0.5, 0.25]", "[0.5 0.25]", "0.5 0.25"])
def test_scores_as_other_programs_write_them(tmp_path, scores):
    for cell in ('["history, general", "b"]', "history, general;b", "history, general|b"):
        with (tmp_path / "out.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("labels", "scores"), (cell, scores), ("Bach, Johann", "0.5")])
        found = read_predictions(tmp_path / "out.csv")
        assert found.labels == [["history, general", "b"], ["Bach, Johann"]]
        assert found.scores == [[0.5, 0.25], [0.5]]


def test_parquet_has_types_even_if_the_first_row_is_empty(tmp_path):
    write_predictions(tmp_path / "out.parquet", [PREDICTIONS[1], PREDICTIONS[0]])
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert [str(schema.field(name).type) for name in ("labels", "scores")] == [
        "list<element: string>",
        "list<element: double>",
    ]
    assert write_predictions(tmp_path / "none.parquet", []) == 0


_SIGNS = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("|;,[]\n\t"))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.text(_SIGNS, min_size=1, max_size=5), max_size=4), min_size=1, max_size=5),
    st.sampled_from(FILES),
)
def test_any_labels_come_back(tmp_path_factory, labels, name):
    path = tmp_path_factory.mktemp("predictions") / name
    write_predictions(path, [{"labels": row, "scores": [0.5] * len(row)} for row in labels])
    assert read_predictions(path).labels == labels


def test_columns_that_predictions_have_themselves():
    rows = Dataset.from_list([{"text": "x", "labels": [], "scores": 1}])
    with pytest.raises(ConfigurationError, match=r"Predictions have \['scores'\] of their own; rename the column"):
        join_columns(PREDICTIONS[:1], rows, RowOptions(keep_columns=("scores",)))


def test_names_of_prediction_files(tmp_path):
    with pytest.raises(ConfigurationError, match=r"out\.xlsx: the name must end in one of \.jsonl"):
        check_prediction_file(tmp_path / "out.xlsx")
    with pytest.raises(DataError, match=r"row 2: There is a column 'more' that the first prediction does not have"):
        write_predictions(tmp_path / "out.csv", [{"labels": []}, {"labels": [], "more": 1}])
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "There are no rows"),
        ([{"tags": ["a"]}], "There is no column 'labels', only"),
        ([{"labels": ["a"]}, {"labels": "a"}], "row 2: `labels` must be a list of label names"),
        ([{"labels": ["a"], "scores": [0.5, 1]}], "row 1: `scores` must be a list of 1 numbers"),
        ([{"labels": ["a"], "scores": [0.5]}, {"labels": ["a"]}], "row 2: Some rows have `scores`, others have none"),
    ],
)
def test_predictions_that_cannot_be_read(tmp_path, rows, message):
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=rf"out\.jsonl.*{message}"):
        read_predictions(tmp_path / "out.jsonl")


def test_ids_that_are_not_there(tmp_path):
    (tmp_path / "out.jsonl").write_text('{"labels": ["a"]}\n')
    with pytest.raises(DataError, match="There is no column 'ppn' of ids, only"):
        read_predictions(tmp_path / "out.jsonl", RowOptions(id_column="ppn"))

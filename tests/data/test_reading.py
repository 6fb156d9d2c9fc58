"""Reading what people have: their columns, separators, encodings, layouts."""

from __future__ import annotations

import json
import logging

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, List, Value
from torch.utils.data import Subset

from xlgen_hf import RowOptions, load_rows
from xlgen_hf.data import row_store
from xlgen_hf.data.rows import source_splits
from xlgen_hf.errors import ConfigurationError, DataError

ROWS = [
    {"text": "a history of church music", "labels": ["music", "history, general"]},
    {"text": "ääni", "labels": ["sound (physics)"]},
]


def write(path, content, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


@pytest.fixture(name="log")
def _log(caplog):
    caplog.set_level(logging.INFO, "xlgen_hf")
    return caplog


# ---------------------------------------------------------------------------------------------------- columns


def test_columns_of_a_catalogue(tmp_path, log):
    path = write(
        tmp_path / "books.csv",
        "ppn;title;abstract;subjects;year\n"
        '17;Rivers;On water;"rivers; lakes";1999\n'
        '18;Lakes;;"lakes; water; rivers";2001\n',
    )
    options = RowOptions(
        text_column=("title", "abstract"), labels_column="subjects", id_column="ppn", keep_columns=("year",)
    )
    assert load_rows(path, options).to_list() == [
        {"text": "Rivers On water", "labels": ["rivers", "lakes"], "ppn": "17", "year": "1999"},
        {"text": "Lakes", "labels": ["lakes", "water", "rivers"], "ppn": "18", "year": "2001"},
    ]
    assert "cells are separated by ';'" in log.text
    assert "Labels are separated by ';'" in log.text


def test_the_error_names_the_options(tmp_path):
    path = write(tmp_path / "rows.jsonl", '{"title": "a b", "subjects": ["x"]}\n')
    with pytest.raises(
        DataError, match=r"no column 'text', only \['subjects', 'title'\].*--text-column \(text_column="
    ):
        load_rows(path)
    with pytest.raises(DataError, match=r"no column 'labels', only \['subjects', 'title'\].*--labels-column"):
        load_rows(path, text_column="title")
    assert load_rows(path, text_column="title", labels_column="subjects").to_list() == [
        {"text": "a b", "labels": ["x"]}
    ]


def test_a_table_keeps_its_usual_delimiter_where_it_fits_as_well(tmp_path, log):
    path = write(tmp_path / "rows.tsv", "rivers and lakes\t3,8\nlakes alone\t3,4\nrivers\t8,9\n")
    with pytest.raises(DataError, match=r"only \['3,8', 'rivers and lakes'\].*The first line of a table names its"):
        load_rows(path)
    assert "separated" not in log.text


def test_an_unknown_option_names_the_nearest(tmp_path):
    with pytest.raises(TypeError, match=r"There is no reading option 'label_column'\. Did you mean 'labels_column'"):
        load_rows(ROWS, label_column="subjects")
    with pytest.raises(ConfigurationError, match="layout='tall'; choose one of auto, rows, long, one-hot"):
        load_rows(ROWS, layout="tall")
    with pytest.raises(ConfigurationError, match="encoding='utf-99' is not known"):
        load_rows(ROWS, encoding="utf-99")
    with pytest.raises(ConfigurationError, match="delimiter='::'; it must be one character"):
        load_rows(ROWS, delimiter="::")


def test_kept_columns_keep_their_types(tmp_path):
    rows = [{**row, "year": year, "topics": ["a"]} for row, year in zip(ROWS, (1999, None), strict=True)]
    write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    found = load_rows(tmp_path / "rows.jsonl", keep_columns="year,topics")
    assert found["year"][:] == [1999, None]
    assert found["topics"][:] == [["a"], ["a"]]
    write(tmp_path / "rows.jsonl", "".join(json.dumps({**ROWS[0], "year": year}) + "\n" for year in (1, 2, "x")))
    with pytest.raises(DataError, match=r"row 3: The column 'year' cannot be kept: it holds 'x' here, and int64"):
        load_rows(tmp_path / "rows.jsonl", keep_columns="year")
    with pytest.raises(DataError, match="no column 'yeer'"):
        load_rows(tmp_path / "rows.jsonl", keep_columns="yeer")


def test_a_kept_column_may_not_be_named_as_what_is_made(tmp_path):
    rows = [{"title": "a", "text": "b", "labels": ["x"]}]
    with pytest.raises(ConfigurationError, match=r"'text' cannot be kept with the 'text' made of \['title'\]"):
        load_rows(rows, text_column="title", keep_columns="text")
    assert load_rows(rows, keep_columns=("text", "title")).column_names == ["text", "labels", "title"]


def test_ids_that_are_not_unique_are_reported(caplog):
    load_rows([{**row, "id": 7} for row in ROWS], id_column="id")
    assert "the column 'id' does not identify a row: different values: 1, rows: 2" in caplog.text


def test_an_id_of_several_texts_makes_no_long_table(caplog):
    rows = [{"id": number % 5, "text": f"text {number}", "labels": str(number)} for number in range(20)]
    assert load_rows(rows, id_column="id")["text"][:] == [row["text"] for row in rows]
    assert "the column 'id' does not identify a row" in caplog.text
    assert len(load_rows(rows, id_column="id", layout="long")) == 5


def test_the_labels_are_no_ids():
    with pytest.raises(ConfigurationError, match="id_column='labels' is the column of the labels"):
        load_rows(ROWS, id_column="labels")


@pytest.mark.parametrize("nothing", [None, ""])
def test_rows_of_one_label_each_without_an_id_stay_alone(nothing):
    ids = ["1", nothing, "2", "1", nothing, "1"]
    rows = [{"id": one, "text": f"text {one or number}", "labels": str(number)} for number, one in enumerate(ids)]
    found = load_rows(rows, id_column="id", layout="long")
    assert found["labels"][:] == [["0", "3", "5"], ["1"], ["2"], ["4"]]
    assert found["id"][:] == ["1", nothing, "2", nothing]


def test_joined_texts_may_lack_a_part_but_not_all():
    rows = [{"title": "a", "labels": ["x"]}, {"title": None, "abstract": "b", "labels": ["x"]}]
    assert load_rows(rows, text_column=["title", "abstract"], text_separator=". ")["text"][:] == ["a", "b"]
    with pytest.raises(DataError, match="row 1: The text is empty"):
        load_rows([{"title": " ", "abstract": None, "labels": ["x"]}], text_column=["title", "abstract"])
    with pytest.raises(DataError, match="no column 'abstrakt'"):
        load_rows(rows, text_column=["title", "abstrakt"])


# ---------------------------------------------------------------------------------------------------- separators


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["earn; usa"], [["earn", "usa"]]),
        (["a|b", "c"], [["a", "b"], ["c"]]),
        (["a\nb", "c"], [["a", "b"], ["c"]]),
        (["R&amp;D", "x"], [["R&amp;D"], ["x"]]),  # a semicolon of an entity separates nothing
        (["b, a", "a, b", "c, a, b", "b", "c"], [["b", "a"], ["a", "b"], ["c", "a", "b"], ["b"], ["c"]]),
        (["history, general", "Bach, Johann"], [["history, general"], ["Bach, Johann"]]),
        (["['a', 'b, c']", "[]"], [["a", "b, c"], []]),
        (["['a' \"b's\"\n 'c']"], [["a", "b's", "c"]]),  # as numpy prints
        (["('a', 'b')", "{'c'}", "(plain)"], [["a", "b"], ["c"], ["(plain)"]]),
        (['["a|b", "c"]', "d|e"], [["a|b", "c"], ["d", "e"]]),
        (["", "a"], [[], ["a"]]),
    ],
)
def test_separators_are_recognised(cells, expected):
    rows = [{"text": f"text {number}", "labels": cell} for number, cell in enumerate(cells)]
    assert load_rows(rows)["labels"][:] == expected
    assert load_rows(pd.DataFrame(rows))["labels"][:] == expected


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("[a, b]", r"row 1: The labels '\[a, b\]' look like a list but cannot be read as one"),
        ("['a' 'b' ... 'z']", r"numpy printed it shortened"),
        ("['a\\x']", r"row 1: The labels .* are not a list that can be read"),
        ("[" * 5000 + "]", "look like a list but cannot be read"),
        (f"[{'9' * 5000}]", "look like a list but cannot be read"),
    ],
)
def test_lists_that_cannot_be_read(cell, message):
    with pytest.raises(DataError, match=message):
        load_rows([{"text": "x", "labels": cell}])


def test_a_given_separator_holds_for_lists_too():
    rows = [{"text": "x", "labels": ["earn; usa ;", "trade"]}]
    assert load_rows(rows)["labels"][:] == [["earn; usa ;", "trade"]]
    assert load_rows(rows, label_separator=";")["labels"][:] == [["earn", "usa", "trade"]]
    assert load_rows(Dataset.from_list(rows), label_separator=";")["labels"][:] == [["earn", "usa", "trade"]]
    assert load_rows([{"text": "x", "labels": "a; b"}], label_separator="")["labels"][:] == [["a; b"]]
    assert load_rows([{"text": "x", "labels": "a\tb"}], label_separator="\\t")["labels"][:] == [["a", "b"]]


# ---------------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    ("encoding", "reported"),
    [
        ("cp1252", "read as cp1252, where its first character beyond ASCII begins 'ölkunde"),
        ("utf-16", "read as UTF-16"),
        ("utf-16-le", "read as UTF-16-LE"),
        ("utf-16-be", "read as UTF-16-BE"),
        ("utf-32", "read as UTF-32"),
        ("utf-8-sig", None),
        ("utf-8", None),
    ],
)
def test_encodings_are_recognised(tmp_path, log, encoding, reported):
    path = write(tmp_path / "rows.csv", "text,labels\nVölkunde heute,Völker|Kunde\n", encoding)
    assert load_rows(path).to_list() == [{"text": "Völkunde heute", "labels": ["Völker", "Kunde"]}]
    assert (reported or "") in log.text
    assert (reported is None) == ("read as" not in log.text)


def test_an_encoding_can_be_given(tmp_path):
    path = write(tmp_path / "rows.csv", "text,labels\nЯзык лингвист,слово\n", "cp1251")
    with pytest.raises(DataError, match=r"row 2: The file is not UTF-8: byte 12 is 0xdf.*--encoding"):
        load_rows(path)  # too many letters beyond ASCII for a Western language
    assert load_rows(path, encoding="cp1251").to_list() == [{"text": "Язык лингвист", "labels": ["слово"]}]
    path = write(tmp_path / "rows.jsonl", '{"text": "é", "labels": ["a"]}\n', "latin-1")
    assert load_rows(path, encoding="latin-1")["text"][:] == ["é"]
    with pytest.raises(DataError, match=r"row 1: The file is not UTF-8"):
        load_rows(path)
    path = write(tmp_path / "rows.csv", b"text,labels\na,b\n\x81\xff,c\n")
    with pytest.raises(DataError, match=r"row 1: The file is not ascii"):
        load_rows(path, encoding="ascii")


def test_a_damaged_utf8_file_is_not_taken_for_another(tmp_path):
    path = write(tmp_path / "rows.csv", "text,labels\nVölker,a\n".encode() + b"caf\xe9,b\n")
    with pytest.raises(DataError, match=r"row 3: The file is not UTF-8: byte \d+ is 0xe9"):
        load_rows(path)


# ---------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_recognised(tmp_path, delimiter):
    lines = [["id", "text", "labels"], ["1", "one, two", "a"], ["2", "three; four", "b"]]
    path = write(tmp_path / "rows.csv", "".join(delimiter.join(f'"{cell}"' for cell in line) + "\n" for line in lines))
    assert load_rows(path)["text"][:] == ["one, two", "three; four"]
    assert load_rows(path, delimiter=delimiter, id_column="id")["id"][:] == ["1", "2"]


def test_a_wrong_delimiter_is_seen_by_the_columns(tmp_path):
    path = write(tmp_path / "rows.csv", "text,labels\na,b\n")
    with pytest.raises(DataError, match=r"no column 'text', only \['text,labels'\]"):
        load_rows(path, delimiter=";")


def test_excel(tmp_path, log):
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    sheet.append([])
    sheet.append(["id", "title", "labels", None, "year"])
    sheet.append([17, "Rivers", "rivers; lakes", None, 1999.0])
    sheet.append([])
    sheet.append([18, 1984, "books; water"])
    book.create_sheet("notes")
    book.save(tmp_path / "rows.xlsx")
    found = load_rows(tmp_path / "rows.xlsx", text_column="title", id_column="id", keep_columns="year")
    assert found.to_list() == [
        {"text": "Rivers", "labels": ["rivers", "lakes"], "id": "17", "year": "1999"},
        {"text": "1984", "labels": ["books", "water"], "id": "18", "year": ""},
    ]
    assert "the sheet 'Sheet' is read, the first of 2" in log.text
    sheet["B5"] = " "
    book.save(tmp_path / "rows.xlsx")
    with pytest.raises(DataError, match=r"rows\.xlsx, row 3: The text is empty"):
        load_rows(tmp_path / "rows.xlsx", text_column="title")
    with pytest.raises(DataError, match=r"bad\.xlsx: The file cannot be read as an Excel file"):
        load_rows(write(tmp_path / "bad.xlsx", b"PK\x03\x04 no"))
    with pytest.raises(DataError, match=r"old\.xls: Files of this name cannot be read; .* Save it as \.xlsx"):
        load_rows(write(tmp_path / "old.xls", b""))


def test_long_tables(tmp_path, log):
    content = "doc,text,labels\n1,one,a\n2,two,b\n1,one,c\n1,one,a\n"
    path = write(tmp_path / "rows.csv", content)
    expected = [{"text": "one", "labels": ["a", "c"]}, {"text": "two", "labels": ["b"]}]
    assert load_rows(path).to_list() == expected
    assert "a long table; its 4 rows of one label each are 2 texts" in log.text
    assert load_rows(path, layout="long").to_list() == expected
    assert len(load_rows(path, layout="rows")) == 4
    with pytest.raises(DataError, match="The table is not a long one: rows have several labels"):
        load_rows(write(tmp_path / "more.csv", "text,labels\none,\"['a', 'b']\"\n"), layout="long")


def test_long_tables_with_names_in_brackets():
    rows = [{"text": "one", "labels": "[s.n.]"}, {"text": "one", "labels": "a"}]
    for layout in ("auto", "long"):
        assert load_rows(rows, layout=layout).to_list() == [{"text": "one", "labels": ["[s.n.]", "a"]}]


def test_long_tables_by_id(tmp_path, caplog):
    path = write(tmp_path / "rows.csv", "doc,text,labels\n1,one,a; b\n2,one,b\n1,ONE,c\n")
    found = load_rows(path, layout="long", id_column="doc")
    assert found.to_list() == [
        {"text": "one", "labels": ["a; b", "c"], "doc": "1"},
        {"text": "one", "labels": ["b"], "doc": "2"},
    ]
    assert "1 rows have another text than the first row of the same 'doc'" in caplog.text


def test_rows_without_texts_are_not_merged():
    assert len(load_rows([{"labels": "a"}, {"labels": "b"}], require_text=False)) == 2


def test_one_hot_tables(tmp_path, log):
    names = [f"label {number}" for number in range(300)]
    lines = [["text", "year", *names], ["one", "1999", *["0"] * 299, "1"], ["two", "2001", "1", *["0"] * 299]]
    path = write(tmp_path / "rows.csv", "".join(",".join(line) + "\n" for line in lines))
    assert load_rows(path).to_list() == [
        {"text": "one", "labels": ["label 299"]},
        {"text": "two", "labels": ["label 0"]},
    ]
    assert "a one-hot table; 300 columns of 0 and 1 are labels; not read are ['year']" in log.text
    pq.write_table(pa.table({"text": ["x"], "a": [True], "b": [False], "c": [1.0]}), tmp_path / "rows.parquet")
    assert load_rows(tmp_path / "rows.parquet")["labels"][:] == [["a", "c"]]
    with pytest.raises(DataError, match=r"no column 'text', only \[.*\] and 290 more") as caught:
        load_rows(write(tmp_path / "rows.csv", ",".join(["txt", "year", *names]) + "\n" + ",".join("0" * 302) + "\n"))
    assert len(str(caught.value)) < 600


def test_one_hot_tables_with_something_else(tmp_path, monkeypatch):
    rows = [{"text": "x", "a": 1, "b": 0}, {"text": "y", "a": 2, "b": 1}]
    with pytest.raises(DataError, match="There is no column 'labels'"):
        load_rows(rows)
    assert load_rows(rows, layout="one-hot")["labels"][:] == [[], ["b"]]
    few = pd.DataFrame({"text": ["x", "y"], "year": [1, 2], "a": ["TRUE", "FALSE"], "b": [False, True]})
    with pytest.raises(DataError, match=r"no column 'labels'.* If \['a', 'b'\], .* labels, give --layout one-hot"):
        load_rows(few)
    assert load_rows(few, layout="one-hot")["labels"][:] == [["a"], ["b"]]
    monkeypatch.setattr("xlgen_hf.data.blocks.BLOCK_ROWS", 1)
    with pytest.raises(DataError, match="row 2: The one-hot column 'a' holds 2; 0 or 1 is expected"):
        load_rows(rows, layout="one-hot")
    with pytest.raises(DataError, match=r"No column holds only 0 and 1.*: 'a' holds 5\. Where numbers are votes"):
        load_rows([{"text": "x", "a": 5}], layout="one-hot")


# ---------------------------------------------------------------------------------------------------- label ids


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "joy\nanger\n"),
        ("names.tsv", "0\tjoy\n1\tanger\n"),
        ("names.csv", "id,name\n0,joy\n1,anger\n"),
        ("names.json", '{"0": "joy", "1": "anger"}'),
        ("names.json", '{"joy": 0, "anger": 1}'),
        ("names.json", '["joy", "anger"]'),
        ("names.jsonl", '{"id": 0, "label": "joy"}\n{"id": 1, "name": "anger"}\n'),
    ],
)
def test_label_ids_get_their_names(tmp_path, name, content):
    names = write(tmp_path / name, content)
    for labels in ([1, 0], ["1", "0"], "1|0"):
        assert load_rows([{"text": "x", "labels": labels}], label_names=names)["labels"][:] == [["anger", "joy"]]
    pq.write_table(pa.table({"text": ["x"], "labels": [[1, 0]]}), tmp_path / "rows.parquet")
    assert load_rows(tmp_path / "rows.parquet", label_names=names)["labels"][:] == [["anger", "joy"]]


def test_label_ids_without_a_name(tmp_path):
    names = write(tmp_path / "names.txt", "joy\nanger\n")
    with pytest.raises(DataError, match=r"row 1: The label id '2' is not among the 2 ids of .*names\.txt"):
        load_rows([{"text": "x", "labels": [0, 2]}], label_names=names)
    with pytest.raises(DataError, match=r"row 2: The label 7 is an int; .* \(label_names=..., --label-names\)"):
        load_rows([{"text": "x", "labels": ["a"]}, {"text": "x", "labels": [7]}])
    with pytest.raises(DataError, match=r"names\.jsonl, row 1: An id .* and a name"):
        load_rows(ROWS, label_names=write(tmp_path / "names.jsonl", '{"id": 1}\n'))
    with pytest.raises(DataError, match=r"names\.tsv: Duplicate label ids: \['a'\]"):
        load_rows(ROWS, label_names=write(tmp_path / "names.tsv", "a\tx\na\ty\n"))
    with pytest.raises(DataError, match=r"names\.json: Not valid JSON"):
        load_rows(ROWS, label_names=write(tmp_path / "names.json", "9" * 5000))


def test_label_ids_in_one_cell_name_their_separator(tmp_path):
    names = write(tmp_path / "names.txt", "joy\nanger\n")
    rows = [{"text": "x", "labels": "1 0"}]
    with pytest.raises(DataError, match="It is 2 of them; give --label-separator ' '"):
        load_rows(rows, label_names=names)
    assert load_rows(rows, label_names=names, label_separator=" ")["labels"][:] == [["anger", "joy"]]
    with pytest.raises(DataError, match="It is 2 of them; give --label-separator '\u3001'"):
        load_rows([{"text": "x", "labels": "1\u30010"}], label_names=names)


def test_class_names_in_the_metadata_of_parquet(tmp_path):
    classes = ClassLabel(names=["joy", "anger"])
    lists = Features({"text": Value("string"), "labels": List(classes)})
    Dataset.from_list([{"text": "x", "labels": [1, 0]}], features=lists).to_parquet(tmp_path / "rows.parquet")
    assert load_rows(tmp_path / "rows.parquet")["labels"][:] == [["anger", "joy"]]
    single = Features({"text": Value("string"), "labels": classes})
    rows = Dataset.from_list([{"text": "x", "labels": 1}, {"text": "y", "labels": -1}], features=single)
    assert load_rows(rows, require_labels=False)["labels"][:] == [["anger"], []]
    with pytest.raises(DataError, match="row 2: The label id -1 is not among the 2 ids of the metadata"):
        load_rows(rows)


# ---------------------------------------------------------------------------------------------------- in memory


def test_rows_in_memory():
    dictionaries = ROWS
    for source in (
        dictionaries,
        iter(dictionaries),
        IterableDataset.from_generator(lambda: iter(dictionaries)),
        Subset(dictionaries, [0, 1]),
        Dataset.from_list(dictionaries),
        Dataset.from_list(dictionaries).to_iterable_dataset(),
        pd.DataFrame(dictionaries),
        pa.Table.from_pylist(dictionaries),
        {"train": Dataset.from_list(dictionaries)},
    ):
        assert load_rows(source).to_list() == ROWS
    found = DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:1])})
    assert load_rows(found, split="test").to_list() == ROWS[:1]
    with pytest.raises(DataError, match=r"the given rows: It has the splits \['test', 'train'\]; say which"):
        load_rows(found)
    assert load_rows(Dataset.from_list(ROWS).select([1])).to_list() == ROWS[1:]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (5, "Rows cannot be read from int"),
        ([ROWS[0], "x"], "the given rows, row 2: The row is str; a dictionary"),
        ({"train": ROWS}, "A data set for each split is expected; 'train' is list"),
        ([], "There are no rows"),
        (pd.DataFrame({"text": ["x", None], "labels": [["a"], ["b"]]}), "row 2: The column 'text' is null"),
        (pd.DataFrame({"text": ["x", 5], "labels": [["a"], ["b"]]}), "row 2: The column 'text' is an int, 5"),
        (pd.DataFrame({"text": ["x", "y"], "labels": [["a"], float("nan")]}), "row 2: The column 'labels' is null"),
    ],
)
def test_bad_rows_in_memory(source, message):
    with pytest.raises(DataError, match=message):
        load_rows(source)


def test_saved_data_sets(tmp_path):
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    assert load_rows(tmp_path / "one").to_list() == ROWS
    assert load_rows(tmp_path / "one" / "data-00000-of-00001.arrow").to_list() == ROWS
    DatasetDict({"train": Dataset.from_list(ROWS), "dev": Dataset.from_list(ROWS[:1])}).save_to_disk(tmp_path / "two")
    assert load_rows(tmp_path / "two", split="validation").to_list() == ROWS[:1]
    assert source_splits(tmp_path / "two") == ["train", "dev"]
    (tmp_path / "one" / "data-00000-of-00001.arrow").write_bytes(b"no")
    with pytest.raises(DataError, match=r"one: The file cannot be read as a data set of save_to_disk"):
        load_rows(tmp_path / "one")


# ---------------------------------------------------------------------------------------------------- much


def test_many_rows_go_to_a_file(monkeypatch):
    rows = [{"text": f"text {number}", "labels": [f"label {number % 7}", "all"]} for number in range(1000)]
    expected = load_rows(rows)
    monkeypatch.setattr("xlgen_hf.data.blocks.BLOCK_ROWS", 100)
    monkeypatch.setattr(row_store, "IN_MEMORY", 3000)
    found = load_rows(rows)
    assert found.cache_files and not expected.cache_files
    assert found.to_list() == expected.to_list()
    assert found.features == expected.features


def test_long_tables_beyond_memory(monkeypatch):
    monkeypatch.setattr("xlgen_hf.data.blocks.BLOCK_ROWS", 10)
    monkeypatch.setattr(row_store, "IN_MEMORY", 500)
    rows = [{"text": f"text {number % 20}", "labels": f"label {number % 7}"} for number in range(100)]
    found = load_rows(rows)
    expected = {(f"text {number % 20}", f"label {number % 7}") for number in range(100)}
    assert {(row["text"], label) for row in found for label in row["labels"]} == expected
    assert found["text"][:] == [f"text {number}" for number in range(20)]


def test_plain_texts(tmp_path):
    path = write(tmp_path / "texts.txt", "one text\n\nanother, text\n")
    expected = [{"text": text, "labels": []} for text in ("one text", "", "another, text")]
    assert load_rows(path, require_labels=False).to_list() == expected
    with pytest.raises(DataError, match=r"texts\.txt: There is no column 'labels', only \['text'\]"):
        load_rows(path)

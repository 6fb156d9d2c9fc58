"""Every format gives back what was written into it, or refuses it by name."""

from __future__ import annotations

import datetime
import unicodedata

import pytest
from datasets import Dataset
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from xlgen_hf import load_rows
from xlgen_hf.data.conversion import CONVERT_FORMATS, format_of, join_lines, write_rows
from xlgen_hf.data.transforms import remove_labels
from xlgen_hf.errors import ConfigurationError, DataError

ROWS = [
    {"text": "a history of church music", "labels": ["music", "history, general"]},
    {"text": "ääni", "labels": ["sound (physics)"]},
    {"text": "nothing", "labels": []},
]
FILES = ["rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.csv.gz", "rows.tsv", "rows.parquet"]
FOLDERS = ["jsonl", "csv", "parquet", "annif", "annif-documents", "xc", "pecos"]


def rows_of(rows):
    return Dataset.from_dict({key: [row[key] for row in rows] for key in ("text", "labels")})


def read(path, **options):
    return load_rows(path, allow_empty_text=True, suspicions=False, **options).to_list()


def as_sets(rows):
    """Rows whose labels are in no order, as in matrices."""
    return [{**row, "labels": sorted(row["labels"])} for row in rows]


@pytest.mark.parametrize("name", FILES)
def test_files_come_back(tmp_path, name):
    assert write_rows({"": rows_of(ROWS)}, tmp_path / name) == [tmp_path / name]
    assert read(tmp_path / name) == ROWS
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("form", FOLDERS)
def test_folders_come_back(tmp_path, form):
    splits = {"train": rows_of(ROWS), "dev": rows_of(ROWS[:1]), "test": rows_of(ROWS[1:])}
    files = write_rows(splits, tmp_path / "out", form, vocabulary=["never used"])
    assert all(path.is_file() for path in files)
    for split, rows in splits.items():
        assert as_sets(read(tmp_path / "out", split=split)) == as_sets(rows.to_list()), split
    names = {path.name for path in files}
    assert names & {"validation.jsonl", "validation.csv", "validation.parquet", "validation.tsv", "val_X_Y.txt",
                    "Y.val.npz", "1.key"}  # fmt: skip


@pytest.mark.parametrize("form", FOLDERS)
def test_rows_that_begin_without_labels_come_back(tmp_path, form):
    rows = [{"text": f"text {number}", "labels": ["dogs"] if number >= 25 else []} for number in range(40)]
    write_rows({"train": rows_of(rows)}, tmp_path / "out", form)
    assert as_sets(read(tmp_path / "out", split="train")) == as_sets(rows)


def test_layouts_list_the_vocabulary(tmp_path):
    for form, file in (("xc", "raw_data/label.raw.txt"), ("pecos", "output-items.txt"), ("annif", "vocab.tsv")):
        write_rows({"train": rows_of(ROWS)}, tmp_path / form, form, vocabulary=["never used", "music"])
        lines = (tmp_path / form / file).read_text(encoding="utf-8").splitlines()
        assert len(lines) == 4
        assert lines[-1].endswith("never used")
    matrix = (tmp_path / "xc" / "trn_X_Y.txt").read_text().splitlines()
    assert matrix == ["3 4", "0:1 1:1", "2:1", ""]


_SIGNS = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("|;,\t\n\r\"'[]({<> \0\ufeff\u200b"))
_NAMES = st.text(_SIGNS, min_size=1, max_size=8).filter(lambda name: name.strip() and _visible(name))
_ROWS = st.lists(
    st.fixed_dictionaries({"text": st.text(_SIGNS, max_size=12), "labels": st.lists(_NAMES, unique=True, max_size=3)}),
    min_size=1,
    max_size=6,
)


def _visible(name):
    """Names of white space that Python's strip does not know are refused as names, by whatever file has them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.utf8_trim_whitespace(pa.array([name]))[0].as_py() != ""


@settings(deadline=None, max_examples=60)
@given(rows=_ROWS, name=st.sampled_from(FILES))
def test_any_rows_come_back_from_files(tmp_path_factory, rows, name):
    path = tmp_path_factory.mktemp("rows") / name
    try:
        write_rows({"": rows_of(rows)}, path)
    except DataError as err:
        assert "cannot hold" in str(err)
        assert not path.exists()
        assert name not in ("rows.jsonl", "rows.jsonl.gz", "rows.parquet")
        assert any("\0" in part for row in rows for part in (row["text"], *row["labels"]))
        return
    assert read(path) == rows


@settings(deadline=None, max_examples=120)
@given(rows=_ROWS, form=st.sampled_from(["annif", "annif-documents", "xc", "pecos"]))
def test_any_rows_come_back_from_folders(tmp_path_factory, rows, form):
    folder = tmp_path_factory.mktemp("rows") / "out"
    try:
        write_rows({"train": rows_of(rows)}, folder, form)
    except DataError as err:
        assert f"The format {form} cannot hold" in str(err)
        assert not folder.exists()
        return
    assert as_sets(read(folder)) == as_sets(rows)


@settings(deadline=None, max_examples=60)
@given(rows=_ROWS, form=st.sampled_from(["annif", "annif-documents", "xc", "pecos"]))
def test_rows_of_plain_words_are_held_by_every_folder(tmp_path_factory, rows, form):
    def plain(text):
        return "".join(sign for sign in text if unicodedata.category(sign)[0] in "LN") or "x"

    rows = [{"text": plain(row["text"]), "labels": sorted({plain(name) for name in row["labels"]})} for row in rows]
    assume(any(row["labels"] for row in rows))
    folder = tmp_path_factory.mktemp("rows") / "out"
    write_rows({"train": rows_of(rows)}, folder, form)
    assert as_sets(read(folder)) == as_sets(rows)


# ---------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("form", "row", "message"),
    [
        ("annif", {"text": "a\tb", "labels": ["x"]}, r"the text of row 1 of train, which holds '\\t' \(--join-lines"),
        ("xc", {"text": "a\nb", "labels": ["x"]}, r"the text of row 1 of train, which holds '\\n'"),
        ("pecos", {"text": "\ufeffa", "labels": ["x"]}, r"the text of row 1 of train, which holds '\\ufeff'"),
        ("annif", {"text": "a", "labels": ["x\ty"]}, r"the label 'x\\ty', which holds a tab"),
        ("annif-documents", {"text": "a", "labels": ["<x>"]}, "the label '<x>', which looks like a URI"),
        ("xc", {"text": "a", "labels": [" x"]}, "the label ' x', which begins or ends with white space"),
        ("pecos", {"text": "a", "labels": ["x\ny"]}, r"the label 'x\\ny', which holds a line break"),
        ("pecos", {"text": "a", "labels": []}, "rows without any label"),
        ("annif", {"text": "a", "labels": []}, "the split train, since none of its rows has a label"),
        ("csv", {"text": "a\0", "labels": ["x"]}, "the text of row 1, with a zero character of train"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_by_name(tmp_path, form, row, message):
    with pytest.raises(DataError, match=f"The format {form} cannot hold {message}"):
        write_rows({"train": rows_of([row])}, tmp_path / "out", form)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("form", "value", "message"),
    [
        ("csv", ["a"], r"the column 'more' of list<.*>; only text and numbers"),
        ("jsonl", datetime.date(2020, 1, 1), r"the column 'more' of date32"),
        ("jsonl", float("nan"), "NaN or infinity in the column 'more'"),
        ("xc", "a", "further columns such as 'more'"),
    ],
)
def test_further_columns(tmp_path, form, value, message):
    rows = rows_of(ROWS[:1]).add_column("more", [value])
    with pytest.raises(DataError, match=message):
        write_rows({"train": rows}, tmp_path / "out", form)
    write_rows({"train": rows}, tmp_path / "out", "parquet")
    assert load_rows(tmp_path / "out", keep_columns="more").column_names == ["text", "labels", "more"]


def test_documents_are_not_mixed_with_older_ones(tmp_path):
    write_rows({"train": rows_of(ROWS)}, tmp_path / "out", "annif-documents")
    with pytest.raises(ConfigurationError, match=r"out/train is there already\. Remove it"):
        write_rows({"train": rows_of(ROWS[:1])}, tmp_path / "out", "annif-documents", overwrite=True)
    assert len(read(tmp_path / "out")) == 3


def test_existing_files_are_kept(tmp_path):
    write_rows({"train": rows_of(ROWS)}, tmp_path / "out", "csv")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"train\.csv exists already.*--overwrite"):
        write_rows({"train": rows_of(ROWS[:1])}, tmp_path / "out", "csv")
    assert read(tmp_path / "out") == ROWS
    write_rows({"train": rows_of(ROWS[:1])}, tmp_path / "out", "csv", overwrite=True)
    assert read(tmp_path / "out") == ROWS[:1]
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    write_rows({"": rows_of(ROWS)}, tmp_path / "rows.jsonl")
    with pytest.raises(ConfigurationError, match=r"rows\.jsonl exists already"):
        write_rows({"": rows_of(ROWS)}, tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("output", "wanted", "message"),
    [
        ("rows.xml", None, "the name says no format"),
        ("rows.csv", "jsonl", "is named as csv, and jsonl is wanted"),
        ("rows", "xml", "There is no format 'xml'; choose one of jsonl, csv"),
    ],
)
def test_formats_by_name(tmp_path, output, wanted, message):
    with pytest.raises(ConfigurationError, match=message):
        format_of(tmp_path / output, wanted)


def test_format_names(tmp_path):
    assert [format_of(tmp_path / name, None) for name in ("a.jsonl.gz", "A.CSV", "b.tsv.gz", "c.parquet", "d")] == [
        "jsonl", "csv", "tsv", "parquet", "jsonl",
    ]  # fmt: skip
    assert {format_of(tmp_path / "d", name) for name in CONVERT_FORMATS} == set(CONVERT_FORMATS)
    with pytest.raises(ConfigurationError, match="one file, there are 2 splits; name a folder"):
        write_rows({"train": rows_of(ROWS), "test": rows_of(ROWS)}, tmp_path / "rows.csv")


# ---------------------------------------------------------------------------------------------------- on the way


def test_lines_can_be_joined(tmp_path):
    rows = rows_of([{"text": "a\r\n\tb", "labels": ["x"]}, {"text": "c  d", "labels": ["y"]}])
    joined, changed = join_lines(rows)
    assert joined["text"][:] == ["a b", "c  d"]
    assert changed == 1
    write_rows({"train": joined}, tmp_path / "out", "annif")
    assert read(tmp_path / "out") == joined.to_list()


def test_labels_can_be_removed():
    rows = rows_of(ROWS).add_column("id", [1, 2, 3])
    found = remove_labels(rows, {"music", "sound (physics)", "none"})
    assert found["labels"][:] == [["history, general"], [], []]
    assert found["id"][:] == [1, 2, 3]
    assert found.features == rows.features


def test_single_labels_of_repeated_texts_are_not_taken_for_a_long_table(tmp_path):
    rows = [{"text": "a", "labels": ["x"]}, {"text": "a", "labels": ["y"]}]
    write_rows({"": rows_of(rows)}, tmp_path / "rows.csv")
    assert read(tmp_path / "rows.csv") == rows


def test_annif_gets_the_uris_of_concepts(tmp_path):
    ids = {"metals": "http://example.org/4", "planets": "7"}  # the second is no URI
    write_rows({"train": rows_of([{"text": "a", "labels": ["metals", "other"]}])}, tmp_path, "annif", vocabulary=ids)
    lines = (tmp_path / "vocab.tsv").read_text(encoding="utf-8").splitlines()
    assert lines == ["<http://example.org/4>\tmetals", "<urn:label:other>\tother", "<urn:label:planets>\tplanets"]
    assert (tmp_path / "train.tsv").read_text(encoding="utf-8") == "a\t<http://example.org/4> <urn:label:other>\n"

"""CSV as spreadsheets write it: lines that end as on old Macs, and a first line that says the delimiter."""

from __future__ import annotations

import gzip
import logging

import openpyxl
import pytest

from xlgen_hf import load_rows
from xlgen_hf.data.label_ids import read_label_ids
from xlgen_hf.data.rows import load_label_names
from xlgen_hf.data.vocabulary_files import read_vocabulary
from xlgen_hf.errors import DataError

ROWS = [{"text": 'one, "1"', "labels": ["a", "b"]}, {"text": "two\nlines", "labels": ["b"]}]
CONTENT = 'text,labels\r"one, ""1""",a; b\r"two\nlines",b\r'


def write(path, content, encoding="utf-8"):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return path


# ---------------------------------------------------------------------------------------------------- line ends


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_lines_that_end_in_carriage_returns(tmp_path, encoding):
    assert load_rows(write(tmp_path / "rows.csv", CONTENT, encoding)).to_list() == ROWS
    assert load_rows(write(tmp_path / "rows.csv", CONTENT[:-1], encoding)).to_list() == ROWS


def test_carriage_returns_in_other_tables(tmp_path):
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(CONTENT.encode()))
    assert load_rows(tmp_path / "rows.csv.gz").to_list() == ROWS
    path = write(tmp_path / "rows.tsv", 'text\tlabels\r\r"a\rb"\tx|y\r')
    assert load_rows(path).to_list() == [{"text": "a\rb", "labels": ["x", "y"]}]
    path = write(tmp_path / "rows.csv", "text,labels\rcafé,x\r", "cp1252")
    assert load_rows(path).to_list() == [{"text": "café", "labels": ["x"]}]


def test_rows_and_lines_are_counted_by_carriage_returns(tmp_path):
    with pytest.raises(DataError, match=r"row 3: The text is empty"):
        load_rows(write(tmp_path / "rows.csv", "text,labels\ra,x\rb,x\r,y\r"))
    with pytest.raises(DataError, match=r"Not valid CSV near line 3"):
        load_rows(write(tmp_path / "rows.csv", 'text,labels\ra,x\r"b" c,y\r'))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_other_line_ends_stay(tmp_path, end):
    path = write(tmp_path / "rows.csv", end.join(["text,labels", '"a\rb",x', "c,y", ""]))
    assert load_rows(path)["text"][:] == ["a\rb", "c"]
    path = write(tmp_path / "rows.csv", end.join(['"te\rxt",labels', "c,y", ""]))
    assert load_rows(path, text_column="te\rxt")["text"][:] == ["c"]


@pytest.mark.parametrize(("end", "other", "name"), [("\n", "\r", "carriage return"), ("\r", "\n", "line feed")])
def test_another_line_end_in_a_cell(tmp_path, end, other, name):
    path = write(tmp_path / "rows.csv", end.join(["text,labels", f"a{other}b,x", ""]))
    with pytest.raises(DataError, match=f"near line 2: there is a {name} where lines end otherwise. Put cells that"):
        load_rows(path)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_a_header_of_the_length_that_is_looked_at(tmp_path, end):
    for length in range((1 << 16) - 2, (1 << 16) + 2):
        header = "text,labels,".ljust(length, "x")
        path = write(tmp_path / "rows.csv", f"{header}{end}a,y,z{end}")
        if end == "\r" and length >= (1 << 16) - 1:  # what follows is not seen
            continue
        assert load_rows(path)["text"][:] == ["a"]


# ---------------------------------------------------------------------------------------------------- delimiters


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "sep=,", "sep=|", "sep=\t", "sep=\\t", '"Sep=\t"'])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
def test_the_first_line_says_the_delimiter(tmp_path, first, end, name):
    sign = first.strip('"')[4:].replace("\\t", "\t")
    lines = [first, sign.join(["id", "text", "labels"]), sign.join(["1", "one", "a"]), sign.join(["2", "two", "b"])]
    path = write(tmp_path / name, end.join(lines))
    assert load_rows(path, id_column="id").to_list() == [
        {"text": "one", "labels": ["a"], "id": "1"},
        {"text": "two", "labels": ["b"], "id": "2"},
    ]


def test_a_given_delimiter_holds(tmp_path):
    path = write(tmp_path / "rows.csv", "\ufeffsep=,\ntext;labels\none;a, b\n")
    assert load_rows(path, delimiter=";", label_separator=",")["labels"][:] == [["a", "b"]]
    path = write(tmp_path / "rows.csv", "sep=,\ntext;labels\none;a\n")
    with pytest.raises(DataError, match=r"no column 'text', only \['text;labels'\]"):
        load_rows(path)


def test_the_declared_delimiter_is_taken_where_another_would_be_recognised(tmp_path):
    path = write(tmp_path / "rows.csv", "sep=;\ntext;labels;a,b\none;x;1,2\n")
    assert load_rows(path, keep_columns=("a,b",))["a,b"][:] == ["1,2"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
def test_columns_without_a_name_are_not_read(tmp_path, caplog, name):
    """Excel writes such columns after the others, pandas the index before them."""
    caplog.set_level(logging.INFO, "xlgen_hf")
    sign = "," if name == "rows.csv" else "\t"
    path = write(tmp_path / name, "text,labels,,\nfoo,a,,\nbar,b,,\n".replace(",", sign))
    assert load_rows(path).to_list() == [{"text": "foo", "labels": ["a"]}, {"text": "bar", "labels": ["b"]}]
    assert "without a name" not in caplog.text
    write(path, ",text, ,labels\n0,foo,,a\n1,bar,,b\n".replace(",", sign))
    assert load_rows(path).to_list() == [{"text": "foo", "labels": ["a"]}, {"text": "bar", "labels": ["b"]}]
    assert f"{name}: columns without a name, which are not read, hold something: 1." in caplog.text
    write(path, "text,text,labels,,\nfoo,x,a,,\n".replace(",", sign))
    with pytest.raises(DataError, match=r"Duplicate column names in the header: \['text'\]\."):
        load_rows(path)


def test_rows_are_counted_after_the_header(tmp_path):
    with pytest.raises(DataError, match=r"row 2: The row has 1 cells, the header 2"):
        load_rows(write(tmp_path / "rows.csv", "sep=;\ntext;labels\na;x\nb\n"))
    with pytest.raises(DataError, match=r"Not valid CSV near line 4"):
        load_rows(write(tmp_path / "rows.csv", 'sep=;\ntext;labels\na;x\n"b" c;y\n'))


def test_a_table_of_such_a_line_alone_has_no_rows(tmp_path):
    with pytest.raises(DataError, match="There are no rows"):
        load_rows(write(tmp_path / "rows.csv", "sep=;\n"))
    assert load_rows(write(tmp_path / "rows.csv", "text\nsep=;\n"), require_labels=False)["text"][:] == ["sep=;"]


# ---------------------------------------------------------------------------------------------------- other tables


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("first", ["", "sep=;"])
def test_names_of_label_ids(tmp_path, first, end):
    lines = [first, "id;label", "1;Käse, alpin", '2;"Brot; süß"', ""]
    path = write(tmp_path / "names.csv", end.join(lines[not first :]), "cp1252")
    assert read_label_ids(path) == {"1": "Käse, alpin", "2": "Brot; süß"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("first", ["", "sep=;"])
def test_vocabularies(tmp_path, first, end):
    lines = [first, "id;label_de;alt_de", "1;Käse;Alpkäse|Bergkäse", ""]
    path = write(tmp_path / "concepts.csv", end.join(lines[not first :]))
    concept = read_vocabulary(path).concepts["1"]
    assert (concept.names["de"], concept.aliases["de"]) == ("Käse", ("Alpkäse", "Bergkäse"))


# ---------------------------------------------------------------------------------------------------- Excel


def test_escaped_characters_of_excel(tmp_path):
    book = openpyxl.Workbook()
    for row in (["text", "labels"], ["one_x000D_\ntwo", "a_x000D_\nb"], ["_x005F_x000D_ and _x0_", "b"]):
        book.active.append(row)
    book.save(tmp_path / "rows.xlsx")
    assert load_rows(tmp_path / "rows.xlsx").to_list() == [
        {"text": "one\r\ntwo", "labels": ["a", "b"]},
        {"text": "_x000D_ and _x0_", "labels": ["b"]},
    ]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
def test_encodings_of_what_an_editor_saves_are_recognised(tmp_path, encoding):
    lines = write(tmp_path / "lines.txt", "Vögel\nÄpfel\n", encoding)
    assert load_label_names(lines) == ["Vögel", "Äpfel"]
    assert load_rows(lines, require_labels=False)["text"][:] == ["Vögel", "Äpfel"]
    ids = write(tmp_path / "ids.jsonl", '{"text": "x", "labels": [1]}\n', "utf-8")
    assert load_rows(ids, label_names=lines)["labels"][:] == [["Äpfel"]]
    write(tmp_path / "raw" / "train_raw_texts.txt", "Vögel\n", encoding)
    write(tmp_path / "raw" / "train_labels.txt", "Öl_und_Essig Äpfel\n", encoding)
    assert load_rows(tmp_path / "raw").to_list() == [{"text": "Vögel", "labels": ["Öl und Essig", "Äpfel"]}]
    table = write(tmp_path / "header.tsv", "Überschrift\tlabels\nVögel\tÄpfel\n", encoding)
    assert load_rows(table, text_column="Überschrift")["text"][:] == ["Vögel"]
    write(tmp_path / "vocab.tsv", "<http://x/1>\tVögel\n", encoding)
    table = write(tmp_path / "annif.tsv", "Äpfel\t<http://x/1>\n", encoding)
    assert load_rows(table).to_list() == [{"text": "Äpfel", "labels": ["Vögel"]}]

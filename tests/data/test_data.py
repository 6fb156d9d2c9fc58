from __future__ import annotations

import gzip
import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from datasets.exceptions import DatasetNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.data import blocks
from xlgen_hf.data import rows as data
from xlgen_hf.data.rows import FEATURES, load_label_names, load_rows, source_splits
from xlgen_hf.errors import DataError
from xlgen_hf.files.json_lines import write_jsonl

ROWS = [
    {"text": "a history of\u2028church music", "labels": ["music", "history, general"]},
    {"text": 'ääni, "quoted"', "labels": ["sound (physics)", "<extra_id_0>"]},
]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def lines_of(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


# ---------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "ROWS.JSONL"])
def test_json_lines_come_back(tmp_path, name):
    assert write_jsonl(tmp_path / name, ROWS) == 2
    rows = load_rows(tmp_path / name)
    assert rows.to_list() == ROWS
    assert rows.features == FEATURES


def test_write_jsonl_is_deterministic(tmp_path):
    write_jsonl(tmp_path / "a.jsonl.gz", ROWS)
    write_jsonl(tmp_path / "b.jsonl.gz", ROWS)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_write_jsonl_leaves_the_old_file_when_rows_fail(tmp_path):
    path = write(tmp_path / "a.jsonl", "old")
    with pytest.raises(ValueError, match="Out of range float"):
        write_jsonl(path, [{"score": 0.5}, {"score": float("nan")}])
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    assert path.read_text() == "old"


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "text": st.text(alphabet=st.characters(exclude_categories=["Cs"])).filter(str.strip),
                "labels": st.lists(
                    st.text(alphabet=st.characters(exclude_categories=["Cs"])).filter(str.strip),
                    unique=True,
                    max_size=3,
                ),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_unicode_survives(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl.gz"
    write_jsonl(path, rows)
    assert load_rows(path).to_list() == rows


def test_json_list(tmp_path):
    path = write(tmp_path / "rows.json", json.dumps(ROWS, indent=2))
    assert load_rows(path).to_list() == ROWS


def test_byte_order_mark_blank_lines_and_windows_line_ends(tmp_path):
    content = b"\xef\xbb\xbf" + lines_of(ROWS).replace("\n", "\r\n\r\n").encode()
    assert load_rows(write(tmp_path / "rows.jsonl", content)).to_list() == ROWS


def test_more_rows_than_are_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 3)
    rows = [{"text": f"text {i}", "labels": [f"label {i}"]} for i in range(10)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert load_rows(tmp_path / "rows.jsonl").to_list() == rows


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t"), (".csv.gz", ",")])
def test_tables(tmp_path, suffix, delimiter):
    lines = [
        ["id", "text", "labels"],
        ["1", '"a ""b""\nc"', "music | history | "],
        ["2", "plain", '"[""a|b"", ""[c]""]"'],
        ["3", "none", ""],
    ]
    content = "\r\n".join(delimiter.join(cells) for cells in lines).encode()
    path = write(tmp_path / f"rows{suffix}", gzip.compress(content) if suffix.endswith("gz") else content)
    assert load_rows(path).to_list() == [
        {"text": 'a "b"\nc', "labels": ["music", "history"]},
        {"text": "plain", "labels": ["a|b", "[c]"]},
        {"text": "none", "labels": []},
    ]


def test_other_columns_and_separator(tmp_path):
    path = write(tmp_path / "rows.csv", "title,topics\nx,a; b|c\n")
    rows = load_rows(path, text_column="title", labels_column="topics", label_separator=";")
    assert rows.to_list() == [{"text": "x", "labels": ["a", "b|c"]}]


def test_long_cell(tmp_path):
    text = "word " * 100_000
    path = write(tmp_path / "rows.csv", f"text,labels\n{text},a\n")
    assert load_rows(path)["text"][:] == [text]


def test_parquet(tmp_path):
    Dataset.from_list(ROWS).add_column("extra", [1, 2]).to_parquet(tmp_path / "rows.parquet")
    assert load_rows(tmp_path / "rows.parquet").to_list() == ROWS


def test_annif_table(tmp_path):
    write(tmp_path / "vocab.tsv", "<http://x/1>\tmusic\n<http://x/2>\tart (general)\t2\n")
    path = write(tmp_path / "train.tsv", "a song\t<http://x/1> <http://x/2>\nnothing\t\n")
    expected = [{"text": "a song", "labels": ["music", "art (general)"]}, {"text": "nothing", "labels": []}]
    assert load_rows(path).to_list() == expected
    assert load_rows(tmp_path, split="train").to_list() == expected


# ---------------------------------------------------------------------------------------------------- folders


def test_folder_of_split_files(tmp_path):
    write_jsonl(tmp_path / "train.jsonl.gz", ROWS)
    write_jsonl(tmp_path / "dev.json", ROWS[:1])
    (tmp_path / "data").mkdir()
    for part, row in enumerate(ROWS):
        Dataset.from_list([row]).to_parquet(tmp_path / "data" / f"test-0000{part}-of-00002.parquet")
    assert load_rows(tmp_path, split="train").to_list() == ROWS
    assert load_rows(str(tmp_path), split="validation").to_list() == ROWS[:1]
    assert load_rows(tmp_path, split="test").to_list() == ROWS
    with pytest.raises(DataError, match=r"has the splits \['test', 'train', 'validation'\]; say which"):
        load_rows(tmp_path)
    with pytest.raises(DataError, match=r"no split 'unlabelled', only \['test', 'train', 'validation'\]"):
        load_rows(tmp_path, split="unlabelled")


def test_raw_text_folder(tmp_path):
    write(tmp_path / "train_raw_texts.txt", "First text\nSecond text\n")
    write(tmp_path / "train_texts.txt", "first text\nsecond text\n")
    write(tmp_path / "train_labels.txt", "fishing_area _odd\n\n")
    write(tmp_path / "test_texts.txt", "third text\n")
    write(tmp_path / "test_labels.txt", "a\n")
    assert load_rows(tmp_path, split="train").to_list() == [
        {"text": "First text", "labels": ["fishing area", "_odd"]},
        {"text": "Second text", "labels": []},
    ]
    assert load_rows(tmp_path, split="test").to_list() == [{"text": "third text", "labels": ["a"]}]


@pytest.mark.parametrize(
    ("separator", "expected"),
    [
        (None, ["health", "effects,", "soy", "bean,"]),
        (",", ["health effects", "soy bean"]),
        ("", ["health effects, soy bean,"]),
        (" ", ["health", "effects,", "soy", "bean,"]),
    ],
)
def test_raw_texts_with_a_separator(tmp_path, caplog, separator, expected):
    write(tmp_path / "train_raw_texts.txt", "one\ntwo\n")
    write(
        tmp_path / "train_labels.txt",
        "health effects, soy_bean,\n\n".replace("soy_", "soy " if separator != "" else "soy_"),
    )
    assert load_rows(tmp_path, label_separator=separator)["labels"][:] == [expected, []]
    suspected = "1 of 1 rows with labels have one that ends in ',', as if it stood between labels, e.g."
    assert (suspected in caplog.text) == (separator != ",")
    assert ("(--label-separator)" in caplog.text) == (separator != ",")


def test_raw_texts_without_labels(tmp_path):
    write(tmp_path / "test_raw_texts.txt", "one\n\n")
    rows = load_rows(tmp_path, require_labels=False)
    assert rows.to_list() == [{"text": "one", "labels": []}, {"text": "", "labels": []}]


def test_raw_texts_and_labels_of_different_length(tmp_path):
    write(tmp_path / "train_texts.txt", "a\nb\n")
    write(tmp_path / "train_labels.txt", "x\n")
    with pytest.raises(DataError, match=r"train_labels\.txt: The file ends before .*train_texts\.txt does"):
        load_rows(tmp_path)


def save_matrix(path, dense):
    from scipy.sparse import csr_matrix, save_npz

    save_npz(path, csr_matrix(dense))


@pytest.mark.parametrize(
    ("texts", "matrix", "names"),
    [("X.trn.txt", "Y.trn.npz", "output-items.txt"), ("train_raw_texts.txt", "Y.trn.npz", "label_map.txt")],
)
def test_matrix_folder(tmp_path, texts, matrix, names, caplog):
    write(tmp_path / texts, "one\ntwo\n")
    write(tmp_path / names, "music\nart\nmusic\n")
    save_matrix(tmp_path / matrix, [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    rows = load_rows(tmp_path)
    assert rows.to_list() == [
        {"text": "one", "labels": ["music (0)", "art"]},
        {"text": "two", "labels": ["music (2)"]},
    ]
    assert "names that several labels share: 1. The labels are kept apart by their ids" in caplog.text


def test_matrix_that_fits_no_names(tmp_path):
    write(tmp_path / "X.trn.txt", "one\n")
    write(tmp_path / "output-items.txt", "a\nb\n")
    save_matrix(tmp_path / "Y.trn.npz", [[1.0]])
    with pytest.raises(DataError, match=r"Y\.trn\.npz: It has 1 columns, .*output-items\.txt 2 names"):
        load_rows(tmp_path)
    write(tmp_path / "Y.trn.npz", "no matrix")
    with pytest.raises(DataError, match="not a sparse matrix"):
        load_rows(tmp_path)


def test_lf_folder(tmp_path):
    write(
        tmp_path / "lbl.json.gz", gzip.compress(lines_of([{"uid": "1", "title": "cats"}, {"title": "dogs"}]).encode())
    )
    row = {"uid": "x", "title": "A title", "content": "and content", "target_ind": [1, 0], "target_rel": [1.0, 1.0]}
    write(tmp_path / "trn.json.gz", gzip.compress(lines_of([row]).encode()))
    assert load_rows(tmp_path).to_list() == [{"text": "A title and content", "labels": ["dogs", "cats"]}]
    write(tmp_path / "trn.json.gz", gzip.compress(lines_of([row, {**row, "target_ind": [2]}]).encode()))
    with pytest.raises(DataError, match=r"trn\.json\.gz, row 2: 'target_ind' is \[2\]; line numbers of .* 0 to 1"):
        load_rows(tmp_path)


def test_null_is_no_text_in_an_lf_folder(tmp_path):
    write(tmp_path / "lbl.json", '{"title": null}\n{"title": "cats"}\n')
    write(tmp_path / "trn.json", '{"uid": null, "title": "A", "content": null, "target_ind": [1]}\n')
    assert load_rows(tmp_path, id_column="id").to_list() == [{"text": "A", "labels": ["cats"], "id": ""}]
    write(tmp_path / "trn.json", '{"title": "A", "target_ind": [1]}\n{"title": "B", "target_ind": [0]}\n')
    with pytest.raises(DataError, match=r"row 2: There is a label without visible text"):
        load_rows(tmp_path)
    write(tmp_path / "lbl.json", '{"title": "dogs"}\n{"title": {"en": "cats"}}\n')
    with pytest.raises(DataError, match=r"lbl\.json, row 2: 'title' is \{'en': 'cats'\}; a text is expected"):
        load_rows(tmp_path)


def test_folder_that_nothing_is_known_of(tmp_path):
    write(tmp_path / "notes.txt", "")
    with pytest.raises(DataError, match=r"known layouts; it holds \['notes.txt'\].* needs texts \(X\.trn\.txt\)"):
        load_rows(tmp_path)


def test_two_files_for_a_split(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "train.jsonl.gz", ROWS)
    with pytest.raises(
        DataError, match=r"Several files could be the split 'train': \['train.jsonl', 'train.jsonl.gz'\]"
    ):
        load_rows(tmp_path)


@pytest.mark.parametrize(
    ("common", "of_split", "several"),
    [
        ("", "{}_texts.txt {}_labels.txt", r"files .*\['val_labels.txt', 'dev_labels.txt'\]"),
        ("", "{}/1.txt {}/1.key", r"folders .*\['dev', 'val'\]"),
        ("output-items.txt", "Y.{}.npz X.{}.txt", r"files .*\['Y.val.npz', 'Y.dev.npz'\]"),
        ("Y.txt", "{}_X_Y.txt {}_X.txt", r"files .*\['val_X_Y.txt', 'dev_X_Y.txt'\]"),
        ("lbl.json", "{}.json", r"files .*\['val.json', 'dev.json'\]"),
    ],
)
def test_a_layout_with_two_files_for_a_split(tmp_path, common, of_split, several):
    """Rows of one of them would be left out."""
    for name in f"{common} {of_split.format('val', 'val')}".split():
        write(tmp_path / name, "a\n")
    assert source_splits(tmp_path) == ["validation"]
    for name in of_split.format("dev", "dev").split():
        write(tmp_path / name, "a\n")
    with pytest.raises(DataError, match=rf"Several {several}\. Keep one"):
        load_rows(tmp_path, split="val")


# ---------------------------------------------------------------------------------------------------- the Hub


def test_hub_data_set(monkeypatch):
    found = DatasetDict({"train": Dataset.from_list(ROWS), "valid": Dataset.from_list(ROWS[1:])})
    monkeypatch.setattr(data, "load_dataset", lambda name: found)
    assert load_rows("owner/name", split="train").to_list() == ROWS
    assert load_rows("owner/name", split="validation").to_list() == ROWS[1:]
    found["dev"] = Dataset.from_list(ROWS[:1])
    assert load_rows("owner/name", split="dev").to_list() == ROWS[:1]
    with pytest.raises(DataError, match=r"could be 'validation': \['dev', 'valid'\]\. Name one, split='valid'"):
        load_rows("owner/name", split="validation")
    with pytest.raises(DataError, match=r"owner/name: There is no column 'title', only \['labels', 'text'\]. Name"):
        load_rows("owner/name", split="train", text_column="title")


def test_hub_data_set_with_class_numbers(monkeypatch):
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["joy", "anger"]))})
    found = Dataset.from_list([{"text": "x", "labels": [1, 0]}], features=features)
    monkeypatch.setattr(data, "load_dataset", lambda name: DatasetDict({"train": found}))
    assert load_rows("owner/name").to_list() == [{"text": "x", "labels": ["anger", "joy"]}]


def test_hub_data_set_that_cannot_be_had(monkeypatch):
    def refuse(name):
        raise DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub or cannot be accessed.")

    monkeypatch.setattr(data, "load_dataset", refuse)
    with pytest.raises(
        DataError, match=r"owner/none: There is no such file or folder, and no data set .* doesn't exist"
    ):
        load_rows("owner/none")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rows.jsonl", "rows.jsonl: There is no such file"),
        ("./rows", "rows: There is no such file or folder"),
        ("a/b/c", "a/b/c: There is no such file or folder"),
        ("/no/where", "/no/where: There is no such file or folder"),
    ],
)
def test_missing_file_is_not_looked_for_on_the_hub(monkeypatch, name, message):
    monkeypatch.setattr(data, "load_dataset", lambda name: pytest.fail("asked the Hub"))
    with pytest.raises(DataError, match=f"^{message}"):
        load_rows(name)


# ---------------------------------------------------------------------------------------------------- bad rows

GOOD = '{"text": "x", "labels": ["a"]}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x", "labels": ["a"]', r"row 2: Not valid JSON \(Expecting ',' delimiter: column 30\)"),
        ('["x"]', r"row 2: The row is a list; an object is expected"),
        ("[" * 100_000, r"row 2: The JSON is nested too deeply"),
        ('{"text": "x"}', r"row 2: There is no column 'labels', only \['text'\]"),
        ('{"labels": ["a"]}', r"row 2: There is no column 'text', only \['labels'\]"),
        ('{"text": null, "labels": ["a"]}', r"row 2: The column 'text' is null"),
        ('{"text": 5, "labels": ["a"]}', r"row 2: The column 'text' is an int, 5; a string is expected"),
        ('{"text": " \\n", "labels": ["a"]}', r"row 2: The text is empty"),
        ('{"text": "\\ud800", "labels": ["a"]}', r"row 2: The text holds half of a surrogate pair"),
        ('{"text": "x", "labels": null}', r"row 2: The column 'labels' is null; a list of strings is expected, \[\]"),
        (
            '{"text": "x", "labels": "a, b"}',
            r"row 2: The column 'labels' is one string, in other rows it is .*: \['a, b'\]",
        ),
        ('{"text": "x", "labels": {"a": 1}}', r"row 2: The column 'labels' is a dict, {'a': 1}; a list"),
        (
            '{"text": "x", "labels": ["a", 7]}',
            r"row 2: The label 7 is an int; write it as a string, or, if it is an id",
        ),
        ('{"text": "x", "labels": ["a", null]}', r"row 2: The label None is a NoneType"),
        ('{"text": "x", "labels": [["a"]]}', r"row 2: The label \['a'\] is a list"),
        ('{"text": "x", "labels": ["a", " "]}', r"row 2: There is a label without visible text: ' '"),
        ('{"text": "x", "labels": ["\\udc00"]}', r"row 2: The label holds half of a surrogate pair, .*: '\\udc00'"),
    ],
)
def test_bad_json_row(tmp_path, line, message):
    path = write(tmp_path / "rows.jsonl", GOOD + line + "\n")
    with pytest.raises(DataError, match=message) as caught:
        load_rows(path)
    assert (caught.value.file, caught.value.row) == (str(path), 2)
    assert str(caught.value).startswith(f"{path}, row 2: ")
    assert len(str(caught.value)) < 600


def test_file_that_is_no_utf8(tmp_path):
    path = write(tmp_path / "rows.jsonl", GOOD.encode() + b'{"text": "caf\xe9", "labels": []}\n')
    with pytest.raises(
        DataError, match=rf"row 2: The file is not UTF-8: byte {len(GOOD) + 13} is 0xe9; save it as UTF-8, or, if it"
    ):
        load_rows(path)


def test_file_that_is_no_gzip(tmp_path):
    with pytest.raises(DataError, match=r"not a complete gzip file"):
        load_rows(write(tmp_path / "rows.jsonl.gz", GOOD))
    with pytest.raises(DataError, match=r"not a complete gzip file"):
        load_rows(write(tmp_path / "cut.jsonl.gz", gzip.compress(GOOD.encode())[:-9]))


def test_file_that_is_no_parquet(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read as Parquet"):
        load_rows(write(tmp_path / "rows.parquet", GOOD))


def test_parquet_without_labels_or_with_text_for_labels(tmp_path):
    pq.write_table(pa.table({"text": ["x"], "tags": [5]}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"no column 'labels', only \['tags', 'text'\]"):
        load_rows(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"row 1: The label 5 is an int; write it as a string"):
        load_rows(tmp_path / "rows.parquet", labels_column="tags")


def test_unknown_kind_of_file(tmp_path):
    with pytest.raises(DataError, match=r"Files of this name cannot be read; names end in \.jsonl"):
        load_rows(write(tmp_path / "rows.ods", ""))


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_file_without_rows(tmp_path, content):
    with pytest.raises(DataError, match="There are no rows"):
        load_rows(write(tmp_path / "rows.jsonl", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nx,a\n", r"rows\.csv: There is no column 'labels', only \['label', 'text'\]"),
        ("text,text,labels\nx,y,a\n", r"Duplicate column names in the header: \['text'\]"),
        ("text,labels\nx,a\ny, z,b\n", r"row 2: The row has 3 cells, the header 2. Put cells that hold ','"),
        ("text;labels\nx;[a, b]\n", r"row 1: The labels '\[a, b\]' look like a list but cannot be read as one"),
        ('text,labels\nx,"[1]"\n', r"row 1: The label 1 is an int"),
        ('text,labels\n"x" y,a\n', r"Not valid CSV near line 2"),
        ("text,labels\n,a\n", r"row 1: The text is empty"),
    ],
)
def test_bad_table(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        load_rows(write(tmp_path / "rows.csv", content))


def test_bad_annif_table(tmp_path):
    path = write(tmp_path / "rows.tsv", "a\t<http://x/1>\nb\t<http://x/2>\n")
    with pytest.raises(DataError, match=r"The labels are URIs"):
        load_rows(path)
    write(tmp_path / "subjects.tsv", "<http://x/1>\tmusic\n")
    with pytest.raises(DataError, match=r"row 2: The vocabulary does not name <http://x/2>"):
        load_rows(path)


# ---------------------------------------------------------------------------------------------------- allowed rows


def test_texts_alone_for_prediction(tmp_path):
    path = write(tmp_path / "rows.jsonl", '{"text": "x"}\n{"text": ""}\n{"text": "y", "labels": null}\n')
    rows = load_rows(path, require_labels=False)
    assert rows.to_list() == [{"text": text, "labels": []} for text in ("x", "", "y")]
    with pytest.raises(DataError, match="row 2: The text is empty"):
        load_rows(path, require_labels=False, allow_empty_text=False)


def test_what_is_let_pass_is_reported(tmp_path, caplog):
    path = write(
        tmp_path / "rows.jsonl", '{"text": "", "labels": []}\n{"text": "x", "labels": ["b", "a", "b", "b"]}\n' + GOOD
    )
    with caplog.at_level(logging.WARNING, "xlgen_hf"):
        rows = load_rows(path, allow_empty_text=True)
    assert rows["labels"][:] == [[], ["b", "a"], ["a"]]
    assert f"{path}: rows without labels: 1 of 3, e.g. row 1. Evaluation counts them; training leaves" in caplog.text
    assert "empty texts: 1 of 3, e.g. row 1." in caplog.text
    assert "labels that a row repeats, which count once: 2" in caplog.text


# ---------------------------------------------------------------------------------------------------- vocabularies


def test_label_names(tmp_path, caplog):
    content = "\ufeffprinting (output)\r\n\r\nKu Klux Klan\r\nääni\r\nKu Klux Klan\r\n"
    path = write(tmp_path / "labels.txt.gz", gzip.compress(content.encode()))
    assert load_label_names(path) == ["printing (output)", "Ku Klux Klan", "ääni"]
    assert "repeated names, which count once: 1" in caplog.text


def test_bad_label_names(tmp_path):
    with pytest.raises(DataError, match="no label name in the file"):
        load_label_names(write(tmp_path / "labels.txt", "\n \n"))
    with pytest.raises(DataError, match="row 2: The file is not UTF-8"):
        load_label_names(write(tmp_path / "labels.txt", b"a\n\x81\n"))
    with pytest.raises(DataError, match="There is no such file"):
        load_label_names(tmp_path / "none.txt")

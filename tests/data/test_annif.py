from __future__ import annotations

import pytest

from xlgen_hf import load_rows
from xlgen_hf.data.rows import source_splits
from xlgen_hf.errors import DataError


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_two_concepts_of_one_name_stay_two(tmp_path, caplog):
    write(
        tmp_path / "vocab.tsv",
        "<http://ex.org/c1>\tmercury\n<http://ex.org/c2>\tmercury\n<http://ex.org/c3>\tplanets\n",
    )
    path = write(tmp_path / "train.tsv", "Orbits\t<http://ex.org/c1> <http://ex.org/c3>\nMetals\t<http://ex.org/c2>\n")
    assert load_rows(path)["labels"][:] == [["mercury (c1)", "planets"], ["mercury (c2)"]]
    assert "names that several labels share: 1. The labels are kept apart by their ids" in caplog.text


def test_ids_that_end_alike_are_spelled_out(tmp_path):
    names = "<http://a.org/1>\tmercury\n<http://b.org/1>\tmercury\n"
    write(tmp_path / "vocab.tsv", names)
    path = write(tmp_path / "train.tsv", "Orbits\t<http://a.org/1>\n")
    assert load_rows(path)["labels"][:] == [["mercury (http://a.org/1)"]]
    write(tmp_path / "vocab.tsv", f"{names}<x>\tmercury (http://a.org/1)\n<y>\tmercury (1)\n")
    with pytest.raises(DataError, match=r"vocab\.tsv: Several labels share the name 'mercury'"):
        load_rows(path)


def test_a_vocabulary_of_any_place(tmp_path):
    path = write(tmp_path / "train.tsv", "no subjects\t\nOrbits\thttp://ex.org/c1\n")
    names = write(tmp_path / "names" / "subjects.tsv", '<http://ex.org/c1>\t"mercury\n')
    assert load_rows(path, label_names=names)["labels"][:] == [[], ['"mercury']]
    with pytest.raises(DataError, match=r"train\.tsv: The labels are URIs.*--label-names"):
        load_rows(path)


def test_a_table_with_a_header_is_not_annifs(tmp_path):
    path = write(tmp_path / "rows.tsv", "text\tlabels\nOrbits\thttp://ex.org/c1\n")
    assert load_rows(path)["labels"][:] == [["http://ex.org/c1"]]


def test_a_table_whose_later_cells_are_no_uris_is_not_annifs(tmp_path):
    path = write(tmp_path / "rows.tsv", "text\t\n" + "a text\t\n" * 30 + "a text\tcats\n")
    assert load_rows(path, require_labels=False)["text"][:] == ["a text"] * 31


def test_documents_with_key_files(tmp_path):
    write(tmp_path / "doc2.txt", "Rivers\nand lakes\n")
    write(tmp_path / "doc2.key", "rivers\n\nlakes\n")
    write(tmp_path / "doc1.txt", "Nothing")
    assert load_rows(tmp_path, id_column="document").to_list() == [
        {"text": "Nothing", "labels": [], "document": "doc1"},
        {"text": "Rivers\nand lakes\n", "labels": ["rivers", "lakes"], "document": "doc2"},
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_of_documents(tmp_path, encoding):
    (tmp_path / "1.txt").write_bytes("Hello dear world\r\nand all".encode(encoding))
    (tmp_path / "1.key").write_bytes("greetings\n".encode(encoding))
    (tmp_path / "2.txt").write_bytes(b"a zero \0 in a text\n")
    (tmp_path / "3.txt").write_bytes(b"Hello \xff")
    with pytest.raises(DataError, match=r"3\.txt, row 1: The file is not UTF-8: byte 6 is 0xff"):
        load_rows(tmp_path)
    (tmp_path / "3.txt").unlink()
    assert load_rows(tmp_path).to_list() == [
        {"text": "Hello dear world\r\nand all", "labels": ["greetings"]},
        {"text": "a zero \0 in a text\n", "labels": []},
    ]


def test_documents_with_tables_of_subjects(tmp_path):
    write(tmp_path / "train" / "a.txt", "Orbits")
    write(tmp_path / "train" / "a.tsv", "<http://ex.org/c1>\tmercury\n<http://ex.org/c3>\tplanets\n")
    write(tmp_path / "validate" / "b.txt", "Metals")
    write(tmp_path / "validate" / "b.tsv", "<http://ex.org/c2>\tmercury\n")
    assert load_rows(tmp_path, split="train")["labels"][:] == [["mercury", "planets"]]
    write(
        tmp_path / "vocab.tsv",
        "<http://ex.org/c1>\tmercury\n<http://ex.org/c2>\tmercury\n<http://ex.org/c3>\tplanets\n",
    )
    assert load_rows(tmp_path, split="train")["labels"][:] == [["mercury (c1)", "planets"]]
    assert load_rows(tmp_path, split="validation")["labels"][:] == [["mercury (c2)"]]
    write(tmp_path / "train" / "a.tsv", "<http://ex.org/c9>\tnew\n")
    with pytest.raises(DataError, match=r"a\.tsv: The vocabulary does not name <http://ex.org/c9>"):
        load_rows(tmp_path, split="train")


def test_homonyms_of_subject_files_without_a_vocabulary(tmp_path):
    for number in (1, 2):
        write(tmp_path / f"{number}.txt", f"text {number}")
        write(tmp_path / f"{number}.tsv", f"<http://ex.org/c{number}>\tmercury\n")
    assert load_rows(tmp_path)["labels"][:] == [["mercury (c1)"], ["mercury (c2)"]]


def test_layouts_have_no_columns_to_keep(tmp_path):
    write(tmp_path / "a.txt", "Orbits")
    write(tmp_path / "a.key", "mercury\n")
    with pytest.raises(DataError, match=r"There is no column 'year', only \['id', 'labels', 'text'\]"):
        load_rows(tmp_path, keep_columns="year")


@pytest.mark.parametrize("split", [None, "train", "validation", "test"])
def test_a_folder_of_documents_is_read_whole_as_a_file_is(tmp_path, split):
    write(tmp_path / "a.txt", "Orbits")
    write(tmp_path / "a.key", "mercury\n")
    assert load_rows(tmp_path, split=split).to_list() == [{"text": "Orbits", "labels": ["mercury"]}]
    assert source_splits(tmp_path) == []


def test_documents_without_subjects_are_there_to_be_predicted(tmp_path):
    write(tmp_path / "b.txt", "Metals")
    write(tmp_path / "a.txt", "Orbits")
    rows = load_rows(tmp_path, split="test", id_column="id", require_labels=False)
    assert rows.to_list() == [
        {"text": "Orbits", "labels": [], "id": "a"},
        {"text": "Metals", "labels": [], "id": "b"},
    ]
    with pytest.raises(DataError, match=r"none of the known layouts; it holds \['a\.txt', 'b\.txt'\]"):
        load_rows(tmp_path)
    write(tmp_path / "test" / "c.txt", "Comets")
    assert load_rows(tmp_path, split="test", require_labels=False)["text"][:] == ["Comets"]

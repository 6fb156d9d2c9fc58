"""Tokenizers that are read from their file alone: they read texts as those of transformers do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from xlgen_hf.encoders.file_tokenizer import FileTokenizer, same_tokens
from xlgen_hf.encoders.loaded import LoadedTokenizer
from xlgen_hf.errors import ModelFolderError

TEXTS = ["a history of organ music", "", "  Two\n lines, and \u4e2d \U0001f600", "music " * 40]


@pytest.mark.parametrize("family", ["bert", "bart", "t5"])
def test_texts_are_read_alike(checkpoints, tmp_path, family):
    tokenizer = AutoTokenizer.from_pretrained(checkpoints[family])
    tokenizer(TEXTS, truncation=True, padding=True, max_length=4)  # settings that its file then has
    tokenizer.save_pretrained(tmp_path)
    other = LoadedTokenizer(tokenizer)
    one = FileTokenizer.read(tmp_path, other.padding_id)
    assert one.num_special == other.num_special and same_tokens(one, other)
    assert one.ids(TEXTS) == other.ids(TEXTS) and one.spans(TEXTS) == other.spans(TEXTS)
    for size in (3, 7, 100):
        assert [one.first_ids(text, size) for text in TEXTS] == [other.first_ids(text, size) for text in TEXTS]
    assert one.ids(TEXTS[-1:]) == other.ids(TEXTS[-1:])  # truncating has changed nothing


@pytest.mark.parametrize("side", ["right", "left"])
def test_cutting_a_text_is_no_setting_of_the_tokenizer(checkpoints, side):
    """The fault: another thread that read whole texts meanwhile took the setting back, and texts were read whole."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["bert"], truncation_side=side)
    expected = tokenizer(TEXTS[-1], truncation=True, max_length=7)["input_ids"]
    tokenizer(TEXTS, truncation=True, max_length=4)  # of somebody else
    assert LoadedTokenizer(tokenizer).first_ids(TEXTS[-1], 7) == expected
    assert tokenizer.backend_tokenizer.truncation is None


def test_another_tokenizer_is_told_from_it(checkpoints):
    one = FileTokenizer.read(Path(checkpoints["bert"]), 0)
    assert not same_tokens(one, LoadedTokenizer(AutoTokenizer.from_pretrained(checkpoints["t5"])))


@pytest.mark.parametrize(
    ("content", "what"), [("{}", "makes no tokenizer"), ("[", "is not JSON"), (None, "is missing")]
)
def test_a_damaged_file_is_named(checkpoints, tmp_path, content, what):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "copy")
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelFolderError, match=rf"tokenizer\.json.*{what}"):
        FileTokenizer.read(folder, 0)

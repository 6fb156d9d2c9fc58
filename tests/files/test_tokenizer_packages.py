"""Tokenizers whose files only SentencePiece or tiktoken can read: an error names the extra that brings them."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.errors import MissingExtraError, ModelFolderError
from xlgen_hf.files.tokenizer_checks import try_tokenizer

# The first bytes of a file of SentencePiece (a field with a piece), and the first line of one of tiktoken.
FILES = {"sentencepiece": ("spiece.model", b"\n\x0e\n\x05<pad>\x15\x00\x00\x00\x00\x18\x03"),
         "tiktoken": ("tokenizer.model", b"IQ== 0\nIg== 1\n")}  # fmt: skip


def _write(folder, package):
    name, content = FILES[package]
    (folder / name).write_bytes(content)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", "vocab_size": 8}))


@pytest.mark.parametrize("package", FILES)
def test_a_missing_package_is_named_with_its_extra(tmp_path, package):
    if any(map(find_spec, FILES)):  # transformers makes do with either, or gives other errors
        pytest.skip("one of the packages is installed")
    _write(tmp_path, package)
    for load in (try_tokenizer, lambda folder: load_encoder(str(folder))):
        with pytest.raises(MissingExtraError, match=rf"`{package}` is not installed\. .*xlgen-hf\[{package}\]"):
            load(tmp_path)


def test_what_is_damaged_needs_no_package(tmp_path):
    """A `tokenizer.json` is read without either."""
    _write(tmp_path, "sentencepiece")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFolderError, match="makes no tokenizer"):
        try_tokenizer(tmp_path)

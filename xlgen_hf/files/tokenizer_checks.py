"""Checks of tokenizers that come from elsewhere."""

from __future__ import annotations

from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingExtraError, ModelFolderError
from .schema import read_object, shown

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

__all__ = ["SHORTEST_TEXT", "TOKENIZER_CONFIG_FILE", "TOKENIZER_FILE", "TRIED_TEXTS", "try_tokenizer"]

SHORTEST_TEXT = 4  # tokens that a model reads at least
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
TOKENIZER_FILE = "tokenizer.json"
_TOKENIZER_FILES = (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE)
_SUBWORD_MODELS = {".model", ".spm", ".tiktoken"}  # how files of SentencePiece and tiktoken end
_FIRST_FIELD = b"\n"  # with which the protocol buffers of SentencePiece begin; tiktoken has lines of text
_SPECIAL_IDS = ("pad_token_id", "unk_token_id", "eos_token_id", "sep_token_id", "bos_token_id", "cls_token_id")
TRIED_TEXTS = ("a", "", "Ab, c-1 \u00e4\u4e2d\U0001f600 " * 8)  # what tokenizers know, and what none may know
_TRIED_LENGTH = 16


def try_tokenizer(folder: Path, config: PreTrainedConfig | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of any checkpoint, which has encoded a few texts.

    Args:
        folder: the folder of the checkpoint.
        config: its config, where that is known; read from the folder if None.

    Raises:
        MissingExtraError: if its files need a package that is not installed.
        ModelFolderError: if its files make no tokenizer, or one that cannot encode.
    """
    from transformers import AutoTokenizer  # not above: graphs may do without

    found = [name for name in _TOKENIZER_FILES if (folder / name).exists()]  # some tokenizers have other files alone
    for name in found:
        read_object(folder / name)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, config=config, trust_remote_code=False
        )
        for text in TRIED_TEXTS:
            tokenizer(text, truncation=True, max_length=_TRIED_LENGTH, verbose=False)
        ids = {name: getattr(tokenizer, name) for name in _SPECIAL_IDS}
        longest = tokenizer.model_max_length
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as err:  # of a damaged file the Rust library of tokenizers raises `Exception`, or it panics
        if __package__ == "xlgen_hf.files":
            for package, extra in _needed_packages(folder):
                if not any(distributions(name=package)):
                    raise MissingExtraError(package, extra) from err
        raise ModelFolderError(
            f"{folder}: {' or '.join(found) or 'what it holds'} makes no tokenizer: {err or type(err).__name__}"
        ) from err
    odd = next((name for name, token in ids.items() if token is not None and type(token) is not int), None)
    settings = folder / TOKENIZER_CONFIG_FILE
    if odd is not None:
        raise ModelFolderError(f"{settings}: {odd} is {shown(ids[odd])}; it must be an integer.")
    if type(longest) not in (int, float) or not longest >= SHORTEST_TEXT:
        raise ModelFolderError(
            f"{settings}: model_max_length is {shown(longest)}; it must be a number >= {SHORTEST_TEXT}."
        )
    return tokenizer


def _needed_packages(folder: Path) -> list[tuple[str, str]]:
    """Packages that read the files of a tokenizer, and the extras that bring them; none for a `tokenizer.json`."""
    if (folder / _TOKENIZER_FILES[0]).is_file():
        return []
    needed: list[tuple[str, str]] = []
    for path in sorted(path for path in folder.glob("*") if path.suffix in _SUBWORD_MODELS):
        with path.open("rb") as file:
            is_sentencepiece = file.read(1) == _FIRST_FIELD
        extra = "sentencepiece" if is_sentencepiece else "tiktoken"
        needed += [(extra, extra)]
        needed += [("protobuf", extra)] if is_sentencepiece else []
    return needed

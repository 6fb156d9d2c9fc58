"""A tokenizer read from its `tokenizer.json` alone, without transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelFolderError
from ..files.schema import read_object
from ..files.tokenizer_checks import TOKENIZER_FILE, TRIED_TEXTS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from .text_encoder import TextTokenizer

__all__ = ["FileTokenizer", "same_tokens"]

_TRIED_SIZE = 16


@dataclass(frozen=True)
class FileTokenizer:
    """A tokenizer of the library `tokenizers`; see [`TextTokenizer`].

    Its settings are never changed, so that threads may share it.

    Args:
        tokenizer: the tokenizer, which neither truncates nor pads.
        padding_id: what fills the rows of a batch.
    """

    tokenizer: Tokenizer
    padding_id: int

    @classmethod
    def read(cls, folder: Path, padding_id: int) -> FileTokenizer:
        """Read the tokenizer of a folder.

        Args:
            folder: the folder.
            padding_id: what fills the rows of a batch.

        Raises:
            ModelFolderError: if the file is missing or damaged, or makes no tokenizer that encodes.
        """
        from tokenizers import Tokenizer

        path = folder / TOKENIZER_FILE
        read_object(path)
        try:
            tokenizer = Tokenizer.from_file(str(path))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            made = cls(tokenizer, padding_id)
            made.ids(list(TRIED_TEXTS))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as err:  # of a damaged file the Rust library raises `Exception`, or it panics
            raise ModelFolderError(f"{path} makes no tokenizer: {err or type(err).__name__}") from err
        return made

    @property
    def num_special(self) -> int:
        """See [`TextTokenizer`]."""
        return self.tokenizer.num_special_tokens_to_add(False)

    def ids(self, texts: list[str]) -> list[list[int]]:
        """See [`TextTokenizer`]."""
        return [one.ids for one in self.tokenizer.encode_batch(texts)]

    def first_ids(self, text: str, size: int) -> list[int]:
        """See [`TextTokenizer`]."""
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        encoded.truncate(size - self.num_special)
        return self.tokenizer.post_process(encoded).ids

    def spans(self, texts: list[str]) -> list[list[tuple[int, int]]] | None:
        """See [`TextTokenizer`]."""
        return [one.offsets for one in self.tokenizer.encode_batch(texts)]


def same_tokens(one: TextTokenizer, other: TextTokenizer) -> bool:
    """Whether two tokenizers read the texts that they are tried with alike.

    Args:
        one, other: the tokenizers.
    """
    texts = [*TRIED_TEXTS, " Two  lines\n\tof text, <s> </s> [SEP] <pad> and \u2581\u0130\u00e9\u0301 " * 4]
    return (
        one.num_special == other.num_special
        and one.ids(texts) == other.ids(texts)
        and one.spans(texts) == other.spans(texts)
        and all(one.first_ids(text, _TRIED_SIZE) == other.first_ids(text, _TRIED_SIZE) for text in texts)
    )

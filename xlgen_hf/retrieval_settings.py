"""How a retriever turns similarities into scores, and the check of the file that holds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ._io import read_json
from .errors import ConfigurationError, ModelFolderError

__all__ = ["FORMAT_VERSION", "RetrievalSettings", "read_settings"]

FORMAT_VERSION = 2
_LONGEST = 100_000
_LEAST = {"temperature": 1e-6, "name_power": 1e-6}  # the weights may be 0


@dataclass(frozen=True)
class RetrievalSettings:
    """How similarities become the score of a label.

    A score is the weighted mean of four parts, each in [0, 1]:

    * neighbours (weight 1): the weight of the label among the `neighbors` most similar training texts, softmax of
      cosine / `temperature`, summed over those that have the label;
    * names (`name_weight`): the cosine of text and label name to the power of `name_power`;
    * lexical neighbours (`lexical_neighbor_weight`) and lexical names (`lexical_name_weight`): the same by the
      characters that texts and names are spelled with, see [`LexicalIndex`]; left out where that is not indexed.

    Attributes:
        neighbors: training texts that count, at least 1.
        temperature: of the softmax, above 0.
        name_power: above 0; the greater, the more only close names count.
        name_weight: at least 0.
        lexical_neighbor_weight: at least 0.
        lexical_name_weight: at least 0.
        max_length: tokens of a text that the encoder reads; the lexical parts read all of it.
    """

    neighbors: int = 30
    temperature: float = 0.1
    name_power: float = 4.0
    name_weight: float = 2.0
    lexical_neighbor_weight: float = 0.5
    lexical_name_weight: float = 1.0
    max_length: int = 256

    def __post_init__(self) -> None:
        """Check the values."""
        whole = {"neighbors": self.neighbors, "max_length": self.max_length}
        for name, value in whole.items():
            if type(value) is not int or not 1 <= value <= _LONGEST:
                raise ConfigurationError(f"{name}={value!r}; a whole number from 1 to {_LONGEST} is needed.")
        for name in (
            "temperature", "name_power", "name_weight", "lexical_neighbor_weight", "lexical_name_weight",
        ):  # fmt: skip
            number, least = getattr(self, name), _LEAST.get(name, 0)
            if type(number) not in (int, float) or not least <= number <= 1e6:
                raise ConfigurationError(f"{name}={number!r}; a number from {least} to 1000000 is needed.")


def read_settings(path: Path) -> RetrievalSettings:
    """Read and check a retriever's settings.

    Raises:
        ModelFolderError: if the file is missing, of another version, or holds other fields or values.
    """
    content = read_json(path)
    known = set(RetrievalSettings.__dataclass_fields__)
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if not isinstance(content, dict) or version != FORMAT_VERSION or set(content) != known:
        raise ModelFolderError(
            f"{path} has format_version {version}; format_version {FORMAT_VERSION} and the fields {sorted(known)} are "
            "needed. `xlgen index` makes a retriever anew."
        )
    try:
        return RetrievalSettings(**content)
    except ConfigurationError as err:
        raise ModelFolderError(f"{path}: {err}") from err

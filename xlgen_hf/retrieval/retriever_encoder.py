"""The encoder of a retriever: one of transformers, or a graph, which starts in a third of the time without that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..encoders.exported import ExportedEncoder, load_exported_encoder
from ..encoders.recipe import EmbeddingRecipe
from ..files.model_folder import is_exported

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..encoders.exported import ExportedPair

__all__ = ["RetrieverEncoder", "encoder_of_checkpoint", "load_retriever_encoder", "width_of"]

RetrieverEncoder: TypeAlias = "tuple[PreTrainedModel, PreTrainedTokenizerBase] | ExportedPair"
"""An encoder and its tokenizer."""

# What is of transformers is imported in functions alone.


def encoder_of_checkpoint(name: str, recipe: EmbeddingRecipe) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder of a checkpoint; see `load_encoder`."""
    from ..encoders.loaded import load_encoder

    return load_encoder(name, recipe)


def load_retriever_encoder(folder: Path, recipe: EmbeddingRecipe) -> RetrieverEncoder:
    """The encoder that a retriever's folder holds.

    Args:
        folder: the folder.
        recipe: how its embeddings are made.

    Raises:
        MissingExtraError: if it is exported, and onnxruntime is not installed.
        ModelFolderError: if a file is missing or damaged, or they do not fit each other.
    """
    if is_exported(folder):
        return load_exported_encoder(folder)
    from ..files.model_checks import check_encoder

    check_encoder(folder)
    return encoder_of_checkpoint(str(folder), recipe)


def width_of(encoder: PreTrainedModel | ExportedEncoder) -> int:
    """Size `H` of an encoder's hidden states."""
    if isinstance(encoder, ExportedEncoder):
        return encoder.width
    from ..configuration_xlgen import hidden_size

    return hidden_size(encoder.config)

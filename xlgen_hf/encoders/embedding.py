"""Document embeddings: an encoder's last hidden states, pooled, cached on disk in resumable shards."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict

import numpy as np
from tqdm import tqdm

from ..errors import CheckpointError, ConfigurationError, DataError, ModelFolderError
from ..files.leftovers import ABOUT_EMBEDDINGS_FILE, EMBEDDINGS_PREFIX
from ..files.schema import Fields, integer, string
from ..files.tensor_schema import Tensors, tensor
from ..settings import BATCH_SIZE
from .cut_texts import report_cut_texts
from .exported import ExportedEncoder, GraphSource
from .recipe import EmbeddingRecipe, Side, read_recipe
from .text_encoder import Encode, TextEncoder
from .token_vectors import TokenVectors

if TYPE_CHECKING:  # an exported encoder needs neither torch nor transformers, which take most of the time of a start
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .exported import ExportedPair

__all__ = ["SHARD_TEXTS", "Encoder", "embed_share", "embed_texts", "recipe_of"]

logger = logging.getLogger(__name__)

Encoder: TypeAlias = "str | tuple[PreTrainedModel, PreTrainedTokenizerBase] | ExportedPair"
"""A checkpoint name, or a loaded model with its tokenizer."""

SHARD_TEXTS = 2048
"""Texts whose embeddings are written at once: about 10 s of MiniLM on one core."""

_CACHE_VERSION = 2


class _About(TypedDict):
    encoder: str
    texts: int


_ABOUT = Fields[_About]({"encoder": string(), "texts": integer(minimum=0)}, format_version=_CACHE_VERSION)
_SHARD = Tensors({"embeddings": tensor(np.float32, "N", "H")})
_TOKENIZE_AT_ONCE = 2_000  # a tokenizer takes 100 KB for each text of 400 tokens


def recipe_of(encoder: Encoder, query_prompt: str | None = None, passage_prompt: str | None = None) -> EmbeddingRecipe:
    """How an encoder's embeddings are made: as its checkpoint says, else the mean of all tokens without prompts.

    Args:
        encoder: a checkpoint name, or a loaded model, of which nothing more is known.
        query_prompt, passage_prompt: prompts instead of the checkpoint's own; those if None.

    Raises:
        CheckpointError: if there is no such checkpoint, or its embeddings need steps that this library does not know.
    """
    own = None
    if isinstance(encoder, str):
        from .checkpoints import fetch_checkpoint  # which imports the Hub's client

        own = read_recipe(fetch_checkpoint(encoder))
    return (own or EmbeddingRecipe()).with_prompts(query_prompt, passage_prompt)


def embed_texts(
    texts: Sequence[str],
    encoder: Encoder,
    *,
    recipe: EmbeddingRecipe | None = None,
    side: Side = "passage",
    max_length: int = 256,
    batch_size: int = BATCH_SIZE,
    normalize: bool = True,
    cache_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    token_vectors: TokenVectors | None = None,
    reported: set[int] | None = None,
) -> np.ndarray:
    """Embed texts by an encoder's last hidden states over each text's own tokens, pooled as its checkpoint says.

    Args:
        texts: `N` texts. One without any token (possible only where the tokenizer adds no special tokens) gets a row
            of zeros, and a warning.
        encoder: any encoder checkpoint, or any seq2seq checkpoint, of which just the encoder is used: a folder, a name
            that an installed package carries, a Hub id; or a loaded model with its tokenizer.
        recipe: how embeddings are made; see [`recipe_of`] if None.
        side: whose prompt is put before the texts: that of queries, or that of passages.
        max_length: tokens of a text that are read, prompt and special tokens included; capped by what the model can
            take. Texts that lose tokens are counted in the log.
        batch_size: texts that are encoded at once; texts of like length go together.
        normalize: scale each row to length 1.
        cache_dir: keep embeddings in a folder below, named by a hash of the token ids and the weights. They are
            written as they come, so that an interrupted run continues where it stopped.
        device: where to compute; by default the device of a loaded model, else a GPU where there is one. A loaded
            model is moved there.
        progress: show a progress bar on stderr where that is a terminal.
        token_vectors: is filled with the hidden states of the tokens that are computed, none out of the cache.
        reported: lengths at which cut texts were counted in the log before; they are not counted again. Texts that are
            embedded batch by batch share one, which is filled.

    Returns:
        Embeddings in the order of `texts`, `(N, H)`, float32.

    Raises:
        CheckpointError: if the encoder cannot be loaded or computes values that are not finite.
        ConfigurationError: if `max_length` or `batch_size` leave nothing to compute, or there is no such device.
        DataError: if a text is not a string, or not valid Unicode.
    """
    _check_arguments(texts, max_length, batch_size)
    source = _opened(encoder, recipe)
    prompt = source.recipe.prompt(side)
    tokens = _tokenize([prompt + text for text in texts] if prompt else texts, source, max_length, reported)
    if token_vectors is not None:
        token_vectors.locate(texts, source.tokenizer, prompt, tokens.lengths)
    run = _Run(source, tokens, batch_size, device, _cache_folder(cache_dir, source, tokens), progress, token_vectors)
    embeddings = run.embeddings()
    if normalize:
        for some in np.array_split(embeddings, 1 + len(embeddings) // 100_000):  # this takes as much memory again
            length = np.linalg.norm(some, axis=1, keepdims=True)
            some /= np.where(length > 0, length, 1)
    return embeddings


def _opened(encoder: Encoder, recipe: EmbeddingRecipe | None) -> TextEncoder:
    if not isinstance(encoder, str) and isinstance(encoder[0], ExportedEncoder):
        return GraphSource(encoder[0], encoder[1], recipe or EmbeddingRecipe())
    from .loaded import LoadedEncoder

    return LoadedEncoder.open(encoder, recipe)


def embed_share(
    texts: Sequence[str],
    encoder: Encoder,
    share: tuple[int, int],
    cache_dir: str | Path,
    *,
    recipe: EmbeddingRecipe | None = None,
    max_length: int = 256,
) -> None:
    """Embed passages that no other process embeds, into the cache that [`embed_texts`] reads.

    Args:
        share: which of how many parts, from 0: (0, 2) is the first half of the shards.
        texts, encoder, cache_dir, recipe, max_length: see [`embed_texts`]; errors, too.
    """
    source = _opened(encoder, recipe)
    prompt = source.recipe.prompt("passage")
    counted = {int(min(max_length, source.longest))}  # by `embed_texts`, which reads all
    tokens = _tokenize([prompt + text for text in texts], source, max_length, counted)
    folder = _cache_folder(cache_dir, source, tokens)
    _Run(source, tokens, BATCH_SIZE, None, folder, progress=True).fill(*share)


def _check_arguments(texts: Sequence[str], max_length: int, batch_size: int) -> None:
    if isinstance(texts, str):
        raise DataError(f"One string is given where a list of texts is expected: {texts[:60]!r}. Write [text].")
    for row, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(f"The text is {type(text).__name__} {str(text)[:60]!r}; a string is expected.", row=row)
        try:
            text.encode()
        except UnicodeEncodeError as err:
            message = f"The text {text[:60]!r} is not valid Unicode: half of a surrogate pair."
            raise DataError(message, row=row) from err
    if batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size}; at least 1 is needed.")
    if max_length < 1:
        raise ConfigurationError(f"max_length={max_length}; at least 1 is needed.")


# ---------------------------------------------------------------------------------------------------- tokens


@dataclass
class _Tokens:
    """Token ids of `N` texts, one after the other: text i has `ids[starts[i]:starts[i + 1]]`."""

    ids: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def padded(self, rows: np.ndarray, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Give the token ids and the attention mask of some texts, both `(B, S)`."""
        lengths = self.lengths[rows]
        mask = np.arange(lengths.max())[None, :] < lengths[:, None]
        ids = np.full(mask.shape, pad_id, dtype=np.int64)
        ids[mask] = np.concatenate([self.ids[self.starts[row] : self.starts[row + 1]] for row in rows])
        return ids, mask.astype(np.int64)


def _tokenize(texts: Sequence[str], source: TextEncoder, max_length: int, reported: set[int] | None = None) -> _Tokens:
    tokenizer = source.tokenizer
    limit = int(min(max_length, source.longest))
    special = tokenizer.num_special
    if limit <= special:
        raise ConfigurationError(
            f"max_length={max_length} leaves no room for text: {source.name} takes {source.longest} tokens, "
            f"{special} of them special."
        )
    flat = array("i")  # which grows where it is: the tokens of a million texts are a gigabyte
    lengths: list[int] = []
    truncated = 0
    for start in range(0, len(texts), _TOKENIZE_AT_ONCE):
        chunk = list(texts[start : start + _TOKENIZE_AT_ONCE])
        ids = tokenizer.ids(chunk)
        for row in (row for row, one in enumerate(ids) if len(one) > limit):
            ids[row] = tokenizer.first_ids(chunk[row], limit)
            truncated += 1
        lengths += map(len, ids)
        flat.extend(token for one in ids for token in one)
    report_cut_texts(truncated, len(texts), limit, reported)
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    return _Tokens(np.frombuffer(flat, dtype=np.int32), starts)


# ---------------------------------------------------------------------------------------------------- computing


def _cache_folder(cache_dir: str | Path | None, source: TextEncoder, tokens: _Tokens) -> Path | None:
    """Name the folder of this job's shards after token ids (so tokenizer and `max_length` too) and weights."""
    if cache_dir is None:
        return None
    pooling = "" if source.recipe.pooling == "mean" else f":{source.recipe.pooling}"
    digest = hashlib.blake2b(f"{_CACHE_VERSION}:{SHARD_TEXTS}:{source.identity()}{pooling}".encode(), digest_size=16)
    digest.update(tokens.ids.data)
    digest.update(tokens.starts.data)
    folder = Path(cache_dir).expanduser() / f"{EMBEDDINGS_PREFIX}{digest.hexdigest()}"
    if not (folder / ABOUT_EMBEDDINGS_FILE).is_file():
        _ABOUT.write(folder / ABOUT_EMBEDDINGS_FILE, {"encoder": source.name, "texts": len(tokens)})
    return folder


@dataclass
class _Run:
    """One call's work, shard by shard in the order of text length."""

    source: TextEncoder
    tokens: _Tokens
    batch_size: int
    device: str | torch.device | None
    folder: Path | None
    progress: bool
    token_vectors: TokenVectors | None = None

    def embeddings(self) -> np.ndarray:
        """Compute the missing shards, and put all rows into the order of the texts: `(N, H)`, float32."""
        width, shards, missing = self.source.width, self._shards(), []
        found = np.zeros((len(self.tokens), width), dtype=np.float32)
        without = len(found) - sum(map(len, shards))
        if without:
            logger.warning("%d texts have no tokens; their embeddings are zero.", without)
        for number, rows in enumerate(shards):
            cached = self._read(number, (len(rows), width))
            if cached is None:
                missing.append(number)
            else:
                found[rows] = cached
        if missing:
            self._compute(shards, missing, found)
        return found

    def fill(self, part: int, parts: int) -> None:
        """Compute the missing ones of every so many shards, into the cache alone."""
        width, shards = self.source.width, self._shards()
        own = range(part, len(shards), parts)
        missing = [number for number in own if self._read(number, (len(shards[number]), width)) is None]
        if missing:
            self._compute(shards, missing, np.zeros((len(self.tokens), width), dtype=np.float32))

    def _shards(self) -> list[np.ndarray]:
        """The texts that have tokens, in parts, longest first: what needs most memory fails at once."""
        order = np.argsort(-self.tokens.lengths, kind="stable")
        order = order[self.tokens.lengths[order] > 0]
        return [order[start : start + SHARD_TEXTS] for start in range(0, len(order), SHARD_TEXTS)]

    def _path(self, number: int) -> Path | None:
        return None if self.folder is None else self.folder / f"shard-{number:05d}.safetensors"

    def _read(self, number: int, shape: tuple[int, int]) -> np.ndarray | None:
        """Read a finished shard `(rows, H)`; None where it has to be computed."""
        path = self._path(number)
        if path is None or not path.is_file():
            return None
        try:
            arrays, _ = _SHARD.read(path, dict(zip("NH", shape, strict=True)))
        except ModelFolderError as err:
            logger.warning("A part of the embedding cache is computed again: %s", err)
            return None
        return arrays["embeddings"]

    def _compute(self, shards: list[np.ndarray], missing: list[int], found: np.ndarray) -> None:
        """Fill `found` with the missing shards, and write them to the cache."""
        total = sum(len(shards[number]) for number in missing)
        with (
            self.source.computing(self.device) as encode,
            tqdm(total=total, unit="text", desc="Embedding", disable=None if self.progress else True) as bar,
        ):
            for number in missing:
                rows = shards[number]
                for start in range(0, len(rows), self.batch_size):
                    batch = rows[start : start + self.batch_size]
                    found[batch] = self._encode(encode, batch)
                    bar.update(len(batch))
                if not np.isfinite(found[rows]).all():
                    raise CheckpointError(f"{self.source.name} computes NaN or infinity. Load it in float32.")
                self._write(number, found[rows])

    def _encode(self, encode: Encode, rows: np.ndarray) -> np.ndarray:
        ids, mask = self.tokens.padded(rows, self.source.tokenizer.padding_id)
        vectors, hidden = encode(ids, mask, self.token_vectors is not None)
        if self.token_vectors is not None and hidden is not None:
            self.token_vectors.add(rows, hidden)
        return vectors

    def _write(self, number: int, values: np.ndarray) -> None:
        path = self._path(number)
        if path is not None:
            _SHARD.write(path, {"embeddings": values})
